//! What is kept, and that it is the same as in memory.

use std::{fs, sync::Arc, time::Duration};

use proptest::{collection::vec, option, prelude::*};
use rusqlite::Connection;
use tower_realtime_auth::{
    AuditAction, AuditEntry, AuditFilter, DigestAlgorithm, Environment, Grants, Inserted, KeyAdmin,
    KeyDigest, KeyFilter, KeyHint, KeyId, KeyKind, KeyRecord, KeyStore, Keys, Lock, ManualClock,
    MemoryStore, NewKey, NewToken, Parent, Plan, Revocation, Settings, SqliteStore, Stamp,
    UnixMillis, http::StatusCode,
};

use crate::{MINUTE, NOW, beside, connect, issue, open, place, status};

#[tokio::test]
async fn a_record_is_read_as_it_was_written() {
    let (_folder, path) = place();
    let grants = Grants::default()
        .with_models(["a", "b"])
        .with_origins(Vec::<&str>::new())
        .with_uses(3)
        .with_max_session(Duration::from_micros(1_500))
        .with_metadata([("user", "u1")])
        .with_plan(Plan::default().with_requests_per_minute(60))
        .with_session(Settings::parse(r#"{"voice": "marin", "speed": 1.1}"#).unwrap())
        .with_lock(Lock::all().and(["tools"]).unwrap());
    let digest = |byte| KeyDigest::from_bytes([byte; 32]);
    let plain = KeyRecord::new(KeyId::new("a"), digest(1), "acme", KeyKind::Secret, NOW);
    let full = KeyRecord::new(KeyId::new("b'\"; --"), digest(2), "ä\0é", KeyKind::Ephemeral, NOW)
        .with_algorithm(DigestAlgorithm::HmacSha256 { pepper: u32::MAX })
        .with_environment(Environment::Test)
        .with_parent(Some(Parent::new(KeyId::new("p")).with_revoked_at(Some(NOW))))
        .with_line(KeyId::new("line"))
        .with_hint(Some(KeyHint::new("", "last")))
        .with_expires_at(Some(UnixMillis::new(u64::MAX)))
        .with_revoked_at(Some(UnixMillis::new(0)))
        .with_last_used_at(Some(NOW))
        .with_grants(grants);
    {
        let store = SqliteStore::open(&path).await.unwrap();
        for record in [&plain, &full] {
            let inserted = store.insert(record.clone(), None, &Stamp::new(NOW)).await.unwrap();
            assert_eq!(inserted, Inserted::Yes);
        }
    }
    let store = SqliteStore::open(&path).await.unwrap();
    for record in [&plain, &full] {
        let shown = format!("{record:?}");
        let found = store.find(record.id()).await.unwrap().unwrap();
        assert_eq!(format!("{found:?}"), shown);
        assert_eq!(found.grants().session(), record.grants().session());
        let found = store.lookup(record.digest()).await.unwrap().unwrap();
        assert_eq!(format!("{found:?}"), shown);
        for (current, previous) in [(record.digest(), &digest(9)), (&digest(9), record.digest())] {
            let found = store.lookup_either(current, previous).await.unwrap().unwrap();
            assert_eq!(format!("{found:?}"), shown);
        }
    }
    // Of both, the current one.
    let found = store.lookup_either(full.digest(), plain.digest()).await.unwrap().unwrap();
    assert_eq!(found.id(), full.id());
    assert!(store.lookup(&digest(9)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let (_folder, path) = place();
    let keys = open(&path).await;
    let (kept, revoked) = (issue(&keys, "acme").await, issue(&keys, "acme").await);
    let parent = connect(&keys, kept.key()).await.unwrap();
    let token = keys.mint(&parent, NewToken::lasting(MINUTE)).await.unwrap();
    let rotated = keys.rotate(kept.record().id(), MINUTE).await.unwrap();
    assert_eq!(keys.revoke(revoked.record().id()).await.unwrap(), 1);
    let audit = keys.audit(&AuditFilter::default()).await.unwrap();
    drop(keys);

    let keys = open(&path).await;
    assert_eq!(status(&keys, kept.key()).await, StatusCode::OK);
    assert_eq!(status(&keys, rotated.key()).await, StatusCode::OK);
    assert_eq!(status(&keys, token.key()).await, StatusCode::OK);
    assert_eq!(status(&keys, revoked.key()).await, StatusCode::UNAUTHORIZED);
    assert_eq!(keys.audit(&AuditFilter::default()).await.unwrap(), audit);
    // Of the line, both; and the token.
    assert_eq!(keys.revoke(rotated.record().id()).await.unwrap(), 3);
    for key in [&kept, &rotated, &token] {
        assert_eq!(status(&keys, key.key()).await, StatusCode::UNAUTHORIZED);
    }
}

/// Whoever finds the file, or what is beside it, finds no key in it.
#[tokio::test]
async fn no_byte_of_a_key_is_in_the_file() {
    let (folder, path) = place();
    let keys = open(&path).await;
    let mut texts = Vec::new();
    for _ in 0..50 {
        let issued = issue(&keys, "the_account_is").await;
        let parent = connect(&keys, issued.key()).await.unwrap();
        let token = keys.mint(&parent, NewToken::lasting(MINUTE)).await.unwrap();
        texts.extend([issued, token].map(|made| made.key().expose().to_owned()));
    }
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(files.len(), 3, "the file, its log, and what its readers share");
    let bytes: Vec<u8> = files.iter().flat_map(|file| fs::read(file.path()).unwrap()).collect();
    let bytes = String::from_utf8_lossy(&bytes);
    let contains = |text: &str| bytes.contains(text);
    assert!(contains("the_account_is"), "what is there is found");
    for text in &texts {
        // Prefix and last four are the hint.
        let (_, secret) = text.rsplit_once('_').unwrap();
        assert!(!contains(&secret[..8]) && !contains(&secret[secret.len() - 12..]));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_is_its_owners() {
    use std::os::unix::fs::PermissionsExt as _;

    let (_folder, path) = place();
    let keys = open(&path).await;
    issue(&keys, "acme").await;
    for suffix in ["", "-wal", "-shm"] {
        let mode = fs::metadata(beside(&path, suffix)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{suffix}");
    }
}

#[tokio::test]
async fn uses_are_counted_exactly_and_given_back() {
    let (_folder, path) = place();
    let keys = open(&path).await;
    let new = || NewKey::secret("acme").with_grants(Grants::default().with_uses(10));
    let record = Arc::clone(keys.issue(new()).await.unwrap().record());
    let other = Arc::clone(keys.issue(new()).await.unwrap().record());
    // From two stores at once, as from two processes.
    let second = open(&path).await;
    let asks = (0..30).map(|ask| {
        let keys = if ask % 2 == 0 { &keys } else { &second };
        keys.store().redeem(&record)
    });
    let answers: Vec<_> = asks.collect();
    let mut taken = Vec::new();
    for answer in answers {
        taken.extend(answer.await.unwrap());
    }
    assert_eq!(taken.len(), 10);
    taken.pop().unwrap().commit();
    drop(taken);
    // An answer that nobody takes goes back too.
    drop(keys.store().redeem(&other));

    drop(keys.store().redeem(&other).await.unwrap());
    drop(second.store().redeem(&other).await.unwrap());
    // The writes of a store are made in order: behind the second of two more, all is given back.
    for store in [keys.store(), second.store(), keys.store(), second.store()] {
        assert!(!store.remove(&id(9), &Stamp::new(NOW)).await.unwrap());
    }
    for (record, left) in [(&record, 9), (&other, 10)] {
        let mut taken = 0;
        while let Some(one) = keys.store().redeem(record).await.unwrap() {
            one.commit();
            taken += 1;
        }
        assert_eq!(taken, left);
    }

    // Also after a restart, and of a key that is gone.
    drop((keys, second));
    let keys = open(&path).await;
    assert!(keys.store().redeem(&record).await.unwrap().is_none());
    keys.remove(record.id()).await.unwrap();
    assert!(keys.store().redeem(&record).await.unwrap().is_none());
}

#[tokio::test]
async fn a_use_is_shown_at_once_and_written_by_the_end() {
    let (_folder, path) = place();
    let keys = open(&path).await;
    let issued = issue(&keys, "acme").await;
    let used = keys.now();
    connect(&keys, issued.key()).await.unwrap();
    let find = async |keys: &Keys<SqliteStore>| {
        keys.find(issued.record().id()).await.unwrap().unwrap().last_used_at()
    };
    assert!(find(&keys).await >= Some(used));
    let listed = keys.list(&KeyFilter::default()).await.unwrap();
    assert_eq!(listed[0].last_used_at(), find(&keys).await);

    let last = find(&keys).await;
    let other = open(&path).await;
    assert_eq!(find(&other).await, None, "not written yet");
    drop(keys);
    // Its thread writes it on its own.
    while find(&other).await.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(find(&other).await, last);
}

#[tokio::test]
async fn an_expired_token_is_forgotten_a_minute_later() {
    let (_folder, path) = place();
    let clock = ManualClock::new(NOW);
    let keys = open(&path).await.with_clock(clock.clone());
    let issued = issue(&keys, "acme").await;
    let parent = connect(&keys, issued.key()).await.unwrap();
    let token = keys.mint(&parent, NewToken::lasting(MINUTE)).await.unwrap();
    for (passed, is_there) in [(119_999, true), (1, false)] {
        clock.advance(Duration::from_millis(passed));
        issue(&keys, "acme").await;
        assert_eq!(keys.find(token.record().id()).await.unwrap().is_some(), is_there);
    }
    assert!(keys.find(issued.record().id()).await.unwrap().is_some());
}

#[tokio::test]
async fn the_trail_is_read_in_pages() {
    let (_folder, path) = place();
    let keys = open(&path).await;
    for account in ["a", "b", "a", "b", "a"] {
        issue(&keys, account).await;
    }
    let all = keys.audit(&AuditFilter::default()).await.unwrap();
    let of_a: Vec<_> = all.iter().step_by(2).cloned().collect();
    for (filter, expected) in [(AuditFilter::default(), &all), (AuditFilter::account("a"), &of_a)] {
        let (mut read, mut after) = (Vec::new(), None);
        loop {
            let page = keys.audit(&filter.clone().with_page(after, 2)).await.unwrap();
            assert!(page.len() <= 2);
            let Some(last) = page.last() else { break };
            after = Some(last.number());
            read.extend(page);
        }
        assert_eq!(&read, expected);
    }
}

// ---- As in memory ----

/// One that could not tell of plans yet.
#[tokio::test]
async fn a_file_of_the_version_before_is_taken_over() {
    let (_folder, path) = place();
    let keys = open(&path).await;
    let issued = issue(&keys, "acme").await;
    let audit = keys.audit(&AuditFilter::default()).await.unwrap();
    drop(keys);
    let before = "ALTER TABLE audit DROP COLUMN plan_from; ALTER TABLE audit DROP COLUMN plan_to; \
                  PRAGMA user_version = 1;";
    Connection::open(&path).unwrap().execute_batch(before).unwrap();

    let keys = open(&path).await;
    assert_eq!(status(&keys, issued.key()).await, StatusCode::OK);
    assert_eq!(keys.audit(&AuditFilter::default()).await.unwrap(), audit);
    let (id, to) = (issued.record().id(), Plan::default().with_max_sessions(u32::MAX));
    assert!(keys.set_plan(id, to).await.unwrap());
    let entries = keys.audit(&AuditFilter::key(id.clone())).await.unwrap();
    let actions: Vec<_> = entries.iter().map(AuditEntry::action).collect();
    let replanned = AuditAction::Replanned { from: Plan::default(), to };
    assert_eq!(actions, [&AuditAction::Created, &replanned]);
}

/// What can be done to a store. Keys are named by numbers. Tokens are not rotated.
#[derive(Debug, Clone)]
enum Step {
    Insert { key: u8, token_of: Option<u8>, account: bool, lives: Option<u16>, max: Option<u32> },
    Rotate { old: u8, new: u8, overlap: u16 },
    Revoke(u8),
    RevokeAlone(u8),
    Plan(u8, Option<u32>),
    RevokeAccount(bool),
    RevokeBefore(bool, u16),
    Remove(u8),
    Redeem { key: u8, keep: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..12_u8;
    prop_oneof![
        6 => (key(), option::of(0..6_u8), any::<bool>(), option::of(any::<u16>()), option::of(0..3_u32))
            .prop_map(|(key, token_of, account, lives, max)| {
                Step::Insert { key, token_of, account, lives, max }
            }),
        2 => (0..6_u8, key(), any::<u16>())
            .prop_map(|(old, new, overlap)| Step::Rotate { old, new, overlap }),
        2 => key().prop_map(Step::Revoke),
        1 => key().prop_map(Step::RevokeAlone),
        1 => any::<bool>().prop_map(Step::RevokeAccount),
        1 => (any::<bool>(), any::<u16>()).prop_map(|(account, at)| Step::RevokeBefore(account, at)),
        2 => (key(), option::of(0..3_u32)).prop_map(|(key, requests)| Step::Plan(key, requests)),
        1 => key().prop_map(Step::Remove),
        2 => (key(), any::<bool>()).prop_map(|(key, keep)| Step::Redeem { key, keep }),
    ]
}

fn id(key: u8) -> KeyId {
    KeyId::new(format!("key_{key}"))
}

fn account(first: bool) -> Arc<str> {
    if first { "acme" } else { "other" }.into()
}

/// Keys 0 to 5 are secret, the others are tokens if they have a parent.
async fn take(store: &impl KeyAdmin, step: &Step, now: UnixMillis) -> String {
    let stamp = Stamp::new(now).with_by(Some("me".into()));
    let later = |millis: u16| now.saturating_add(Duration::from_millis(millis.into()));
    let record = |key: u8, kind, owner| {
        let digest = KeyDigest::from_bytes([key; 32]);
        KeyRecord::new(id(key), digest, account(owner), kind, now)
            .with_grants(Grants::default().with_uses(2))
            .with_hint(Some(KeyHint::new("sk_", if owner { "aaaa" } else { "bbbb" })))
    };
    match step {
        Step::Insert { key, token_of, account, lives, max } => {
            let token_of = token_of.filter(|_| *key > 5).map(id);
            let kind = if token_of.is_some() { KeyKind::Ephemeral } else { KeyKind::Secret };
            // Keys::mint asks for the parent again; a store in memory does not by itself.
            let parent = match &token_of {
                Some(parent) => store.find(parent).await.unwrap(),
                None => None,
            };
            if parent.is_some_and(|parent| parent.is_revoked()) {
                return String::new();
            }
            let record = record(*key, kind, *account)
                .with_parent(token_of.map(Parent::new))
                .with_expires_at(lives.map(later));
            format!("{:?}", store.insert(record, *max, &stamp).await)
        }
        Step::Rotate { old, new, overlap } => {
            let new = record(*new, KeyKind::Secret, true);
            format!("{:?}", store.rotate(&id(*old), new, later(*overlap), &stamp).await)
        }
        Step::Revoke(key) => {
            format!("{:?}", store.revoke(&Revocation::Key(id(*key)), &stamp).await)
        }
        Step::RevokeAlone(key) => {
            format!("{:?}", store.revoke(&Revocation::Alone(id(*key)), &stamp).await)
        }
        Step::RevokeAccount(first) => {
            format!("{:?}", store.revoke(&Revocation::Account(account(*first)), &stamp).await)
        }
        Step::RevokeBefore(first, ago) => {
            let at = UnixMillis::new(now.get() - u64::from(*ago) * 4);
            let what = Revocation::IssuedBefore { account: account(*first), at };
            format!("{:?}", store.revoke(&what, &stamp).await)
        }
        Step::Plan(key, requests) => {
            let plan = requests.map(|requests| Plan::default().with_requests_per_minute(requests));
            let plan = plan.unwrap_or_default();
            format!("{:?}", store.set_plan(&id(*key), plan, &stamp).await)
        }
        Step::Remove(key) => format!("{:?}", store.remove(&id(*key), &stamp).await),
        Step::Redeem { key, keep } => {
            let record = Arc::new(record(*key, KeyKind::Secret, true));
            let taken = store.redeem(&record).await.unwrap();
            let shown = format!("{taken:?}");
            if let Some(taken) = taken.filter(|_| *keep) {
                taken.commit();
            }
            shown
        }
    }
}

/// All that can be read of a store.
async fn all(store: &impl KeyAdmin) -> Vec<String> {
    let (mut shown, mut filters) = (Vec::new(), vec![KeyFilter::default()]);
    filters.push(KeyFilter::account("acme").with_hint("sk_", "aaaa"));
    filters.push(KeyFilter::account("other").with_kind(KeyKind::Ephemeral));
    filters.push(KeyFilter::made_by(DigestAlgorithm::HmacSha256 { pepper: 1 }));
    filters.push(KeyFilter::default().with_hint("sk_", "bbbb").with_kind(KeyKind::Secret));
    let listed = store.list(&KeyFilter::default()).await.unwrap();
    filters.push(KeyFilter::default().with_page(listed.first().map(|record| &**record), 2));
    filters.push(KeyFilter::account("acme").with_page(listed.get(1).map(|record| &**record), 3));
    for filter in &filters {
        shown.push(format!("{:?}", store.list(filter).await.unwrap()));
    }
    for record in &listed {
        shown.push(format!("{:?}", store.lookup(record.digest()).await.unwrap()));
    }
    let mut filters = vec![AuditFilter::default(), AuditFilter::account("acme")];
    filters.extend((0..12).map(|key| AuditFilter::key(id(key))));
    let mut both = AuditFilter::key(id(3));
    both.account = Some("other".into());
    filters.push(both);
    for filter in &filters {
        let entries = store.audit(filter).await.unwrap();
        assert!(entries.is_sorted_by_key(AuditEntry::number));
        // In which order the keys of an account are revoked is not said.
        let mut entries: Vec<_> = entries
            .iter()
            .map(|entry| format!("{:?}", (entry.stamp(), entry.action(), entry.key_id())))
            .collect();
        entries.sort();
        shown.extend(entries);
    }
    shown
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn whatever_is_done_it_answers_as_a_store_in_memory(
        steps in vec((step(), 0..40_000_u64), 1..50),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_folder, path) = place();
            let (file, memory) = (SqliteStore::open(&path).await.unwrap(), MemoryStore::new());
            let mut now = NOW;
            for (step, passed) in &steps {
                now = now.saturating_add(Duration::from_millis(*passed));
                prop_assert_eq!(take(&file, step, now).await, take(&memory, step, now).await);
            }
            let (stored, expected) = (all(&file).await, all(&memory).await);
            prop_assert_eq!(stored.len(), expected.len());
            for (stored, expected) in stored.into_iter().zip(expected) {
                prop_assert_eq!(stored, expected);
            }
            Ok(())
        })?;
    }
}
