//! How the news of revocations comes from one process to another.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::future::{Either, select};

use super::{News, Revocations, StoreError, Write};
use crate::{KeyId, Runtime, event};

/// How soon a carrier that has failed is asked again.
const RETRY: Duration = Duration::from_millis(100);

/// Brings news of revocations from wherever they are made known: a table that all processes read, a
/// channel that they listen to. [`Revocations::follow`] hands them on to the sessions.
pub trait NewsCarrier: Send + 'static {
    /// Waits for news, and answers what has come since it last answered. To show that it is alive
    /// it answers well within the patience of who follows it, with nothing if there is nothing.
    ///
    /// The first answer begins where the carrier began. What it could not answer because of an
    /// error, or because it was no longer asked, it answers later; what it can no longer tell is
    /// [`Heard::Lost`].
    fn next(&mut self) -> Write<'_, Heard>;
}

/// What a [`NewsCarrier`] has heard: [`News`] that it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// These keys were taken back, if any, and with them those that they minted.
    Revoked(Vec<KeyId>),
    /// Some were, and it cannot be told which.
    Lost,
}

impl Revocations {
    /// Publishes what `carrier` brings, until the hub is gone. To be run as a task of its own.
    ///
    /// While the carrier fails or is silent, [`is_current`](Self::is_current) is false, an event
    /// tells the operator, and sessions do not hear of keys that are taken back elsewhere. That
    /// lasts for `patience` at most: then every session is told that its key may be gone
    /// ([`News::Lost`]), and again after as long, until the carrier is back.
    pub fn follow(
        &self,
        mut carrier: impl NewsCarrier,
        runtime: Arc<dyn Runtime>,
        patience: Duration,
    ) -> impl Future<Output = ()> + Send + 'static {
        // Not a clone: who follows must not keep the hub alive.
        let hub = self.downgrade();
        async move {
            let mut last = runtime.sleep(patience);
            loop {
                // In this order: a carrier that fails at once, always, must not hide the time.
                let heard = match select(&mut last, pin!(carrier.next())).await {
                    Either::Left(_) => None,
                    Either::Right((heard, _)) => Some(heard),
                };
                let Some(hub) = hub.upgrade() else { return };
                match heard {
                    Some(Ok(heard)) => {
                        if hub.set_current(true) {
                            event::news_resumed();
                        }
                        hub.publish(heard.as_news());
                        drop(hub);
                        last = runtime.sleep(patience);
                        // A carrier that always has something must not keep a thread to itself.
                        yield_now().await;
                    }
                    Some(Err(error)) => {
                        if hub.set_current(false) {
                            event::news_stopped(&error);
                        }
                        drop(hub);
                        runtime.sleep(RETRY).await;
                    }
                    None => {
                        if hub.set_current(false) {
                            event::news_stopped(&StoreError::new("no answer in time"));
                        }
                        event::news_lost();
                        hub.publish(News::Lost);
                        last = runtime.sleep(patience);
                    }
                }
            }
        }
    }
}

/// Lets other tasks run.
async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Heard {
    fn as_news(&self) -> News<'_> {
        match self {
            Self::Revoked(ids) => News::Revoked(ids),
            Self::Lost => News::Lost,
        }
    }
}
