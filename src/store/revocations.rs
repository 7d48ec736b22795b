//! How a revocation reaches the sessions that are open already.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt,
    future::Future,
    hash::{BuildHasher, RandomState},
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use crate::{KeyId, KeyRecord, Parent};

/// How many revocations may fall between a lookup and its watch before it fails closed.
const RECENT: usize = 1024;

/// What sessions and caches are to know of the keys that were taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum News<'a> {
    /// These keys were, and with them the ephemeral keys that they minted.
    Revoked(&'a [KeyId]),
    /// Nothing is known any more: it may have been any key.
    Lost,
}

impl News<'_> {
    /// Whether the key of this record may be one of them.
    #[must_use]
    pub fn concerns(self, record: &KeyRecord) -> bool {
        match self {
            Self::Revoked(ids) => ids.iter().any(|id| is_of(record, id)),
            Self::Lost => true,
        }
    }
}

/// Whether `id` names the key of this record or the one that minted it.
fn is_of(record: &KeyRecord, id: &KeyId) -> bool {
    record.id() == id || record.parent().map(Parent::id) == Some(id)
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
    /// How many keys were told of. Changes under the lock, is read without.
    epoch: AtomicU64,
    /// Whether what brings news from elsewhere has stopped.
    is_behind: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    recent: Recent,
    /// Each watch by the hash of its key and by that of the one that minted it, and by its ticket.
    /// The hash is seeded; whose watch it is, its record tells.
    watches: BTreeMap<(u64, u64), Arc<Watch>>,
    hashes: RandomState,
    last_ticket: u64,
    subscribers: Vec<Subscriber>,
}

type Subscriber = Arc<dyn Fn(News<'_>) + Send + Sync>;

impl Revocations {
    /// How many keys were told of so far.
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
    /// Costs as much as there are sessions to tell, however many others there are.
    pub fn publish(&self, news: News<'_>) {
        // Before the epoch moves: who reads the new epoch and asks a cache must not find there
        // what this revocation removes.
        let subscribers = self.lock().subscribers.clone();
        for subscriber in subscribers {
            subscriber(news);
        }
        let told = {
            let mut state = self.lock();
            let step = state.recent.note(news);
            self.0.epoch.fetch_add(step, Ordering::Release);
            state.tell(news)
        };
        // Waking runs code of others, who may come back here: not under the lock.
        for watch in told {
            watch.waker.wake();
        }
    }

    /// Calls `subscriber` with all news from now on, for as long as there is the hub: a cache
    /// forgets by it what it holds.
    ///
    /// It is called before [`publish`](Self::publish) returns and should be quick. It must not
    /// panic: those after it would not be told. What it captures should not own the store.
    pub fn subscribe(&self, subscriber: impl Fn(News<'_>) + Send + Sync + 'static) {
        self.lock().subscribers.push(Arc::new(subscriber));
    }

    /// Whether all news come here that should. False while what brings them from other processes
    /// has failed; a health check can ask this.
    #[must_use]
    pub fn is_current(&self) -> bool {
        !self.0.is_behind.load(Ordering::Relaxed)
    }

    /// Answers whether that is a change.
    pub(super) fn set_current(&self, is_current: bool) -> bool {
        self.0.is_behind.swap(!is_current, Ordering::Relaxed) == is_current
    }

    pub(super) fn downgrade(&self) -> WeakRevocations {
        WeakRevocations(Arc::downgrade(&self.0))
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
        state.insert(&watch);
        Some(watch)
    }

    fn leave(&self, watch: &Watch) {
        self.lock().remove(watch);
    }

    /// Nothing that holds the lock can panic half way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A hub, for as long as others have it.
pub(super) struct WeakRevocations(Weak<Hub>);

impl WeakRevocations {
    pub(super) fn upgrade(&self) -> Option<Revocations> {
        self.0.upgrade().map(Revocations)
    }
}

impl State {
    /// Tells those whom it concerns, who are to be woken then.
    fn tell(&mut self, news: News<'_>) -> Vec<Arc<Watch>> {
        let concerned: Vec<Arc<Watch>> = match news {
            News::Revoked(ids) => ids.iter().flat_map(|id| self.of_key(id)).cloned().collect(),
            News::Lost => mem::take(&mut self.watches).into_values().collect(),
        };
        for watch in &concerned {
            // Under the lock, so that nobody can publish the same again and return before it.
            watch.is_told.store(true, Ordering::Release);
            self.remove(watch);
        }
        concerned
    }

    /// The watches that end with the key `id`.
    fn of_key(&self, id: &KeyId) -> impl Iterator<Item = &Arc<Watch>> {
        let hash = self.hashes.hash_one(id);
        let watches = self.watches.range((hash, 0)..=(hash, u64::MAX));
        watches.map(|(_, watch)| watch).filter(|watch| is_of(&watch.record, id))
    }

    fn insert(&mut self, watch: &Arc<Watch>) {
        for key in watch.keys() {
            let place = (self.hashes.hash_one(key), watch.ticket);
            self.watches.insert(place, Arc::clone(watch));
        }
    }

    fn remove(&mut self, watch: &Watch) {
        for key in watch.keys() {
            self.watches.remove(&(self.hashes.hash_one(key), watch.ticket));
        }
    }

    /// How many sessions listen.
    fn listening(&self) -> usize {
        let tickets: HashSet<u64> = self.watches.keys().map(|(_, ticket)| *ticket).collect();
        tickets.len()
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations")
            .field("epoch", &self.epoch())
            .field("watches", &self.lock().listening())
            .finish_non_exhaustive()
    }
}

/// The last [`RECENT`] keys that were told of, the latest at the end.
#[derive(Default)]
struct Recent(VecDeque<KeyId>);

impl Recent {
    /// Answers by how much the epoch moves.
    fn note(&mut self, news: News<'_>) -> u64 {
        match news {
            News::Revoked(ids) => {
                for id in ids {
                    if self.0.len() == RECENT {
                        self.0.pop_front();
                    }
                    self.0.push_back(id.clone());
                }
                ids.len() as u64
            }
            // More than are remembered, so that it may have been any.
            News::Lost => {
                self.0.clear();
                RECENT as u64
            }
        }
    }

    /// Whether one of the last `missed` concerns the record, or is no longer known.
    fn may_concern(&self, record: &KeyRecord, missed: u64) -> bool {
        match usize::try_from(missed) {
            Ok(missed) if missed <= self.0.len() => {
                self.0.iter().rev().take(missed).any(|id| is_of(record, id))
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
    /// The keys whose end is the session's.
    fn keys(&self) -> impl Iterator<Item = &KeyId> {
        [self.record.id()].into_iter().chain(self.record.parent().map(Parent::id))
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        // In this order: who tells in between either is seen here or wakes.
        self.waker.register(cx.waker());
        if self.is_told.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Ready once a key is taken back, or the one that minted it, or its account.
///
/// It waits for ever if the store tells of no revocations. It listens from its first poll on and
/// until it is dropped; what happened before that is known from the last 1,024 keys taken back, and
/// if there were more, it is ready at once: the key may have been among them.
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

    fn revoked(recent: &mut Recent, id: &str) {
        assert_eq!(recent.note(News::Revoked(&[KeyId::new(id)])), 1);
    }

    #[test]
    fn the_ring_knows_as_many_as_it_says() {
        let mut recent = Recent::default();
        assert!(!recent.may_concern(&record("a"), 0));
        assert!(recent.may_concern(&record("a"), 1), "more than there ever were");

        revoked(&mut recent, "a");
        for _ in 1..RECENT {
            revoked(&mut recent, "b");
        }
        let (all, len) = (RECENT as u64, |recent: &Recent| recent.0.len());
        assert_eq!(len(&recent), RECENT);
        assert!(recent.may_concern(&record("a"), all), "the oldest that is known");
        assert!(!recent.may_concern(&record("a"), all - 1));
        assert!(!recent.may_concern(&record("c"), all));

        revoked(&mut recent, "b");
        assert_eq!(len(&recent), RECENT, "it does not grow");
        assert!(!recent.may_concern(&record("a"), all), "forgotten");
        assert!(recent.may_concern(&record("c"), all + 1), "what is forgotten may be anything");
        assert!(recent.may_concern(&record("c"), u64::MAX));
    }

    #[test]
    fn what_was_lost_may_have_been_any() {
        let mut recent = Recent::default();
        revoked(&mut recent, "a");
        let lost = recent.note(News::Lost);
        assert!(!recent.may_concern(&record("b"), 0), "looked up since");
        assert!(recent.may_concern(&record("b"), lost), "looked up before");
        revoked(&mut recent, "a");
        assert!(!recent.may_concern(&record("b"), 1));
        assert!(recent.may_concern(&record("b"), lost + 1));
    }

    #[test]
    fn news_concern_the_key_and_its_children() {
        let child = record("child").with_parent(Some(Parent::new(KeyId::new("parent"))));
        for (id, concerns) in [("child", true), ("parent", true), ("other", false)] {
            let ids = [KeyId::new(id)];
            assert_eq!(News::Revoked(&ids).concerns(&child), concerns, "{id}");
        }
        let ids = [KeyId::new("other"), KeyId::new("child")];
        assert!(News::Revoked(&ids).concerns(&child));
        assert!(!News::Revoked(&ids[1..]).concerns(&record("parent")));
        assert!(!News::Revoked(&[]).concerns(&child));
        assert!(News::Lost.concerns(&child));
    }

    #[test]
    fn nothing_is_left_of_those_who_have_gone() {
        let hub = Revocations::default();
        let child = record("child").with_parent(Some(Parent::new(KeyId::new("parent"))));
        let poll = |revoked: &mut Revoked| futures_util::FutureExt::now_or_never(revoked);
        let mut sessions: Vec<_> = (0..3).map(|_| hub.watch(Arc::new(child.clone()), 0)).collect();
        assert!(sessions.iter_mut().all(|session| poll(session).is_none()));
        assert_eq!(hub.lock().listening(), 3);
        sessions.pop();
        assert_eq!(hub.lock().listening(), 2);
        hub.publish(News::Revoked(&[KeyId::new("parent")]));
        assert!(sessions.iter_mut().all(|session| poll(session).is_some()));
        assert!(hub.lock().watches.is_empty());
    }
}
