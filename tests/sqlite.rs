//! Keys in a file: there after a restart, the same for all who have it open, and never answered
//! wrongly, whatever becomes of the file.

mod support;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use support::{Inner, plain_with};
use tempfile::TempDir;
use tower::{Layer as _, ServiceExt as _};
use tower_realtime_auth::{
    ApiKey, AuditFilter, CredentialSource, DigestAlgorithm, Environment, Grants, Inserted, Issued,
    KeyAdmin, KeyDigest, KeyHint, KeyId, KeyKind, KeyRecord, KeyStore, Keys, Lock, NewKey,
    NewToken, Parent, Plan, Principal, RealtimeAuthLayer, Settings, SqliteStore, Stamp, UnixMillis,
    http::StatusCode,
};

const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// A folder of its own, with the path of a file in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.db");
    (folder, path)
}

async fn open(path: &Path) -> Keys<SqliteStore> {
    Keys::new(SqliteStore::open(path).await.expect("a store"))
}

async fn issue(keys: &Keys<SqliteStore>, account: &str) -> Issued {
    keys.issue(NewKey::secret(account)).await.expect("a key")
}

/// What a request with `key` is answered: who is calling, or a refusal.
async fn connect<S: KeyStore>(keys: &Keys<S>, key: &ApiKey) -> Result<Principal, StatusCode> {
    let service = RealtimeAuthLayer::new(keys.clone()).layer(Inner::default());
    let request = plain_with(CredentialSource::Header, key.expose());
    let response = service.oneshot(request).await.expect("a response");
    response.extensions().get::<Principal>().cloned().ok_or(response.status())
}

async fn status<S: KeyStore>(keys: &Keys<S>, key: &ApiKey) -> StatusCode {
    connect(keys, key).await.map_or_else(|status| status, |_| StatusCode::OK)
}

// ---- What is kept ----

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
