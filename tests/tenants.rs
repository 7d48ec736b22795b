//! T9: tenants that manage their own keys, and guess at those of others. `TENANT_STEPS` says how
//! many steps are taken in memory, `SQLITE_TENANT_STEPS` how many in a file.

#[path = "model/dice.rs"]
mod dice;
mod support;

use std::{collections::BTreeMap, env, fmt::Debug, sync::Arc, time::Duration};

use dice::Dice;
use support::{Inner, plain_with};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};
use tower_realtime_auth::{
    ApiKey, AuditEntry, AuditFilter, CredentialSource, Issued, KeyAdmin, KeyFilter, KeyId, Keys,
    KeysOfAccount, ManualClock, MemoryStore, NewKey, NewToken, Plan, Principal, RealtimeAuthLayer,
    SqliteStore, UnixMillis,
};

const TENANTS: usize = 10;
/// As many keys as there are at most, so that a step takes the same time from first to last.
const MAX_KEYS: usize = 120;

/// What is expected of a key.
#[derive(Debug, Clone)]
struct Expected {
    text: ApiKey,
    tenant: usize,
    parent: Option<KeyId>,
    line: KeyId,
    created_at: UnixMillis,
    expires_at: Option<UnixMillis>,
    is_revoked: bool,
    is_replaced: bool,
    plan: Plan,
}

fn account(world: u64, tenant: usize) -> String {
    format!("tenant {tenant} of world {world}")
}

/// Ten tenants, who may share a store with those of other worlds.
struct World<S> {
    number: u64,
    keys: Keys<Arc<S>>,
    clock: ManualClock,
    tenants: Vec<KeysOfAccount<Arc<S>>>,
    model: BTreeMap<KeyId, Expected>,
    dice: Dice,
    /// Answers about keys of others that were compared to those about no key.
    foreign: usize,
    /// The number of the last entry of its trail when that was last asked for.
    changes: u64,
}

impl<S: KeyAdmin> World<S> {
    fn new(store: Arc<S>, number: u64) -> Self {
        let clock = ManualClock::new(UnixMillis::new(1_700_000_000_000));
        let keys = Keys::new(store).with_clock(clock.clone());
        let tenants = (0..TENANTS).map(|tenant| keys.of_account(account(number, tenant))).collect();
        let (model, dice) = (BTreeMap::new(), Dice::new(number));
        Self { number, keys, clock, tenants, model, dice, foreign: 0, changes: 0 }
    }

    fn account(&self, tenant: usize) -> String {
        account(self.number, tenant)
    }

    /// One thing that one tenant does, and all that it changes.
    async fn step(&mut self) {
        self.clock.advance(Duration::from_millis(self.dice.below(3) as u64));
        let mut tenant = self.dice.below(TENANTS);
        let known: Vec<KeyId> = self.model.keys().cloned().collect();
        if known.is_empty() || self.dice.one_in(6) && known.len() < MAX_KEYS {
            return self.issue(tenant).await;
        }
        let id = self.dice.pick(&known);
        if self.dice.one_in(2) {
            tenant = self.model[&id].tenant;
        }
        if self.model[&id].tenant != tenant {
            return self.guess(tenant, &id).await;
        }
        if self.dice.one_in(12) {
            return self.replan(tenant, &id).await;
        }
        match self.dice.below(if known.len() < MAX_KEYS { 12 } else { 4 }) {
            0 | 1 => self.remove(tenant, &id).await,
            2 => self.revoke_many(tenant).await,
            3 => self.revoke(tenant, &id).await,
            4..7 => self.rotate(tenant, &id).await,
            7..9 => self.mint(tenant, &id).await,
            9 => self.read(tenant).await,
            _ => self.connect(&id).await,
        }
    }

    /// The whole line has it then, and nobody else.
    async fn replan(&mut self, tenant: usize, id: &KeyId) {
        let plan = Plan::default().with_max_sessions(self.dice.below(9) as u32);
        assert!(self.tenants[tenant].set_plan(id, plan).await.unwrap());
        let line = self.model[id].line.clone();
        for (other, expected) in &mut self.model {
            if expected.line == line {
                expected.plan = plan;
            }
            let found = self.keys.find(other).await.unwrap().expect("a record");
            assert_eq!(*found.grants().plan(), expected.plan);
        }
    }

    /// A key of another is as no key at all, and nothing comes of asking for it.
    async fn guess(&mut self, tenant: usize, id: &KeyId) {
        let nobody = KeyId::new(format!("key_{}", "0".repeat(20)));
        let trail = self.changes().await;
        let acme = &self.tenants[tenant];
        let before = format!("{:?}", self.keys.find(id).await.unwrap());
        fn same<T: Debug>(foreign: T, missing: T) {
            assert_eq!(format!("{foreign:?}"), format!("{missing:?}"));
        }
        let (overlap, plan) = (Duration::from_millis(9), Plan::default().with_max_sessions(0));
        match self.dice.below(6) {
            0 => same(acme.find(id).await, acme.find(&nobody).await),
            1 => same(acme.rotate(id, overlap).await, acme.rotate(&nobody, overlap).await),
            2 => same(acme.revoke(id).await, acme.revoke(&nobody).await),
            3 => same(acme.remove(id).await, acme.remove(&nobody).await),
            4 => same(acme.set_plan(id, plan).await, acme.set_plan(&nobody, plan).await),
            _ => {
                let of = |id: &KeyId| AuditFilter::key(id.clone());
                same(acme.audit(&of(id)).await, acme.audit(&of(&nobody)).await);
            }
        }
        self.foreign += 1;
        assert_eq!(format!("{:?}", self.keys.find(id).await.unwrap()), before);
        assert_eq!(self.changes().await, trail);
    }

    /// How much has been changed so far: the number of the trail's last entry.
    async fn changes(&mut self) -> u64 {
        let behind = AuditFilter::default().with_page(Some(self.changes), usize::MAX);
        let entries = self.keys.audit(&behind).await.unwrap();
        let of_world = format!(" of world {}", self.number);
        let is_ours = |entry: &&AuditEntry| {
            // Of a key that there is not, no account is known: it may have been us.
            entry.account().is_none_or(|account| account.ends_with(&of_world))
        };
        self.changes = entries.iter().rfind(is_ours).map_or(self.changes, AuditEntry::number);
        self.changes
    }

    async fn issue(&mut self, tenant: usize) {
        // Whatever account it names.
        let mut new = NewKey::secret(account(self.number, self.dice.below(TENANTS)));
        if self.dice.one_in(3) {
            new = new.with_lifetime(Duration::from_millis(1 + self.dice.below(300) as u64));
        }
        let issued = self.tenants[tenant].issue(new).await.unwrap();
        self.note(tenant, &issued, None);
    }

    fn note(&mut self, tenant: usize, issued: &Issued, parent: Option<KeyId>) {
        let record = issued.record();
        assert_eq!(**record.account(), self.account(tenant));
        let expected = Expected {
            text: issued.key().clone(),
            tenant,
            parent,
            line: record.line().clone(),
            created_at: record.created_at(),
            expires_at: record.expires_at(),
            is_revoked: false,
            is_replaced: false,
            plan: *record.grants().plan(),
        };
        assert!(self.model.insert(record.id().clone(), expected).is_none());
    }

    fn is_gone(&self, id: &KeyId) -> bool {
        let key = &self.model[id];
        key.is_revoked || key.expires_at.is_some_and(|at| at <= self.keys.now())
    }

    async fn rotate(&mut self, tenant: usize, id: &KeyId) {
        let overlap = Duration::from_millis(self.dice.below(50) as u64);
        let rotated = self.tenants[tenant].rotate(id, overlap).await;
        let old = self.model[id].clone();
        if old.parent.is_some() || old.is_replaced || self.is_gone(id) {
            rotated.unwrap_err();
            return;
        }
        let end = self.keys.now().saturating_add(overlap);
        let old_end = old.expires_at.map_or(end, |own| own.min(end));
        let replaced = Expected { expires_at: Some(old_end), is_replaced: true, ..old.clone() };
        self.model.insert(id.clone(), replaced);
        let issued = rotated.unwrap();
        assert_eq!(*issued.record().line(), old.line);
        assert_eq!(*issued.record().grants().plan(), old.plan);
        self.note(tenant, &issued, None);
    }

    async fn mint(&mut self, tenant: usize, id: &KeyId) {
        let Some(principal) = self.principal(id).await else { return };
        let token = NewToken::lasting(Duration::from_secs(1));
        match self.keys.mint(&principal, token).await {
            Ok(issued) => self.note(tenant, &issued, Some(id.clone())),
            // A parent with less left than the shortest token, or a token.
            Err(error) => {
                let key = &self.model[id];
                assert!(key.parent.is_some() || key.expires_at.is_some(), "{error}");
            }
        }
    }

    /// Revokes what fits, with its children; answers how many records that are.
    fn revoked(&mut self, fits: impl Fn(&KeyId, &Expected) -> bool) -> u64 {
        let named: Vec<KeyId> =
            self.model.iter().filter(|(id, key)| fits(id, key)).map(|(id, _)| id.clone()).collect();
        let mut count = 0;
        for (id, key) in &mut self.model {
            if named.contains(id) || key.parent.as_ref().is_some_and(|id| named.contains(id)) {
                key.is_revoked = true;
                count += 1;
            }
        }
        count
    }

    async fn revoke(&mut self, tenant: usize, id: &KeyId) {
        let count = self.tenants[tenant].revoke(id).await.unwrap();
        let line = self.model[id].line.clone();
        assert_eq!(count, self.revoked(|_, key| key.line == line));
    }

    async fn revoke_many(&mut self, tenant: usize) {
        if self.dice.one_in(4) {
            let count = self.tenants[tenant].revoke_all().await.unwrap();
            assert_eq!(count, self.revoked(|_, key| key.tenant == tenant));
        } else {
            let back = self.dice.below(300) as u64;
            let at = UnixMillis::new(self.keys.now().get() - back);
            let count = self.tenants[tenant].revoke_issued_before(at).await.unwrap();
            let is_old = |_: &KeyId, key: &Expected| key.tenant == tenant && key.created_at < at;
            assert_eq!(count, self.revoked(is_old));
        }
    }

    async fn remove(&mut self, tenant: usize, id: &KeyId) {
        assert!(self.tenants[tenant].remove(id).await.unwrap());
        self.model.retain(|other, key| other != id && key.parent.as_ref() != Some(id));
    }

    /// Lists and trails hold what is the tenant's, all of it and nothing else.
    async fn read(&mut self, tenant: usize) {
        let own = self.model.iter().filter(|(_, key)| key.tenant == tenant);
        let mut own: Vec<_> = own.map(|(id, key)| (key.created_at, id.clone())).collect();
        own.sort();
        // Whatever account the filter names.
        let filter = KeyFilter::account(account(self.number, self.dice.below(TENANTS)));
        let listed = self.tenants[tenant].list(&filter).await.unwrap();
        let listed: Vec<_> =
            listed.iter().map(|record| (record.created_at(), record.id().clone())).collect();
        assert_eq!(listed, own);
        let filter = AuditFilter::account(account(self.number, self.dice.below(TENANTS)));
        let trail = self.tenants[tenant].audit(&filter).await.unwrap();
        let account = self.account(tenant);
        assert!(trail.iter().all(|entry| entry.account().is_some_and(|of| **of == *account)));
    }

    async fn principal(&self, id: &KeyId) -> Option<Principal> {
        let service = RealtimeAuthLayer::new(self.keys.clone()).layer(Inner::default());
        let text = self.model[id].text.expose();
        let request = plain_with(CredentialSource::Header, text);
        let response = service.oneshot(request).await.unwrap();
        response.extensions().get::<Principal>().cloned()
    }

    /// A key opens what is its tenant's, as long as it lives.
    async fn connect(&mut self, id: &KeyId) {
        let principal = self.principal(id).await;
        assert_eq!(principal.is_none(), self.is_gone(id), "{:?}", self.model[id]);
        if let Some(principal) = principal {
            assert_eq!(principal.account(), self.account(self.model[id].tenant));
            assert_eq!(principal.key_id(), id);
        }
    }
}

/// Takes so many steps, and looks at everything in the end.
async fn live<S: KeyAdmin>(mut world: World<S>, steps: usize) {
    for _ in 0..steps {
        world.step().await;
    }
    println!("{} of {steps} steps were about keys of others", world.foreign);
    assert!(world.foreign > steps / 4, "{} of {steps}", world.foreign);
    let known: Vec<KeyId> = world.model.keys().cloned().collect();
    for id in known {
        world.connect(&id).await;
    }
    for tenant in 0..TENANTS {
        world.read(tenant).await;
    }
}

fn steps(variable: &str, default: usize) -> usize {
    env::var(variable).map_or(default, |steps| steps.parse().expect("a number of steps"))
}

#[tokio::test]
async fn a_tenant_never_sees_what_is_anothers() {
    let world = World::new(Arc::new(MemoryStore::new()), 9);
    live(world, steps("TENANT_STEPS", 5_000)).await;
}

/// Four worlds at once, over two stores that have one file open.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_in_a_file_that_many_write_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let mut stores = Vec::new();
    for _ in 0..2 {
        stores.push(Arc::new(SqliteStore::open(&path).await.unwrap()));
    }
    let steps = steps("SQLITE_TENANT_STEPS", 2_000) / 4;
    let mut worlds = JoinSet::new();
    for number in 0..4 {
        let store = Arc::clone(&stores[number as usize % 2]);
        worlds.spawn(live(World::new(store, number), steps));
    }
    worlds.join_all().await;
}
