//! T24: what a file does to times, and clocks that go back or disagree.

use std::{sync::Arc, time::Duration};

use tower_realtime_auth::{
    Issued, KeyAdmin as _, KeyId, KeyKind, KeyRecord, Keys, ManualClock, MemoryStore, NewKey,
    NewToken, Parent, SqliteStore, Stamp, UnixMillis, http::StatusCode,
};

use crate::{MINUTE, NOW, connect, place, status};

const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);
const LAST_OF_9999: u64 = 253_402_300_799_999;
/// The last time that SQLite can hold; it stands for the end of time.
const LAST: u64 = i64::MAX as u64;

const OK: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::UNAUTHORIZED;

/// By a clock that stands at `now`. Of their own each time, because the time of one never goes back.
fn at(store: &Arc<SqliteStore>, now: u64) -> Keys<Arc<SqliteStore>> {
    Keys::new(Arc::clone(store)).with_clock(ManualClock::new(UnixMillis::new(now)))
}

/// When what ends at `end` ends once the file has kept it.
fn kept(end: u64) -> u64 {
    if end >= LAST { u64::MAX } else { end }
}

async fn ends_at(store: &Arc<SqliteStore>, made: &Issued, end: u64) {
    let read = store.find(made.record().id()).await.expect("an answer").expect("a record");
    assert_eq!(read.expires_at(), Some(UnixMillis::new(end)));
    for now in [0, end.saturating_sub(1), end, end.saturating_add(1), u64::MAX] {
        let expected = if now < end { OK } else { REFUSED };
        let answered = status(&at(store, now), made.key()).await;
        assert_eq!(answered, expected, "{:?}, {end} at {now}", made.record().kind());
    }
}

/// A key is refused from its very millisecond on, from 1970 to the end of time.
#[tokio::test]
async fn expiry_is_exclusive_at_any_time() {
    let (_folder, path) = place();
    let store = Arc::new(SqliteStore::open(&path).await.expect("a store"));
    let elsewhere = Keys::new(MemoryStore::new());
    for end in [0, 1, 1_000, NOW.get(), LAST_OF_9999, LAST - 1, LAST, LAST + 1, u64::MAX] {
        for kind in [KeyKind::Secret, KeyKind::Ephemeral] {
            let made = elsewhere.issue(NewKey::secret("acme")).await.expect("a key");
            let (id, digest) = (made.record().id().clone(), *made.record().digest());
            let is_token = kind == KeyKind::Ephemeral;
            let record = KeyRecord::new(id, digest, "acme", kind, UnixMillis::new(0))
                .with_parent(is_token.then(|| Parent::new(KeyId::new("key_elsewhere"))))
                .with_expires_at(Some(UnixMillis::new(end)));
            let stamp = Stamp::new(UnixMillis::new(0));
            store.insert(record, None, &stamp).await.expect("an answer");
            ends_at(&store, &made, kept(end)).await;
        }
    }
}

/// The same of what is made at such times.
#[tokio::test]
async fn keys_are_made_and_end_at_any_time() {
    let (_folder, path) = place();
    let store = Arc::new(SqliteStore::open(&path).await.expect("a store"));
    for now in [0, NOW.get(), LAST_OF_9999, LAST - 60_001, LAST - 60_000, LAST, u64::MAX - 60_000] {
        let keys = at(&store, now);
        let parent = keys.issue(NewKey::secret("acme")).await.expect("a key");
        let key = keys.issue(NewKey::secret("acme").with_lifetime(MINUTE)).await.expect("a key");
        let principal = connect(&keys, parent.key()).await.expect("let in");
        let token = keys.mint(&principal, NewToken::lasting(MINUTE)).await.expect("a token");
        for made in [&key, &token] {
            ends_at(&store, made, kept(now + 60_000)).await;
        }
        let old = keys.rotate(key.record().id(), MILLI).await.expect("a key");
        ends_at(&store, &key, kept(now + 1)).await;
        ends_at(&store, &old, kept(now + 60_000)).await;
    }
}

/// Once a key was seen to have expired, no clock that goes back lets it in again.
#[tokio::test]
async fn what_has_expired_stays_expired() {
    let (_folder, path) = place();
    let clock = ManualClock::new(NOW);
    let store = SqliteStore::open(&path).await.expect("a store");
    let keys = Keys::new(store).with_clock(clock.clone());
    let parent = keys.issue(NewKey::secret("acme")).await.expect("a key");
    let principal = connect(&keys, parent.key()).await.expect("let in");
    let key = keys.issue(NewKey::secret("acme").with_lifetime(MINUTE)).await.expect("a key");
    let token = keys.mint(&principal, NewToken::lasting(MINUTE)).await.expect("a token");
    let made = [key, token];
    for (passed, expected) in [(MINUTE - MILLI, OK), (MILLI, REFUSED)] {
        clock.advance(passed);
        for made in &made {
            assert_eq!(status(&keys, made.key()).await, expected);
        }
    }
    for back in [MILLI, MINUTE, HOUR] {
        clock.set(UnixMillis::new(NOW.get() + 60_000 - back.as_millis() as u64));
        for made in &made {
            assert_eq!(status(&keys, made.key()).await, REFUSED, "{back:?}");
        }
    }
}

/// Processes go by their own clocks, each of which never goes back: what has expired for one may
/// live for another that is behind. A revocation knows no clock, nor does what was forgotten.
#[tokio::test]
async fn each_process_goes_by_its_own_clock() {
    let (_folder, path) = place();
    let store = Arc::new(SqliteStore::open(&path).await.expect("a store"));
    let (behind, ahead) = (at(&store, NOW.get()), at(&store, NOW.get() + 3_600_000));
    let parent = behind.issue(NewKey::secret("acme")).await.expect("a key");
    let principal = connect(&behind, parent.key()).await.expect("let in");
    let mint = async || behind.mint(&principal, NewToken::lasting(MINUTE)).await.expect("a token");
    let answers =
        async |made: &Issued| (status(&behind, made.key()).await, status(&ahead, made.key()).await);
    let token = mint().await;
    assert_eq!(answers(&token).await, (OK, REFUSED));

    // Whoever is ahead forgets what others still take for alive, and it comes to life no more.
    ahead.issue(NewKey::secret("other")).await.expect("a key");
    assert_eq!(answers(&token).await, (REFUSED, REFUSED));

    // Revoked by either, at a time that is yet to come for the other.
    for by in [&behind, &ahead] {
        let key = behind.issue(NewKey::secret("acme")).await.expect("a key");
        assert_eq!(answers(&key).await, (OK, OK));
        by.revoke(key.record().id()).await.expect("revoked");
        assert_eq!(answers(&key).await, (REFUSED, REFUSED));
    }
    let token = mint().await;
    ahead.revoke(parent.record().id()).await.expect("revoked");
    assert_eq!(answers(&token).await, (REFUSED, REFUSED));
}
