//! The rules of a store hold for the store in memory, and each of them can be broken.

#[path = "conformance/wrong.rs"]
mod wrong;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tower_realtime_auth::{
    Answer, AuditEntry, AuditFilter, Inserted, KeyAdmin, KeyDigest, KeyFilter, KeyId, KeyRecord,
    KeyStore, Lookup, MemoryStore, Plan, Redeemed, Revocation, Rotated, Stamp, StoreError,
    TokioRuntime, UnixMillis, Write,
    conformance::{self, Broken, Fragile},
};
use wrong::{ALL, Bug, Wrong};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_breaks_no_rule() -> Result<(), Broken> {
    conformance::check(|| async { MemoryStore::new() }).await
}

#[tokio::test]
async fn nor_does_it_behind_pointers_or_on_one_thread() -> Result<(), Broken> {
    let boxed = || async { Box::new(MemoryStore::new()) as Box<dyn KeyAdmin> };
    let make = || async { Arc::new(boxed().await) as Arc<dyn KeyAdmin> };
    conformance::check_with_runtime(Arc::new(TokioRuntime), make).await
}

/// Every way to be wrong is found by the rule that is meant for it.
///
/// On paused time, so that what never comes is not waited for.
#[tokio::test(start_paused = true)]
async fn each_rule_can_be_broken() {
    for (bug, rule) in ALL {
        let checked = conformance::check(|| async { Wrong::new(*bug) }).await;
        let Err(broken) = checked else { panic!("{bug:?} breaks no rule") };
        let rules: Vec<_> = broken.findings().iter().map(conformance::Finding::rule).collect();
        assert!(rules.contains(rule), "{bug:?} breaks {broken} and not {rule}");
    }
}

/// No rule stands there that is not documented, or that no store here breaks.
#[tokio::test(start_paused = true)]
async fn every_rule_is_documented_and_broken() {
    let documented = include_str!("../src/conformance/mod.rs");
    // Nothing can be inserted: no rule gets far.
    let broken = conformance::check(|| async { Wrong::new(Bug::TakesNothing) }).await.unwrap_err();
    let rules: BTreeSet<_> = broken.findings().iter().map(conformance::Finding::rule).collect();
    let meant: BTreeSet<_> = ALL.iter().map(|(_, rule)| *rule).collect();
    assert_eq!(rules, meant);
    for rule in &rules {
        assert!(documented.contains(&format!("`{rule}`")), "{rule}");
    }
    let told = broken.to_string();
    assert!(
        told.starts_with(&format!("the store breaks {} of the rules\n", rules.len())),
        "{told}"
    );
    assert!(
        told.contains("insert_overwrites_nothing: an error: the key store could not answer: no")
    );
    assert_eq!(format!("{broken:?}"), told);
}

// ---- Stores that only find ----

struct Fixed(HashMap<KeyDigest, Arc<KeyRecord>>);

impl KeyStore for Fixed {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        Answer::ready(Ok(self.0.get(digest).cloned()))
    }
}

fn fixed(records: Vec<KeyRecord>) -> Fixed {
    Fixed(records.into_iter().map(|record| (*record.digest(), Arc::new(record))).collect())
}

#[tokio::test]
async fn a_store_that_only_finds_is_checked() {
    let runtime = Arc::new(TokioRuntime);
    let make = |records| async { fixed(records) };
    conformance::check_lookups(runtime.clone(), make).await.unwrap();
    let make = |mut records: Vec<KeyRecord>| async {
        records.pop();
        fixed(records)
    };
    let broken = conformance::check_lookups(runtime, make).await.unwrap_err();
    assert_eq!(broken.findings().len(), 2, "{broken}");
}

// ---- Stores that break ----

/// A store that can be broken, in a way that is right or wrong.
struct Breakable {
    memory: MemoryStore,
    is_broken: AtomicBool,
    says_nothing: bool,
    forgets: bool,
}

macro_rules! unless_broken {
    ($self:ident, $answer:expr) => {
        if $self.is_broken.load(Ordering::SeqCst) {
            return Answer::ready(Err(StoreError::new("broken")));
        } else {
            $answer
        }
    };
}

impl KeyStore for Breakable {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        if self.says_nothing && self.is_broken.load(Ordering::SeqCst) {
            return Answer::ready(Ok(None));
        }
        unless_broken!(self, self.memory.lookup(digest))
    }

    fn redeem(&self, record: &Arc<KeyRecord>) -> Redeemed {
        unless_broken!(self, self.memory.redeem(record))
    }
}

impl KeyAdmin for Breakable {
    fn insert(
        &self,
        record: KeyRecord,
        max_children: Option<u32>,
        stamp: &Stamp,
    ) -> Write<'_, Inserted> {
        unless_broken!(self, self.memory.insert(record, max_children, stamp))
    }

    fn find(&self, id: &KeyId) -> Write<'_, Option<Arc<KeyRecord>>> {
        unless_broken!(self, self.memory.find(id))
    }

    fn list(&self, filter: &KeyFilter) -> Write<'_, Vec<Arc<KeyRecord>>> {
        unless_broken!(self, self.memory.list(filter))
    }

    fn rotate(
        &self,
        old: &KeyId,
        new: KeyRecord,
        old_expires_at: UnixMillis,
        stamp: &Stamp,
    ) -> Write<'_, Rotated> {
        unless_broken!(self, self.memory.rotate(old, new, old_expires_at, stamp))
    }

    fn revoke(&self, what: &Revocation, stamp: &Stamp) -> Write<'_, u64> {
        unless_broken!(self, self.memory.revoke(what, stamp))
    }

    fn remove(&self, id: &KeyId, stamp: &Stamp) -> Write<'_, bool> {
        unless_broken!(self, self.memory.remove(id, stamp))
    }

    fn set_plan(&self, id: &KeyId, plan: Plan, stamp: &Stamp) -> Write<'_, bool> {
        unless_broken!(self, self.memory.set_plan(id, plan, stamp))
    }

    fn audit(&self, filter: &AuditFilter) -> Write<'_, Vec<AuditEntry>> {
        unless_broken!(self, self.memory.audit(filter))
    }
}

impl Fragile for Breakable {
    fn break_store(&self) -> Answer<'_, ()> {
        self.is_broken.store(true, Ordering::SeqCst);
        Answer::ready(())
    }

    fn mend(&self) -> Answer<'_, ()> {
        self.is_broken.store(false, Ordering::SeqCst);
        if self.forgets {
            let forgotten = self.memory.remove(&KeyId::new("t"), &Stamp::new(UnixMillis::new(0)));
            assert!(matches!(forgotten.try_now(), Ok(Ok(_))));
        }
        Answer::ready(())
    }
}

#[tokio::test]
async fn a_store_that_fails_is_checked() {
    for (says_nothing, forgets, expected) in [
        (false, false, &[][..]),
        (true, false, &["a_broken_store_knows_nothing"]),
        (false, true, &["a_mended_store_is_the_old_one"]),
    ] {
        let make = || async {
            let (memory, is_broken) = (MemoryStore::new(), AtomicBool::new(false));
            Breakable { memory, is_broken, says_nothing, forgets }
        };
        let checked = conformance::check_faults(Arc::new(TokioRuntime), make).await;
        let rules: Vec<_> = match &checked {
            Ok(()) => Vec::new(),
            Err(broken) => broken.findings().iter().map(conformance::Finding::rule).collect(),
        };
        assert_eq!(rules, expected, "{checked:?}");
    }
}
