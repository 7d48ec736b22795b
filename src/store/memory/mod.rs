//! Keys in the memory of one process.

mod index;
mod tables;
mod trail;

use std::{
    fmt,
    sync::{Arc, RwLock},
};

use self::tables::Tables;
use super::{
    Answer, AuditEntry, AuditFilter, Inserted, KeyAdmin, KeyFilter, KeyStore, Lookup, News,
    Redeemed, Revocation, Revocations, Rotated, Stamp, StoreError, Use, Write,
};
use crate::{KeyDigest, KeyId, KeyRecord, Plan, UnixMillis};

/// A store in memory: fast, shared by the clones of an `Arc`, and empty after a restart.
///
/// Ephemeral keys are forgotten a minute after they expired; secret keys stay. Of the audit trail
/// the last 10,000 entries are kept.
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
    // One lock over all tables: a revoke must be seen whole.
    tables: Arc<RwLock<Tables>>,
    revocations: Revocations,
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
        Answer::ready(self.read(|tables| tables.lookup(digest).cloned()))
    }

    fn lookup_either(&self, current: &KeyDigest, previous: &KeyDigest) -> Lookup {
        Answer::ready(
            self.read(|tables| tables.lookup(current).or_else(|| tables.lookup(previous)).cloned()),
        )
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

    fn note_use(&self, record: &Arc<KeyRecord>, at: UnixMillis) {
        record.note_use(at);
    }

    fn revocations(&self) -> Option<&Revocations> {
        Some(&self.revocations)
    }
}

impl KeyAdmin for MemoryStore {
    fn insert(
        &self,
        record: KeyRecord,
        max_children: Option<u32>,
        stamp: &Stamp,
    ) -> Write<'_, Inserted> {
        Answer::ready(self.write(|tables| tables.insert(record, max_children, stamp)))
    }

    fn find(&self, id: &KeyId) -> Write<'_, Option<Arc<KeyRecord>>> {
        Answer::ready(self.read(|tables| tables.find(id).cloned()))
    }

    fn list(&self, filter: &KeyFilter) -> Write<'_, Vec<Arc<KeyRecord>>> {
        Answer::ready(self.read(|tables| tables.list(filter)))
    }

    fn rotate(
        &self,
        old: &KeyId,
        new: KeyRecord,
        old_expires_at: UnixMillis,
        stamp: &Stamp,
    ) -> Write<'_, Rotated> {
        Answer::ready(self.write(|tables| tables.rotate(old, new, old_expires_at, stamp)))
    }

    fn revoke(&self, what: &Revocation, stamp: &Stamp) -> Write<'_, u64> {
        let revoked = self.write(|tables| tables.revoke(what, stamp));
        // Even of keys that there is no record of: a session may outlive the record of its key.
        Answer::ready(revoked.map(|(keys, records)| {
            self.revocations.publish(News::Revoked(&keys));
            records
        }))
    }

    fn remove(&self, id: &KeyId, stamp: &Stamp) -> Write<'_, bool> {
        let removed = self.write(|tables| tables.remove(id, stamp));
        Answer::ready(removed.inspect(|_| {
            self.revocations.publish(News::Revoked(std::slice::from_ref(id)));
        }))
    }

    fn set_plan(&self, id: &KeyId, plan: Plan, stamp: &Stamp) -> Write<'_, bool> {
        Answer::ready(self.write(|tables| tables.set_plan(id, plan, stamp)))
    }

    fn audit(&self, filter: &AuditFilter) -> Write<'_, Vec<AuditEntry>> {
        Answer::ready(self.read(|tables| tables.audit(filter)))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.read(Tables::len).ok();
        f.debug_struct("MemoryStore").field("keys", &keys).finish_non_exhaustive()
    }
}
