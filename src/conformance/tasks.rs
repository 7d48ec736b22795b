//! Tasks that race, on any runtime.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
};

use futures_util::future::{BoxFuture, join_all};

use super::finding::Seen;
use crate::Runtime;

/// How often a task gives way to those that have not begun. A bound, because a runtime may drop a
/// task unrun.
const PATIENCE: usize = 10_000;

/// Runs tasks that begin at once, or nearly; answers what they answer, in order.
pub(super) async fn race<T: Send + 'static>(
    runtime: &dyn Runtime,
    tasks: Vec<BoxFuture<'static, T>>,
) -> Result<Vec<T>, Seen> {
    let (count, arrived) = (tasks.len(), Arc::new(AtomicUsize::new(0)));
    let handles: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let (slot, arrived) = (Arc::new(Slot::new()), Arc::clone(&arrived));
            let ended = Ended(Arc::clone(&slot));
            runtime.spawn(Box::pin(async move {
                arrived.fetch_add(1, Ordering::SeqCst);
                for _ in 0..PATIENCE {
                    // First, so that the last one to come is not the first to go.
                    give_way().await;
                    if arrived.load(Ordering::SeqCst) == count {
                        break;
                    }
                }
                let value = task.await;
                ended.0.lock().value = Some(value);
            }));
            slot
        })
        .collect();
    let values = join_all(handles.iter().map(Slot::ended)).await;
    let values: Option<Vec<T>> = values.into_iter().collect();
    values.ok_or_else(|| Seen::new("a task did not end: did the store panic?"))
}

/// Lets others run.
pub(super) async fn give_way() {
    let mut has_waited = false;
    poll_fn(|cx| {
        if has_waited {
            return Poll::Ready(());
        }
        has_waited = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Where a task leaves its answer.
struct Slot<T>(Mutex<State<T>>);

struct State<T> {
    value: Option<T>,
    has_ended: bool,
    waker: Option<Waker>,
}

impl<T> Slot<T> {
    fn new() -> Self {
        Self(Mutex::new(State { value: None, has_ended: false, waker: None }))
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer; `None` if the task ended without one.
    async fn ended(self: &Arc<Self>) -> Option<T> {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.has_ended {
                return Poll::Ready(state.value.take());
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Says so when a task ends, by whatever end.
struct Ended<T>(Arc<Slot<T>>);

impl<T> Drop for Ended<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock();
            state.has_ended = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
