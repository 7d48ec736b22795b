//! Keys in a file: there after a restart, the same for all who have it open, and never answered
//! wrongly, whatever becomes of the file.

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod kept;
mod peppers;
mod process;
mod races;
mod replay;
mod revoked;
mod rules;
mod shared;
mod time;

use std::{
    convert::Infallible,
    env,
    error::Error,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use support::{Body, Inner, plain_with, upgrade_with};
use tempfile::TempDir;
use tokio::task;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_realtime_auth::{
    ApiKey, CredentialSource, Issued, KeyStore, Keys, NewKey, Principal, RealtimeAuthLayer,
    RefusalMode, SqliteOptions, SqliteStore, UnixMillis,
    http::{Request, Response, StatusCode},
};

const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// How much of something is tried; the environment variable sets another number.
fn figure(variable: &str, default: usize) -> usize {
    env::var(variable).map_or(default, |figure| figure.parse().expect("a number"))
}

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

/// How many of `tries` handshakes with `key`, all under way at once, are answered with what `inner`
/// answers. Each of the others is refused.
async fn handshakes(
    keys: &Keys<SqliteStore>,
    key: &ApiKey,
    tries: usize,
    inner: StatusCode,
) -> usize {
    let service = service_fn(move |_: Request<()>| async move {
        task::yield_now().await;
        let response = Response::builder().status(inner).header("upgrade", "websocket");
        Ok::<_, Infallible>(response.body(Body::default()).expect("a response"))
    });
    let layer = RealtimeAuthLayer::new(keys.clone()).with_refusal(RefusalMode::Never);
    let tries = (0..tries).map(|_| {
        let request = upgrade_with(CredentialSource::Header, key.expose());
        layer.layer(service).oneshot(request)
    });
    let answers = join_all(tries).await.into_iter();
    answers.fold(0, |passed, answer| match answer.expect("a response").status() {
        status if status == inner => passed + 1,
        StatusCode::UNAUTHORIZED => passed,
        other => panic!("{other}"),
    })
}

/// How long what nearly all took took at most: all but one of a hundred; and how long all did.
fn slowest(mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort_unstable();
    (took[(took.len() * 99).div_ceil(100) - 1], took[took.len() - 1])
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
