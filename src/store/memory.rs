//! Keys in the memory of one process.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    sync::{Arc, RwLock},
    time::Duration,
};

use super::{
    Answer, Inserted, KeyAdmin, KeyFilter, KeyStore, Lookup, Redeemed, Revocation, Revocations,
    StoreError, Use, Write,
};
use crate::{KeyDigest, KeyId, KeyKind, KeyRecord, Parent, UnixMillis};

/// How long an expired ephemeral key is remembered, so that its refusal can say why.
const REMEMBER_EXPIRED: Duration = Duration::from_secs(60);

/// A store in memory: fast, shared by the clones of an `Arc`, and empty after a restart.
///
/// Ephemeral keys are forgotten a minute after they expired; secret keys stay.
///
/// ```
/// # futures_util::FutureExt::now_or_never(async {
/// use std::sync::Arc;
/// use tower_realtime_auth::{KeyDigest, KeyStore, Keys, MemoryStore, NewKey};
///
/// let store = Arc::new(MemoryStore::new());
/// let keys = Keys::new(Arc::clone(&store));
/// let issued = keys.issue(NewKey::secret("acme")).await?;
///
/// let found = store.lookup(issued.record().digest()).await?;
/// assert_eq!(found.as_ref().map(|record| &**record.account()), Some("acme"));
/// let unknown = store.lookup(&KeyDigest::from_bytes([7; 32])).await?;
/// assert!(unknown.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).expect("a store in memory answers at once").unwrap();
/// ```
#[derive(Default)]
pub struct MemoryStore {
    // One lock over all tables: a revoke must be seen whole. Std's maps hash with a random seed,
    // so that imported keys cannot be chosen to collide.
    tables: Arc<RwLock<Tables>>,
    revocations: Revocations,
}

#[derive(Default)]
struct Tables {
    by_digest: HashMap<KeyDigest, Arc<KeyRecord>>,
    by_id: HashMap<KeyId, KeyDigest>,
    children: HashMap<KeyId, Children>,
    expiring: BTreeSet<(UnixMillis, KeyId)>,
    used: HashMap<KeyId, u32>,
}

#[derive(Default)]
struct Children {
    all: HashSet<KeyId>,
    /// Those that count against a cap, by when they expire. Their number is at hand, so that a key
    /// that has too many cannot keep everybody waiting by asking for more.
    live: BTreeSet<(UnixMillis, KeyId)>,
}

impl MemoryStore {
    /// A store without keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> Result<T, StoreError> {
        // A poisoned lock may hold half a change: better no answer than a wrong one.
        let tables = self.tables.read().map_err(|_| StoreError::new("a writer panicked"))?;
        Ok(read(&tables))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Tables) -> T) -> Result<T, StoreError> {
        let mut tables = self.tables.write().map_err(|_| StoreError::new("a writer panicked"))?;
        Ok(write(&mut tables))
    }
}

impl KeyStore for MemoryStore {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        Answer::ready(self.read(|tables| tables.by_digest.get(digest).cloned()))
    }

    fn lookup_either(&self, current: &KeyDigest, previous: &KeyDigest) -> Lookup {
        Answer::ready(self.read(|tables| {
            let by_digest = &tables.by_digest;
            by_digest.get(current).or_else(|| by_digest.get(previous)).cloned()
        }))
    }

    fn redeem(&self, record: &Arc<KeyRecord>) -> Redeemed {
        let taken = self.write(|tables| tables.redeem(record));
        Answer::ready(taken.map(|taken| {
            taken.then(|| {
                let (tables, id) = (Arc::clone(&self.tables), record.id().clone());
                // A poisoned lock answers nothing any more, so that nothing is to be returned.
                Use::new(move || {
                    if let Ok(mut tables) = tables.write() {
                        tables.give_back(&id);
                    }
                })
            })
        }))
    }

    fn revocations(&self) -> Option<&Revocations> {
        Some(&self.revocations)
    }
}

impl KeyAdmin for MemoryStore {
    fn insert(&self, record: KeyRecord, max_children: Option<u32>) -> Write<'_, Inserted> {
        Answer::ready(self.write(|tables| tables.insert(record, max_children)))
    }

    fn find(&self, id: &KeyId) -> Write<'_, Option<Arc<KeyRecord>>> {
        Answer::ready(self.read(|tables| tables.find(id).cloned()))
    }

    fn revoke(&self, what: &Revocation, at: UnixMillis) -> Write<'_, u64> {
        let revoked = self.write(|tables| tables.revoke(what, at));
        // Even if no record is left to touch: a session may outlive the record of its key.
        if revoked.is_ok() {
            self.revocations.publish(what);
        }
        Answer::ready(revoked)
    }

    fn list(&self, filter: &KeyFilter) -> Write<'_, Vec<Arc<KeyRecord>>> {
        Answer::ready(self.read(|tables| tables.list(filter)))
    }
}

impl Tables {
    fn find(&self, id: &KeyId) -> Option<&Arc<KeyRecord>> {
        self.by_digest.get(self.by_id.get(id)?)
    }

    fn insert(&mut self, record: KeyRecord, max_children: Option<u32>) -> Inserted {
        let now = record.created_at();
        self.forget_expired(now);
        if self.by_id.contains_key(record.id()) || self.by_digest.contains_key(record.digest()) {
            return Inserted::Taken;
        }
        if let (Some(parent), Some(max)) = (record.parent(), max_children)
            && self.live_children(parent.id(), now) >= usize::try_from(max).unwrap_or(usize::MAX)
        {
            return Inserted::TooManyChildren;
        }
        if let Some(parent) = record.parent() {
            let children = self.children.entry(parent.id().clone()).or_default();
            children.all.insert(record.id().clone());
            if !record.is_revoked() {
                children.live.insert(by_expiry(&record));
            }
        }
        if let (KeyKind::Ephemeral, Some(expires_at)) = (record.kind(), record.expires_at()) {
            self.expiring.insert((expires_at, record.id().clone()));
        }
        self.by_id.insert(record.id().clone(), *record.digest());
        self.by_digest.insert(*record.digest(), Arc::new(record));
        Inserted::Yes
    }

    /// How many children of `parent` are neither expired nor revoked.
    fn live_children(&mut self, parent: &KeyId, now: UnixMillis) -> usize {
        let Some(Children { live, .. }) = self.children.get_mut(parent) else { return 0 };
        while live.first().is_some_and(|(expires_at, _)| *expires_at <= now) {
            live.pop_first();
        }
        live.len()
    }

    fn revoke(&mut self, what: &Revocation, at: UnixMillis) -> u64 {
        let roots: Vec<KeyId> = match what {
            Revocation::Key(id) => vec![id.clone()],
            Revocation::Account(account) => {
                let of_account = self.by_digest.values().filter(|key| key.account() == account);
                of_account.map(|key| key.id().clone()).collect()
            }
        };
        // Of an account, a child is both a key of its own and its parent's: it counts once.
        let mut touched = HashSet::new();
        for root in &roots {
            touched.extend(self.change(root, |record| {
                let first = record.revoked_at().unwrap_or(at);
                record.with_revoked_at(Some(first))
            }));
            let children = self.children.get(root).map(|children| children.all.clone());
            for child in &children.unwrap_or_default() {
                touched.extend(self.change(child, |record| {
                    let first = record.parent().and_then(Parent::revoked_at).unwrap_or(at);
                    let parent = Parent::new(root.clone()).with_revoked_at(Some(first));
                    record.with_parent(Some(parent))
                }));
            }
        }
        touched.len() as u64
    }

    fn redeem(&mut self, record: &KeyRecord) -> bool {
        let Some(allowed) = record.grants().uses() else { return true };
        if !self.by_id.contains_key(record.id()) {
            return false;
        }
        let used = self.used.entry(record.id().clone()).or_default();
        let is_left = *used < allowed;
        if is_left {
            *used += 1;
        }
        is_left
    }

    fn give_back(&mut self, id: &KeyId) {
        if let Some(used) = self.used.get_mut(id) {
            *used = used.saturating_sub(1);
        }
    }

    /// Changes a record; answers its id if there is such a record.
    fn change(&mut self, id: &KeyId, change: impl FnOnce(KeyRecord) -> KeyRecord) -> Option<KeyId> {
        let record = self.by_digest.get_mut(self.by_id.get(id)?)?;
        *record = Arc::new(change(KeyRecord::clone(record)));
        if record.is_revoked()
            && let Some(parent) = record.parent()
            && let Some(children) = self.children.get_mut(parent.id())
        {
            children.live.remove(&by_expiry(record));
        }
        Some(id.clone())
    }

    fn list(&self, filter: &KeyFilter) -> Vec<Arc<KeyRecord>> {
        let wanted = |record: &&Arc<KeyRecord>| {
            filter.account.as_ref().is_none_or(|account| record.account() == account)
                && filter.algorithm.is_none_or(|algorithm| record.algorithm() == algorithm)
        };
        let mut records: Vec<_> = self.by_digest.values().filter(wanted).cloned().collect();
        records.sort_by(|a, b| (a.created_at(), a.id()).cmp(&(b.created_at(), b.id())));
        records
    }

    fn forget_expired(&mut self, now: UnixMillis) {
        while let Some((expires_at, _)) = self.expiring.first() {
            if expires_at.saturating_add(REMEMBER_EXPIRED) > now {
                break;
            }
            let Some((expires_at, id)) = self.expiring.pop_first() else { break };
            self.used.remove(&id);
            let digest = self.by_id.remove(&id);
            let record = digest.and_then(|digest| self.by_digest.remove(&digest));
            let Some(parent) = record.as_ref().and_then(|record| record.parent()) else { continue };
            if let Some(children) = self.children.get_mut(parent.id()) {
                children.all.remove(&id);
                children.live.remove(&(expires_at, id));
                if children.all.is_empty() {
                    self.children.remove(parent.id());
                }
            }
        }
    }
}

/// A child's place among those that live.
fn by_expiry(record: &KeyRecord) -> (UnixMillis, KeyId) {
    let never = UnixMillis::new(u64::MAX);
    (record.expires_at().unwrap_or(never), record.id().clone())
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.read(|tables| tables.by_id.len()).ok();
        f.debug_struct("MemoryStore").field("keys", &keys).finish_non_exhaustive()
    }
}
