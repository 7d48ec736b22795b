//! Keys and where they are kept: made, taken in, found, counted, taken back, forgotten.

mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::FutureExt;
use support::{Inner, PLACES, plain_with, upgrade_with};
use tower::{Layer, ServiceExt};
use tower_realtime_auth::{
    ApiKey, CredentialSource, Environment, Grants, Inserted, InvalidKey, KeyAdmin, KeyDigest,
    KeyError, KeyFilter, KeyFormat, KeyId, KeyKind, KeyRecord, KeyStore, Keys, MAX_CREDENTIAL_LEN,
    ManualClock, MemoryStore, NewKey, NewToken, Parent, Principal, RealtimeAuthLayer, Revocation,
    Stamp, UnixMillis, http::StatusCode,
};

const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);

fn keys_at(clock: &ManualClock) -> Keys<MemoryStore> {
    Keys::new(MemoryStore::new()).with_clock(clock.clone())
}

/// The status with which a request that carries `key` in its header is answered.
async fn status(keys: &Keys<MemoryStore>, key: &str) -> StatusCode {
    let service = RealtimeAuthLayer::new(keys.clone()).layer(Inner::default());
    let request = plain_with(CredentialSource::Header, key);
    service.oneshot(request).await.expect("a response").status()
}

// ---- Made here ----

#[tokio::test]
async fn an_issued_key_is_what_was_asked_for() {
    let keys = keys_at(&ManualClock::new(NOW));
    let plain = keys.issue(NewKey::secret("acme")).await.unwrap();
    assert!(plain.key().expose().starts_with("sk_live_"));
    let record = plain.record();
    assert!(record.id().as_str().starts_with("key_"));
    assert_eq!(&**record.account(), "acme");
    assert_eq!((record.kind(), record.environment()), (KeyKind::Secret, Environment::Live));
    assert_eq!((record.created_at(), record.expires_at(), record.revoked_at()), (NOW, None, None));
    assert!(record.parent().is_none() && record.grants().models().is_none());

    let new = NewKey::secret("acme")
        .with_environment(Environment::Test)
        .with_lifetime(Duration::from_secs(5))
        .with_grants(Grants::default().with_models(["a"]));
    let special = keys.issue(new).await.unwrap();
    assert!(special.key().expose().starts_with("sk_test_"));
    let record = special.record();
    assert_eq!(record.environment(), Environment::Test);
    assert_eq!(record.expires_at(), Some(NOW.saturating_add(Duration::from_secs(5))));
    assert_eq!(record.grants().models().unwrap(), ["a".into()]);

    // What is answered is what is stored.
    let stored = keys.store().find(record.id()).await.unwrap().unwrap();
    assert_eq!(format!("{stored:?}"), format!("{record:?}"));
    assert_eq!(status(&keys, special.key().expose()).await, StatusCode::OK);
}

/// All of one form: no two alike, legal in every place, and within one block of SHA-256.
#[tokio::test]
async fn a_thousand_keys_differ_and_fit_every_place() {
    let longest = "a_prefix_of13";
    let format = KeyFormat::default().with_live_prefix(longest).unwrap();
    for (format, prefix) in [(KeyFormat::default(), "sk_live_"), (format, longest)] {
        let keys = Keys::new(MemoryStore::new()).with_format(format);
        let (mut texts, mut ids) = (HashSet::new(), HashSet::new());
        for _ in 0..1_000 {
            let issued = keys.issue(NewKey::secret("acme")).await.unwrap();
            let text = issued.key().expose().to_owned();
            assert!(text.starts_with(prefix));
            assert!(text.len() <= 55, "{} bytes", text.len());
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
            ids.insert(issued.record().id().clone());
            texts.insert(text);
        }
        assert_eq!((texts.len(), ids.len()), (1_000, 1_000));

        // As it is, without escapes, in a header, a query and a subprotocol.
        let key = texts.iter().next().expect("a key");
        let layer = RealtimeAuthLayer::new(keys);
        for place in PLACES {
            let service = layer.layer(Inner::default());
            let response = service.oneshot(upgrade_with(place, key)).await.unwrap();
            let principal = response.extensions().get::<Principal>().expect("let through");
            assert_eq!(principal.source(), place);
        }
    }
}

// ---- Made elsewhere ----

#[tokio::test]
async fn any_visible_text_can_be_a_key() {
    let visible: String = ('!'..='~').filter(|letter| *letter != ',').collect();
    let keys = Keys::new(MemoryStore::new());
    for text in [
        "x".to_owned(),
        "sk-proj-abc_DEF-123".to_owned(),
        "xai-0123456789".to_owned(),
        "dGVzdA==".to_owned(),
        "sk_live_too_short".to_owned(),
        "a".repeat(MAX_CREDENTIAL_LEN),
        visible,
    ] {
        let key = ApiKey::new(text.as_str()).expect("a key");
        let record = keys.import(&key, NewKey::secret("acme")).await.expect("taken in");
        assert_eq!(record.kind(), KeyKind::Secret);
        assert_eq!(status(&keys, &text).await, StatusCode::OK, "{text}");
        keys.revoke(record.id()).await.unwrap();
        assert_eq!(status(&keys, &text).await, StatusCode::UNAUTHORIZED, "{text}");
    }
}

#[test]
fn other_texts_cannot() {
    for (text, reason) in [
        (String::new(), InvalidKey::Empty),
        ("a".repeat(MAX_CREDENTIAL_LEN + 1), InvalidKey::TooLong),
        ("two words".to_owned(), InvalidKey::IllegalCharacter),
        (" key".to_owned(), InvalidKey::IllegalCharacter),
        ("key\n".to_owned(), InvalidKey::IllegalCharacter),
        ("key\0".to_owned(), InvalidKey::IllegalCharacter),
        ("key\x7f".to_owned(), InvalidKey::IllegalCharacter),
        ("a,b".to_owned(), InvalidKey::IllegalCharacter),
        ("kéy".to_owned(), InvalidKey::IllegalCharacter),
    ] {
        assert_eq!(ApiKey::new(text.as_str()).map(|_| ()), Err(reason), "{text:?}");
    }
}

#[tokio::test]
async fn a_key_of_our_form_is_taken_in_if_its_checksum_is_right() {
    let elsewhere = Keys::new(MemoryStore::new());
    let issued = elsewhere.issue(NewKey::secret("acme")).await.unwrap();
    let keys = Keys::new(MemoryStore::new());

    let mut mistyped = issued.key().expose().to_owned();
    let last = if mistyped.pop() == Some('0') { '1' } else { '0' };
    mistyped.push(last);
    let mistyped = ApiKey::new(mistyped).unwrap();
    let refused = keys.import(&mistyped, NewKey::secret("acme")).await.unwrap_err();
    assert!(matches!(refused, KeyError::Invalid(InvalidKey::Checksum)), "{refused:?}");
    assert!(keys.store().list(&KeyFilter::default()).await.unwrap().is_empty());

    keys.import(issued.key(), NewKey::secret("acme")).await.expect("taken in");
    assert_eq!(status(&keys, issued.key().expose()).await, StatusCode::OK);
}

#[tokio::test]
async fn a_key_is_taken_in_once() {
    let keys = Keys::new(MemoryStore::new());
    let key = ApiKey::new("of-another-make").unwrap();
    let first = keys.import(&key, NewKey::secret("acme")).await.unwrap();
    let refused = keys.import(&key, NewKey::secret("mallory")).await.unwrap_err();
    assert!(matches!(refused, KeyError::Taken), "{refused:?}");

    let stored = keys.store().list(&KeyFilter::default()).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].id(), &**stored[0].account()), (first.id(), "acme"));
}

// ---- Taken back ----

#[tokio::test]
async fn a_revoked_key_takes_its_children_along() {
    let clock = ManualClock::new(NOW);
    let keys = keys_at(&clock);
    let issued = keys.issue(NewKey::secret("acme")).await.unwrap();
    let bystander = keys.issue(NewKey::secret("acme")).await.unwrap();
    let parent = Principal::new(Arc::clone(issued.record()), CredentialSource::Header, keys.now());
    let mut children = Vec::new();
    for _ in 0..3 {
        let token = NewToken::lasting(Duration::from_secs(60));
        children.push(keys.mint(&parent, token).await.unwrap());
    }
    for key in children.iter().chain([&issued, &bystander]) {
        assert_eq!(status(&keys, key.key().expose()).await, StatusCode::OK);
    }

    // A child alone ...
    assert_eq!(keys.revoke(children[0].record().id()).await.unwrap(), 1);
    assert_eq!(status(&keys, children[0].key().expose()).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&keys, children[1].key().expose()).await, StatusCode::OK);

    // ... or all of them with their parent, and nobody else.
    assert_eq!(keys.revoke(issued.record().id()).await.unwrap(), 4);
    for key in children.iter().chain([&issued]) {
        assert_eq!(status(&keys, key.key().expose()).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(status(&keys, bystander.key().expose()).await, StatusCode::OK);

    // Again changes nothing: the first time of revocation stands, own and parent's.
    clock.advance(Duration::from_secs(1));
    keys.revoke(issued.record().id()).await.unwrap();
    let parent = keys.store().find(issued.record().id()).await.unwrap().unwrap();
    assert_eq!(parent.revoked_at(), Some(NOW));
    let child = keys.store().find(children[1].record().id()).await.unwrap().unwrap();
    assert_eq!(child.revoked_at(), None);
    assert_eq!(child.parent().unwrap().revoked_at(), Some(NOW));

    assert_eq!(keys.revoke(&KeyId::new("key_nobody")).await.unwrap(), 0);
}

// ---- The store in memory ----

/// A record whose id and digest are made from `number`.
fn record(number: u8, account: &str, kind: KeyKind, created_at: u64) -> KeyRecord {
    let id = KeyId::new(format!("key_{number:03}"));
    let digest = KeyDigest::from_bytes([number; 32]);
    KeyRecord::new(id, digest, account, kind, UnixMillis::new(created_at))
}

/// A token of `parent` that expires then.
fn token(number: u8, parent: &KeyRecord, created_at: u64, expires_at: u64) -> KeyRecord {
    record(number, parent.account(), KeyKind::Ephemeral, created_at)
        .with_parent(Some(Parent::new(parent.id().clone())))
        .with_expires_at(Some(UnixMillis::new(expires_at)))
}

/// A store that holds `records`.
fn store_of(records: impl IntoIterator<Item = KeyRecord>) -> MemoryStore {
    let store = MemoryStore::new();
    for record in records {
        assert_eq!(insert(&store, record, None), Inserted::Yes);
    }
    store
}

fn insert(store: &dyn KeyAdmin, record: KeyRecord, max_children: Option<u32>) -> Inserted {
    let answer = store.insert(record, max_children, &Stamp::new(NOW)).now_or_never();
    answer.expect("an answer at once").expect("no error")
}

fn ids(store: &dyn KeyAdmin, filter: &KeyFilter) -> Vec<String> {
    let records = store.list(filter).now_or_never().expect("an answer at once");
    let records = records.expect("no error");
    records.iter().map(|record| record.id().to_string()).collect()
}

fn all(store: &dyn KeyAdmin) -> Vec<String> {
    ids(store, &KeyFilter::default())
}

#[tokio::test]
async fn insert_never_overwrites() {
    let original = record(1, "acme", KeyKind::Secret, 0);
    let store = store_of([original.clone()]);
    let with_digest_of = |number: u8, digest: u8| {
        KeyRecord::new(
            KeyId::new(format!("key_{number:03}")),
            KeyDigest::from_bytes([digest; 32]),
            "mallory",
            KeyKind::Secret,
            UnixMillis::new(0),
        )
    };
    for (what, other) in [
        ("both", with_digest_of(1, 1)),
        ("the id", with_digest_of(1, 2)),
        ("the digest", with_digest_of(2, 1)),
    ] {
        assert_eq!(insert(&store, other, None), Inserted::Taken, "{what}");
        assert_eq!(all(&store), ["key_001"], "{what}");
        for found in [
            store.find(original.id()).await.unwrap(),
            store.lookup(original.digest()).await.unwrap(),
        ] {
            assert_eq!(&**found.expect("the first").account(), "acme", "{what}");
        }
        // Nothing of the refused record is left, by which it could be found.
        assert!(store.find(&KeyId::new("key_002")).await.unwrap().is_none(), "{what}");
        let digest = KeyDigest::from_bytes([2; 32]);
        assert!(store.lookup(&digest).await.unwrap().is_none(), "{what}");
    }
}

#[test]
fn lists_are_by_account_and_oldest_first() {
    let store = store_of([
        record(3, "acme", KeyKind::Secret, 20),
        record(4, "globex", KeyKind::Secret, 15),
        record(2, "acme", KeyKind::Secret, 10),
        record(1, "acme", KeyKind::Secret, 20),
    ]);
    assert_eq!(ids(&store, &KeyFilter::account("acme")), ["key_002", "key_001", "key_003"]);
    assert_eq!(ids(&store, &KeyFilter::account("globex")), ["key_004"]);
    assert!(ids(&store, &KeyFilter::account("nobody")).is_empty());
    assert_eq!(all(&store), ["key_002", "key_004", "key_001", "key_003"]);
}

/// A minute long an expired token can still be told from an unknown one; then its row goes.
#[test]
fn expired_tokens_are_forgotten_after_a_minute() {
    let secret = record(1, "acme", KeyKind::Secret, 0);
    let mortal = record(2, "acme", KeyKind::Secret, 0).with_expires_at(Some(UnixMillis::new(1)));
    let store = store_of([secret.clone(), mortal, token(3, &secret, 0, 1_000)]);

    // In the order of their creation. Secret keys stay, also those that expired.
    assert_eq!(insert(&store, token(4, &secret, 60_999, 200_000), None), Inserted::Yes);
    assert_eq!(all(&store), ["key_001", "key_002", "key_003", "key_004"]);
    assert_eq!(insert(&store, token(5, &secret, 61_000, 200_000), None), Inserted::Yes);
    assert_eq!(all(&store), ["key_001", "key_002", "key_004", "key_005"]);

    // What is forgotten can be made again, and counts once.
    assert_eq!(insert(&store, token(3, &secret, 61_001, 70_000), None), Inserted::Yes);
    assert_eq!(all(&store), ["key_001", "key_002", "key_004", "key_005", "key_003"]);
    let revoked =
        store.revoke(&Revocation::Key(secret.id().clone()), &Stamp::new(NOW)).now_or_never();
    assert_eq!(revoked.unwrap().unwrap(), 4, "the key and its three tokens");
}

#[tokio::test]
async fn an_account_is_revoked_as_a_whole() {
    let (first, second) =
        (record(1, "acme", KeyKind::Secret, 0), record(2, "acme", KeyKind::Secret, 0));
    let other = record(3, "globex", KeyKind::Secret, 0);
    let store = store_of([
        first.clone(),
        second,
        other.clone(),
        token(4, &first, 0, u64::MAX),
        token(5, &first, 0, u64::MAX),
        token(6, &other, 0, u64::MAX),
    ]);
    let touched =
        store.revoke(&Revocation::Account("acme".into()), &Stamp::new(NOW)).await.unwrap();
    assert_eq!(touched, 4, "each record counts once");
    for record in store.list(&KeyFilter::default()).await.unwrap() {
        let expected = &**record.account() == "acme";
        assert_eq!(record.is_revoked(), expected, "{}", record.id());
    }
    let nobody =
        store.revoke(&Revocation::Account("nobody".into()), &Stamp::new(NOW)).await.unwrap();
    assert_eq!(nobody, 0);
}

/// Only children that live count, and only where a cap is asked for.
#[test]
fn children_are_capped() {
    let (parent, other) =
        (record(1, "acme", KeyKind::Secret, 0), record(2, "acme", KeyKind::Secret, 0));
    let store = store_of([parent.clone(), other.clone()]);
    let max = Some(2);
    for (token, expected) in [
        (token(10, &parent, 0, 100), Inserted::Yes),
        (token(11, &parent, 0, 200), Inserted::Yes),
        (token(12, &parent, 0, 300), Inserted::TooManyChildren),
        (token(20, &other, 0, 100), Inserted::Yes),
        (token(13, &parent, 99, 300), Inserted::TooManyChildren),
        (token(14, &parent, 100, 300), Inserted::Yes),
        (token(15, &parent, 100, 300), Inserted::TooManyChildren),
    ] {
        let id = token.id().clone();
        assert_eq!(insert(&store, token, max), expected, "{id}");
    }
    assert_eq!(insert(&store, token(16, &parent, 100, 300), None), Inserted::Yes);
    assert_eq!(insert(&store, token(17, &parent, 100, 300), Some(0)), Inserted::TooManyChildren);

    for revoked in [11, 14] {
        let key = Revocation::Key(KeyId::new(format!("key_{revoked:03}")));
        store.revoke(&key, &Stamp::new(UnixMillis::new(100))).now_or_never().unwrap().unwrap();
    }
    assert_eq!(insert(&store, token(18, &parent, 100, 300), max), Inserted::Yes);
    assert_eq!(insert(&store, token(19, &parent, 100, 300), max), Inserted::TooManyChildren);
}

#[test]
fn the_cap_holds_between_threads() {
    const MAX: u32 = 100;
    let parent = record(255, "acme", KeyKind::Secret, 0);
    let store = store_of([parent.clone()]);
    let (stored, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..8 {
            let (store, parent, stored, refused) = (&store, &parent, &stored, &refused);
            scope.spawn(move || {
                for number in 0..30 {
                    let token = token(thread * 30 + number, parent, 0, 1_000);
                    match insert(store, token, Some(MAX)) {
                        Inserted::Yes => stored.fetch_add(1, Ordering::SeqCst),
                        Inserted::TooManyChildren => refused.fetch_add(1, Ordering::SeqCst),
                        other => panic!("{other:?}"),
                    };
                }
            });
        }
    });
    assert_eq!(stored.load(Ordering::SeqCst), 100);
    assert_eq!(refused.load(Ordering::SeqCst), 140);
    assert_eq!(all(&store).len(), 101);
}
