//! The rules of stores, for one in a file.

use std::{fs, path::PathBuf, sync::Arc};

use tempfile::TempDir;
use tower_realtime_auth::{
    Answer, AuditEntry, AuditFilter, Inserted, KeyAdmin, KeyDigest, KeyFilter, KeyId, KeyRecord,
    KeyStore, Lookup, Plan, Redeemed, Revocation, Revocations, Rotated, SqliteStore, Stamp,
    TokioRuntime, UnixMillis, Write,
    conformance::{self, Broken, Fragile},
};

/// A store, and the folder that goes with it.
struct InFolder {
    store: SqliteStore,
    folder: TempDir,
}

impl InFolder {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(folder.path().join("keys.db")).await.expect("a store");
        Self { store, folder }
    }

    fn paths(&self) -> [PathBuf; 2] {
        ["keys.db", "elsewhere.db"].map(|name| self.folder.path().join(name))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_in_a_file_breaks_no_rule() -> Result<(), Broken> {
    conformance::check(InFolder::new).await
}

/// It is broken by moving the file away, and mended by putting it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_whose_file_is_gone_breaks_no_rule() -> Result<(), Broken> {
    conformance::check_faults(Arc::new(TokioRuntime), InFolder::new).await
}

impl Fragile for InFolder {
    fn break_store(&self) -> Answer<'_, ()> {
        let [there, elsewhere] = self.paths();
        fs::rename(there, elsewhere).expect("moved away");
        Answer::ready(())
    }

    fn mend(&self) -> Answer<'_, ()> {
        let [there, elsewhere] = self.paths();
        fs::rename(elsewhere, there).expect("moved back");
        Answer::ready(())
    }
}

impl KeyStore for InFolder {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        self.store.lookup(digest)
    }

    fn lookup_either(&self, current: &KeyDigest, previous: &KeyDigest) -> Lookup {
        self.store.lookup_either(current, previous)
    }

    fn redeem(&self, record: &Arc<KeyRecord>) -> Redeemed {
        self.store.redeem(record)
    }

    fn note_use(&self, record: &Arc<KeyRecord>, at: UnixMillis) {
        self.store.note_use(record, at);
    }

    fn revocations(&self) -> Option<&Revocations> {
        self.store.revocations()
    }
}

impl KeyAdmin for InFolder {
    fn insert(
        &self,
        record: KeyRecord,
        max_children: Option<u32>,
        stamp: &Stamp,
    ) -> Write<'_, Inserted> {
        self.store.insert(record, max_children, stamp)
    }

    fn find(&self, id: &KeyId) -> Write<'_, Option<Arc<KeyRecord>>> {
        self.store.find(id)
    }

    fn list(&self, filter: &KeyFilter) -> Write<'_, Vec<Arc<KeyRecord>>> {
        self.store.list(filter)
    }

    fn rotate(
        &self,
        old: &KeyId,
        new: KeyRecord,
        old_expires_at: UnixMillis,
        stamp: &Stamp,
    ) -> Write<'_, Rotated> {
        self.store.rotate(old, new, old_expires_at, stamp)
    }

    fn revoke(&self, what: &Revocation, stamp: &Stamp) -> Write<'_, u64> {
        self.store.revoke(what, stamp)
    }

    fn remove(&self, id: &KeyId, stamp: &Stamp) -> Write<'_, bool> {
        self.store.remove(id, stamp)
    }

    fn set_plan(&self, id: &KeyId, plan: Plan, stamp: &Stamp) -> Write<'_, bool> {
        self.store.set_plan(id, plan, stamp)
    }

    fn audit(&self, filter: &AuditFilter) -> Write<'_, Vec<AuditEntry>> {
        self.store.audit(filter)
    }
}
