//! How a revocation reaches the sessions that are open already.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use crate::{KeyId, KeyRecord, Parent};

/// How many revocations may fall between a lookup and its watch before it fails closed.
const RECENT: usize = 1024;

/// Which keys to take back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revocation {
    /// One key and the ephemeral keys that it minted.
    Key(KeyId),
    /// Every key of an account.
    Account(Arc<str>),
}

impl Revocation {
    /// Whether it takes back the key of this record.
    #[must_use]
    pub fn concerns(&self, record: &KeyRecord) -> bool {
        match self {
            Self::Key(id) => record.id() == id || record.parent().map(Parent::id) == Some(id),
            Self::Account(account) => record.account() == account,
        }
    }
}

/// Where a store tells of revocations, and sessions hear of them. A clone is the same hub.
///
/// A store that owns one answers it from [`KeyStore::revocations`](crate::KeyStore::revocations),
/// and publishes each revocation once its lookups show it. Sessions ask
/// [`Principal::revoked`](crate::Principal::revoked).
///
/// ```
/// # use futures_util::FutureExt as _;
/// # async {
/// use tower_realtime_auth::{KeyStore, Keys, MemoryStore, NewKey};
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
///
/// let hub = keys.store().revocations().expect("a store in memory has one");
/// let mut revoked = hub.watch(issued.record().clone(), hub.epoch());
/// assert!((&mut revoked).now_or_never().is_none());
///
/// keys.revoke(issued.record().id()).await?;
/// revoked.await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }.now_or_never().expect("a store in memory answers at once").unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Revocations(Arc<Hub>);

#[derive(Default)]
struct Hub {
    /// How many revocations were published. Changes under the lock, is read without.
    epoch: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    recent: Recent,
    watches: HashMap<u64, Arc<Watch>>,
    last_ticket: u64,
    subscribers: Vec<Subscriber>,
}

type Subscriber = Arc<dyn Fn(&Revocation) + Send + Sync>;

impl Revocations {
    /// How many revocations were published so far.
    ///
    /// Read before a lookup, it tells [`watch`](Self::watch) from where on the lookup may have
    /// missed one.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    /// Tells all whom it concerns. A store calls this once its lookups show the revocation, and
    /// before it answers that it is done; also for keys that it has forgotten, because their
    /// sessions may outlive them.
    ///
    /// Looks at every watch: a few milliseconds for 100,000 of them.
    pub fn publish(&self, revocation: &Revocation) {
        // Before the epoch moves: who reads the new epoch and asks a cache must not find there
        // what this revocation removes.
        let subscribers = self.lock().subscribers.clone();
        for subscriber in subscribers {
            subscriber(revocation);
        }
        let told = {
            let mut state = self.lock();
            state.recent.push(revocation.clone());
            self.0.epoch.fetch_add(1, Ordering::Release);
            state.tell(revocation)
        };
        // Waking runs code of others, who may come back here: not under the lock.
        for watch in told {
            watch.waker.wake();
        }
    }

    /// Calls `subscriber` with every revocation from now on, for as long as there is the hub:
    /// a cache forgets by it what it holds.
    ///
    /// It is called before [`publish`](Self::publish) returns and should be quick. It must not
    /// panic: those after it would not be told. What it captures should not own the store.
    pub fn subscribe(&self, subscriber: impl Fn(&Revocation) + Send + Sync + 'static) {
        self.lock().subscribers.push(Arc::new(subscriber));
    }

    /// Waits for the key of `record` to be taken back, where `since` is the
    /// [`epoch`](Self::epoch) from before the record was looked up.
    pub fn watch(&self, record: Arc<KeyRecord>, since: u64) -> Revoked {
        Revoked::new(record, Some((self.clone(), since)))
    }

    /// A watch from now on; `None` if the key was revoked since, or may have been.
    fn enter(&self, record: &Arc<KeyRecord>, since: u64) -> Option<Arc<Watch>> {
        let mut state = self.lock();
        // An epoch that is yet to come is not one of this hub: nothing is known then.
        let missed = self.epoch().checked_sub(since)?;
        if state.recent.may_concern(record, missed) {
            return None;
        }
        state.last_ticket += 1;
        let watch = Arc::new(Watch {
            ticket: state.last_ticket,
            record: Arc::clone(record),
            is_told: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        state.watches.insert(watch.ticket, Arc::clone(&watch));
        Some(watch)
    }

    fn leave(&self, watch: &Watch) {
        self.lock().watches.remove(&watch.ticket);
    }

    /// Nothing that holds the lock can panic half way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tells those whom it concerns, who are to be woken then.
    fn tell(&mut self, revocation: &Revocation) -> Vec<Arc<Watch>> {
        let concerned = self.watches.extract_if(|_, watch| revocation.concerns(&watch.record));
        let told = concerned.map(|(_, watch)| {
            // Under the lock, so that nobody can publish the same again and return before it.
            watch.is_told.store(true, Ordering::Release);
            watch
        });
        told.collect()
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations")
            .field("epoch", &self.epoch())
            .field("watches", &self.lock().watches.len())
            .finish_non_exhaustive()
    }
}

/// The last [`RECENT`] revocations, the latest at the end.
#[derive(Default)]
struct Recent(VecDeque<Revocation>);

impl Recent {
    fn push(&mut self, revocation: Revocation) {
        if self.0.len() == RECENT {
            self.0.pop_front();
        }
        self.0.push_back(revocation);
    }

    /// Whether one of the last `missed` concerns the record, or is no longer known.
    fn may_concern(&self, record: &KeyRecord, missed: u64) -> bool {
        match usize::try_from(missed) {
            Ok(missed) if missed <= self.0.len() => {
                self.0.iter().rev().take(missed).any(|revocation| revocation.concerns(record))
            }
            _ => true,
        }
    }
}

/// One session that waits. Its polls touch this alone, never the lock of the hub.
struct Watch {
    ticket: u64,
    record: Arc<KeyRecord>,
    is_told: AtomicBool,
    waker: AtomicWaker,
}

impl Watch {
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        // In this order: who tells in between either is seen here or wakes.
        self.waker.register(cx.waker());
        if self.is_told.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Ready once a key is taken back, or the one that minted it, or its account.
///
/// It waits for ever if the store tells of no revocations. It listens from its first poll on and
/// until it is dropped; what happened before that is known from the last 1,024 revocations, and if
/// there were more, it is ready at once: the key may have been among them.
#[must_use = "a watch that is not polled hears of nothing"]
pub struct Revoked {
    record: Arc<KeyRecord>,
    /// Where to listen, and from which epoch on.
    hub: Option<(Revocations, u64)>,
    watch: Option<Arc<Watch>>,
}

impl Revoked {
    pub(crate) const fn new(record: Arc<KeyRecord>, hub: Option<(Revocations, u64)>) -> Self {
        Self { record, hub, watch: None }
    }
}

impl Future for Revoked {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { record, hub, watch } = self.get_mut();
        if record.is_revoked() {
            return Poll::Ready(());
        }
        let Some((hub, since)) = hub else { return Poll::Pending };
        if watch.is_none() {
            *watch = hub.enter(record, *since);
        }
        watch.as_ref().map_or(Poll::Ready(()), |watch| watch.poll(cx))
    }
}

impl Drop for Revoked {
    fn drop(&mut self) {
        if let (Some((hub, _)), Some(watch)) = (&self.hub, &self.watch) {
            hub.leave(watch);
        }
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoked").field("key_id", self.record.id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyDigest, KeyKind, UnixMillis};

    fn record(id: &str) -> KeyRecord {
        let digest = KeyDigest::from_bytes([0; 32]);
        KeyRecord::new(KeyId::new(id), digest, "acme", KeyKind::Secret, UnixMillis::new(0))
    }

    fn of_key(id: &str) -> Revocation {
        Revocation::Key(KeyId::new(id))
    }

    #[test]
    fn the_ring_knows_as_many_as_it_says() {
        let mut recent = Recent::default();
        assert!(!recent.may_concern(&record("a"), 0));
        assert!(recent.may_concern(&record("a"), 1), "more than there ever were");

        recent.push(of_key("a"));
        for _ in 1..RECENT {
            recent.push(of_key("b"));
        }
        let (all, len) = (RECENT as u64, |recent: &Recent| recent.0.len());
        assert_eq!(len(&recent), RECENT);
        assert!(recent.may_concern(&record("a"), all), "the oldest that is known");
        assert!(!recent.may_concern(&record("a"), all - 1));
        assert!(!recent.may_concern(&record("c"), all));

        recent.push(of_key("b"));
        assert_eq!(len(&recent), RECENT, "it does not grow");
        assert!(!recent.may_concern(&record("a"), all), "forgotten");
        assert!(recent.may_concern(&record("c"), all + 1), "what is forgotten may be anything");
        assert!(recent.may_concern(&record("c"), u64::MAX));
    }

    #[test]
    fn a_revocation_concerns_key_children_and_account() {
        let child = record("child").with_parent(Some(Parent::new(KeyId::new("parent"))));
        for (revocation, concerns) in [
            (of_key("child"), true),
            (of_key("parent"), true),
            (of_key("other"), false),
            (Revocation::Account("acme".into()), true),
            (Revocation::Account("other".into()), false),
        ] {
            assert_eq!(revocation.concerns(&child), concerns, "{revocation:?}");
        }
        assert!(!of_key("child").concerns(&record("parent")));
    }
}
