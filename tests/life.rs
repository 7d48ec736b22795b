//! The life of a key as its owner sees it: made, used, rotated, taken back, removed, and never seen
//! by anyone else.

mod support;

use std::{sync::Arc, time::Duration};

use support::{Inner, SOON, plain_with};
use tokio::time::timeout;
use tower::{Layer, ServiceExt};
use tower_realtime_auth::{
    ApiKey, AuditAction, AuditFilter, CredentialSource, DigestAlgorithm, Grants, Issued, KeyDigest,
    KeyError, KeyFilter, KeyHasher, KeyId, KeyStore, Keys, ManualClock, MemoryStore, NewKey,
    NewToken, Pepper, Plan, Principal, RealtimeAuthLayer, Rejection, RejectionKind, UnixMillis,
    http::StatusCode,
};

const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);
const MILLI: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fn keys() -> (Keys<MemoryStore>, ManualClock) {
    let clock = ManualClock::new(NOW);
    (Keys::new(MemoryStore::new()).with_clock(clock.clone()), clock)
}

/// Who is calling with this key; why nobody.
async fn connect<S: KeyStore>(keys: &Keys<S>, key: &str) -> Result<Principal, Rejection> {
    let service = RealtimeAuthLayer::new(keys.clone()).layer(Inner::default());
    let response = service.oneshot(plain_with(CredentialSource::Header, key)).await.unwrap();
    match response.extensions().get::<Principal>() {
        Some(principal) => Ok(principal.clone()),
        None => {
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            Err(*response.extensions().get::<Rejection>().expect("a reason"))
        }
    }
}

/// Why a key is refused; `None` if it is not.
async fn refused<S: KeyStore>(keys: &Keys<S>, issued: &Issued) -> Option<RejectionKind> {
    connect(keys, issued.key().expose()).await.err().map(|rejection| rejection.kind())
}

async fn issue(keys: &Keys<MemoryStore>, account: &str) -> Issued {
    keys.issue(NewKey::secret(account)).await.unwrap()
}

async fn mint(keys: &Keys<MemoryStore>, parent: &Issued, lifetime: Duration) -> Issued {
    let parent = connect(keys, parent.key().expose()).await.expect("a parent");
    keys.mint(&parent, NewToken::lasting(lifetime)).await.unwrap()
}

// ---- Rotation ----

/// T24: around the end of the overlap, and around the key's own expiry if that is earlier.
#[tokio::test]
async fn the_old_key_ends_with_the_overlap_to_the_millisecond() {
    for (lifetime, overlap, end) in [
        (None, MILLI, MILLI),
        (None, MINUTE, MINUTE),
        (Some(DAY), MINUTE, MINUTE),
        (Some(MINUTE), DAY, MINUTE),
        (Some(MINUTE), Duration::MAX, MINUTE),
    ] {
        let (keys, clock) = keys();
        let new = NewKey::secret("acme");
        let new = lifetime.map_or(new.clone(), |lifetime| new.with_lifetime(lifetime));
        let old = keys.issue(new).await.unwrap();
        let issued = keys.rotate(old.record().id(), overlap).await.unwrap();
        let end = NOW.saturating_add(end);
        for (now, expected) in [
            (end.get() - 1, None),
            (end.get(), Some(RejectionKind::Expired)),
            (end.get() + 1, Some(RejectionKind::Expired)),
        ] {
            clock.set(UnixMillis::new(now));
            let what = format!("lifetime {lifetime:?}, overlap {overlap:?}, at {now}");
            assert_eq!(refused(&keys, &old).await, expected, "{what}");
            let is_alive = lifetime.is_none_or(|lifetime| NOW.saturating_add(lifetime).get() > now);
            assert_eq!(refused(&keys, &issued).await.is_none(), is_alive, "{what}: the new one");
        }
    }
}

/// Without an overlap the old key ends where the new one begins.
#[tokio::test]
async fn a_key_can_be_replaced_at_once() {
    let (keys, _) = keys();
    let old = issue(&keys, "acme").await;
    let new = keys.rotate(old.record().id(), Duration::ZERO).await.unwrap();
    assert_eq!(refused(&keys, &old).await, Some(RejectionKind::Expired));
    assert_eq!(refused(&keys, &new).await, None);
}

/// T24: once a key was seen to have expired, no clock that goes back lets it in again.
#[tokio::test]
async fn what_has_expired_stays_expired() {
    let (keys, clock) = keys();
    let issued = keys.issue(NewKey::secret("acme").with_lifetime(MINUTE)).await.unwrap();
    clock.advance(MINUTE);
    assert_eq!(refused(&keys, &issued).await, Some(RejectionKind::Expired));
    for back in [MILLI, MINUTE, DAY] {
        clock.set(UnixMillis::new(NOW.get() - back.as_millis() as u64));
        assert_eq!(refused(&keys, &issued).await, Some(RejectionKind::Expired), "{back:?}");
        assert_eq!(keys.now(), NOW.saturating_add(MINUTE));
    }
    // All that are made of the same keys tell the same time, and a key that is made lives on.
    let new = keys.clone().issue(NewKey::secret("acme").with_lifetime(MILLI)).await.unwrap();
    assert_eq!(refused(&keys, &new).await, None);
    clock.set(NOW.saturating_add(MINUTE + MILLI));
    assert_eq!(refused(&keys, &new).await, Some(RejectionKind::Expired));
}

/// An expiring key begins its lifetime anew; all else is as it was.
#[tokio::test]
async fn a_rotated_key_is_what_the_old_one_was() {
    let (keys, clock) = keys();
    let plan = Plan::default().with_max_sessions(3);
    let grants = Grants::default().with_models(["a"]).with_plan(plan);
    let new = NewKey::secret("acme").with_lifetime(DAY).with_grants(grants);
    let first = keys.issue(new).await.unwrap();
    clock.advance(DAY - MINUTE);
    let second = keys.rotate(first.record().id(), 2 * MINUTE).await.unwrap();
    let (old, new) = (first.record(), second.record());
    assert_eq!(new.created_at(), keys.now());
    assert_eq!(new.expires_at(), Some(keys.now().saturating_add(DAY)));
    assert_eq!(new.grants().models(), old.grants().models());
    assert_eq!(new.grants().plan(), &plan);
    assert_eq!((new.account(), new.environment()), (old.account(), old.environment()));
    assert_eq!(new.line(), old.id());
    assert_ne!((new.id(), new.digest()), (old.id(), old.digest()));
    assert_eq!(new.last_used_at(), None);

    // It is the new one's turn then.
    let again = keys.rotate(old.id(), MINUTE).await.unwrap_err();
    assert!(matches!(again, KeyError::Replaced), "{again}");
    let replaced = keys.find(old.id()).await.unwrap().unwrap();
    assert_eq!(replaced.successor(), Some(new.id()));

    // In the last millisecond; then it is too late.
    clock.set(new.expires_at().unwrap());
    let late = keys.rotate(new.id(), MINUTE).await.unwrap_err();
    assert!(matches!(late, KeyError::Gone), "{late}");
    let third = keys.issue(NewKey::secret("acme").with_lifetime(2 * MILLI)).await.unwrap();
    clock.advance(MILLI);
    let fourth = keys.rotate(third.record().id(), DAY).await.unwrap();
    assert_eq!(fourth.record().line(), third.record().id());
}

#[tokio::test]
async fn not_every_key_can_be_rotated() {
    let (keys, _) = keys();
    let issued = issue(&keys, "acme").await;
    let token = mint(&keys, &issued, MINUTE).await;
    let error = keys.rotate(&KeyId::new("key_nobody"), MINUTE).await.unwrap_err();
    assert!(matches!(error, KeyError::Unknown), "{error}");
    let error = keys.rotate(token.record().id(), MINUTE).await.unwrap_err();
    assert!(matches!(error, KeyError::NotASecretKey), "{error}");
    keys.revoke(issued.record().id()).await.unwrap();
    let error = keys.rotate(issued.record().id(), MINUTE).await.unwrap_err();
    assert!(matches!(error, KeyError::Gone), "{error}");
    assert_eq!(keys.list(&KeyFilter::default()).await.unwrap().len(), 2);
}

/// A token lives as long as it was promised, whatever becomes of the text that minted it.
#[tokio::test]
async fn tokens_outlive_the_overlap() {
    let (keys, clock) = keys();
    let old = issue(&keys, "acme").await;
    let token = mint(&keys, &old, MINUTE).await;
    keys.rotate(old.record().id(), Duration::ZERO).await.unwrap();
    assert_eq!(refused(&keys, &old).await, Some(RejectionKind::Expired));
    clock.advance(MINUTE - MILLI);
    assert_eq!(refused(&keys, &token).await, None);
    clock.advance(MILLI);
    assert_eq!(refused(&keys, &token).await, Some(RejectionKind::Expired));
}

/// Of a line of three with a token each, and a key of another line: who is left.
#[tokio::test]
async fn a_line_is_revoked_as_one_or_one_alone() {
    for (by, alone, count) in
        [(0, false, 6), (1, false, 6), (2, false, 6), (0, true, 2), (1, true, 2), (2, true, 2)]
    {
        let (keys, _) = keys();
        let mut line = vec![issue(&keys, "acme").await];
        let other = issue(&keys, "acme").await;
        for _ in 0..2 {
            let last = line.last().expect("a key").record().id().clone();
            line.push(keys.rotate(&last, DAY).await.unwrap());
        }
        let mut tokens = Vec::new();
        for key in &line {
            tokens.push(mint(&keys, key, MINUTE).await);
        }
        let id = line[by].record().id();
        let revoked = if alone { keys.revoke_alone(id).await } else { keys.revoke(id).await };
        assert_eq!(revoked.unwrap(), count);
        for (number, (key, token)) in line.iter().zip(&tokens).enumerate() {
            let expected = (!alone || number == by).then_some(RejectionKind::Revoked);
            assert_eq!(refused(&keys, key).await, expected, "key {number} by {by}, {alone}");
            assert_eq!(refused(&keys, token).await, expected, "token {number} by {by}, {alone}");
        }
        assert_eq!(refused(&keys, &other).await, None);
    }
}

// ---- Taken back and removed ----

#[tokio::test]
async fn an_account_is_cleared_of_what_is_old() {
    let (keys, clock) = keys();
    let old = issue(&keys, "acme").await;
    let others = issue(&keys, "other").await;
    clock.advance(MINUTE);
    let token = mint(&keys, &old, MINUTE).await;
    let new = issue(&keys, "acme").await;
    assert_eq!(keys.revoke_issued_before("acme", NOW).await.unwrap(), 0);
    assert_eq!(keys.revoke_issued_before("acme", keys.now()).await.unwrap(), 2);
    for (key, expected) in [(&old, true), (&token, true), (&new, false), (&others, false)] {
        assert_eq!(refused(&keys, key).await.is_some(), expected);
    }
    assert_eq!(keys.revoke_account("acme").await.unwrap(), 3);
    assert_eq!(refused(&keys, &new).await, Some(RejectionKind::Revoked));
    assert_eq!(refused(&keys, &others).await, None);
}

/// The clock of another process may be behind, which makes a token older than its parent.
#[tokio::test]
async fn a_token_older_than_its_parent_is_old_too() {
    let store = Arc::new(MemoryStore::new());
    let keys = Keys::new(Arc::clone(&store)).with_clock(ManualClock::new(NOW));
    let parent = keys.issue(NewKey::secret("acme")).await.unwrap();
    let behind = ManualClock::new(UnixMillis::new(NOW.get() - 2));
    let behind = Keys::new(store).with_clock(behind);
    let principal = connect(&behind, parent.key().expose()).await.expect("a parent");
    let token = behind.mint(&principal, NewToken::lasting(MINUTE)).await.unwrap();
    let before = UnixMillis::new(NOW.get() - 1);
    assert_eq!(keys.revoke_issued_before("acme", before).await.unwrap(), 1);
    assert_eq!(refused(&keys, &token).await, Some(RejectionKind::Revoked));
    assert_eq!(refused(&keys, &parent).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_is_unknown_and_its_sessions_end() {
    let (keys, _) = keys();
    let first = issue(&keys, "acme").await;
    let second = keys.rotate(first.record().id(), DAY).await.unwrap();
    let token = mint(&keys, &first, MINUTE).await;
    let session = connect(&keys, token.key().expose()).await.unwrap().revoked();
    assert!(keys.remove(first.record().id()).await.unwrap());
    assert!(!keys.remove(first.record().id()).await.unwrap());
    timeout(SOON, session).await.expect("told");
    for gone in [&first, &token] {
        assert_eq!(refused(&keys, gone).await, Some(RejectionKind::Unknown));
        assert!(keys.find(gone.record().id()).await.unwrap().is_none());
    }
    assert_eq!(refused(&keys, &second).await, None);

    // Whoever revokes it all the same ends its line, and what sessions there may be of it.
    let hub = keys.store().revocations().expect("a hub");
    let session = hub.watch(Arc::clone(first.record()), hub.epoch());
    assert_eq!(keys.revoke(first.record().id()).await.unwrap(), 1);
    timeout(SOON, session).await.expect("told");
    assert_eq!(refused(&keys, &second).await, Some(RejectionKind::Revoked));
}

// ---- What is known of a key ----

#[tokio::test]
async fn the_last_use_is_that_of_a_request_let_through() {
    let (keys, clock) = keys();
    let issued = issue(&keys, "acme").await;
    let used = async || keys.find(issued.record().id()).await.unwrap().unwrap().last_used_at();
    assert_eq!(used().await, None);
    clock.advance(MINUTE);
    assert_eq!(refused(&keys, &issued).await, None);
    let at = keys.now();
    assert_eq!(used().await, Some(at));
    clock.set(NOW);
    assert_eq!(refused(&keys, &issued).await, None);
    assert_eq!(used().await, Some(at), "an earlier use is no later one");
    clock.set(at.saturating_add(MINUTE));
    keys.revoke(issued.record().id()).await.unwrap();
    assert_eq!(refused(&keys, &issued).await, Some(RejectionKind::Revoked));
    assert_eq!(used().await, Some(at), "a refused request is no use");
}

#[tokio::test]
async fn a_key_is_found_by_its_hint() {
    let (keys, _) = keys();
    let issued = issue(&keys, "acme").await;
    let text = issued.key().expose();
    let hint = issued.record().hint().expect("a hint");
    let last = &text[text.len() - 4..];
    assert_eq!(hint.to_string(), format!("sk_live_…{last}"));
    let listed = keys.list(&KeyFilter::account("acme").with_hint("sk_live_", last)).await.unwrap();
    assert_eq!(listed.len(), 1);
    let rotated = keys.rotate(issued.record().id(), MINUTE).await.unwrap();
    let (text, hint) = (rotated.key().expose(), rotated.record().hint().expect("a hint"));
    assert!(text.ends_with(hint.last_four()));

    let short = ApiKey::new("sk_live_abcdefghijklmno").unwrap();
    let record = keys.import(&short, NewKey::secret("acme")).await.unwrap();
    assert!(record.hint().is_none(), "23 characters");
}

#[tokio::test]
async fn the_trail_names_who_did_it() {
    let (keys, clock) = keys();
    let ann = keys.clone().with_actor("ann");
    let issued = ann.issue(NewKey::secret("acme")).await.unwrap();
    clock.advance(MINUTE);
    let bob = keys.clone().with_actor("bob");
    let id = issued.record().id();
    let next = bob.rotate(id, MINUTE).await.unwrap();
    let (from, to) = (Plan::unbounded(), Plan::unbounded().with_max_sessions(1));
    assert!(ann.set_plan(next.record().id(), to).await.unwrap());
    keys.remove(id).await.unwrap();
    let trail = keys.audit(&AuditFilter::key(id.clone())).await.unwrap();
    let told: Vec<_> = trail
        .iter()
        .map(|entry| (entry.action().clone(), entry.stamp().by(), entry.stamp().at()))
        .collect();
    let rotated = AuditAction::Rotated { successor: next.record().id().clone() };
    assert_eq!(
        told,
        [
            (AuditAction::Created, Some("ann"), NOW),
            (rotated, Some("bob"), keys.now()),
            (AuditAction::Replanned { from, to }, Some("ann"), keys.now()),
            (AuditAction::Removed, None, keys.now()),
        ]
    );
}

// ---- Taken in ----

fn pepper(version: u32) -> KeyHasher {
    KeyHasher::peppered(Pepper::new(version, &[version as u8; 32]).unwrap())
}

/// A digest that was made elsewhere works if keys are digested so here, or were so before.
#[tokio::test]
async fn a_digest_is_taken_in_if_it_can_be_found() {
    let elsewhere = |hasher| Keys::new(MemoryStore::new()).with_hasher(hasher);
    for (made_by, here, is_found) in [
        (KeyHasher::plain(), KeyHasher::plain(), true),
        (pepper(1), pepper(1), true),
        (pepper(1), pepper(2).with_previous(pepper(1)), true),
        (KeyHasher::plain(), pepper(1).with_previous(KeyHasher::plain()), true),
        (pepper(1), KeyHasher::plain(), false),
        (KeyHasher::plain(), pepper(1), false),
        (pepper(1), pepper(3).with_previous(pepper(2)), false),
        (pepper(3), pepper(2).with_previous(pepper(1)), false),
    ] {
        let issued = elsewhere(made_by.clone()).issue(NewKey::secret("acme")).await.unwrap();
        let (digest, algorithm) = (*issued.record().digest(), issued.record().algorithm());
        let keys = elsewhere(here.clone());
        let taken = keys.import_digest(digest, algorithm, NewKey::secret("new")).await;
        let what = format!("{made_by:?} in {here:?}");
        if is_found {
            let record = taken.unwrap();
            assert_eq!((record.digest(), record.algorithm()), (&digest, algorithm), "{what}");
            assert!(record.hint().is_none(), "{what}");
            let principal = connect(&keys, issued.key().expose()).await.expect(&what);
            assert_eq!((principal.account(), principal.key_id()), ("new", record.id()));
            let again = keys.import_digest(digest, algorithm, NewKey::secret("acme")).await;
            assert!(matches!(again, Err(KeyError::Taken)), "{what}");
            keys.revoke(record.id()).await.unwrap();
            assert_eq!(refused(&keys, &issued).await, Some(RejectionKind::Revoked), "{what}");
        } else {
            let error = taken.unwrap_err();
            assert!(matches!(error, KeyError::Algorithm(named) if named == algorithm), "{what}");
            assert!(error.to_string().contains(&algorithm.to_string()), "{error}");
            assert!(keys.list(&KeyFilter::default()).await.unwrap().is_empty(), "{what}");
        }
    }
    let unknown = DigestAlgorithm::HmacSha256 { pepper: 9 };
    let digest = KeyDigest::from_bytes([9; 32]);
    let keys = elsewhere(KeyHasher::plain());
    assert!(keys.import_digest(digest, unknown, NewKey::secret("acme")).await.is_err());
}

/// Two records of one key would be two lives: of either revocation, one would be left.
#[tokio::test]
async fn a_key_of_the_pepper_before_is_not_taken_in_again() {
    let store = Arc::new(MemoryStore::new());
    let before = Keys::new(Arc::clone(&store)).with_hasher(pepper(1));
    let issued = before.issue(NewKey::secret("acme")).await.unwrap();
    let keys = Keys::new(Arc::clone(&store)).with_hasher(pepper(2).with_previous(pepper(1)));
    let again = keys.import(issued.key(), NewKey::secret("acme")).await;
    assert!(matches!(again, Err(KeyError::Taken)), "{again:?}");
    keys.revoke(issued.record().id()).await.unwrap();
    assert_eq!(refused(&keys, &issued).await, Some(RejectionKind::Revoked));
}

// ---- Time ----

/// T24: a key is refused from its very millisecond on, from 1970 to the last time there is.
#[tokio::test]
async fn expiry_is_exclusive_at_any_time() {
    let last_of_9999 = 253_402_300_799_999;
    for end in [1, 1_000, NOW.get(), i64::MAX as u64, last_of_9999, u64::MAX - 1, u64::MAX] {
        let clock = ManualClock::new(UnixMillis::new(0));
        let keys = Keys::new(MemoryStore::new()).with_clock(clock.clone());
        let lifetime = Duration::from_millis(end);
        let issued = keys.issue(NewKey::secret("acme").with_lifetime(lifetime)).await.unwrap();
        assert_eq!(issued.record().expires_at(), Some(UnixMillis::new(end)));
        for (now, expected) in [
            (0, None),
            (end - 1, None),
            (end, Some(RejectionKind::Expired)),
            (end.saturating_add(1), Some(RejectionKind::Expired)),
            (u64::MAX, Some(RejectionKind::Expired)),
        ] {
            clock.set(UnixMillis::new(now));
            assert_eq!(refused(&keys, &issued).await, expected, "{end} at {now}");
        }
    }
    // What would be later than that is that.
    let (keys, clock) = keys();
    let issued = keys.issue(NewKey::secret("acme").with_lifetime(Duration::MAX)).await.unwrap();
    assert_eq!(issued.record().expires_at(), Some(UnixMillis::new(u64::MAX)));
    clock.set(UnixMillis::new(u64::MAX - 1));
    assert_eq!(refused(&keys, &issued).await, None);
}
