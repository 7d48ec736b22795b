//! Keys in a file: there after a restart, the same for all who have it open, and never answered
//! wrongly, whatever becomes of the file.

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod kept;
mod process;
mod rules;
mod shared;

use std::{
    error::Error,
    path::{Path, PathBuf},
    time::Duration,
};

use support::{Inner, plain_with};
use tempfile::TempDir;
use tower::{Layer as _, ServiceExt as _};
use tower_realtime_auth::{
    ApiKey, CredentialSource, Issued, KeyStore, Keys, NewKey, Principal, RealtimeAuthLayer,
    SqliteOptions, SqliteStore, UnixMillis, http::StatusCode,
};

const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// A folder of its own, with the path of a file in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.db");
    (folder, path)
}

/// The path of what SQLite keeps beside the file.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

async fn open(path: &Path) -> Keys<SqliteStore> {
    Keys::new(SqliteStore::open(path).await.expect("a store"))
}

/// Of a store that does not wait long for others.
async fn open_impatient(path: &Path) -> Keys<SqliteStore> {
    let options = SqliteOptions::default().with_busy_deadline(Duration::from_millis(50));
    Keys::new(SqliteStore::open_with(path, options).await.expect("a store"))
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

/// An error and all that it comes from: what an operator reads.
fn causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Why the file cannot be opened.
async fn refused(path: &Path) -> String {
    causes(&SqliteStore::open(path).await.expect_err("no store"))
}
