//! T18: a token for N sessions opens N, however many try at once.

mod support;

use std::{
    convert::Infallible,
    env,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Barrier, task::JoinSet};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_realtime_auth::{
    CredentialSource, Grants, KeyAdmin as _, KeyFilter, Keys, ManualClock, MemoryStore, NewKey,
    NewToken, Principal, RealtimeAuthLayer, RefusalMode, UnixMillis,
    http::{Request, Response, StatusCode},
};

use self::support::Body;

/// How many try each token.
const CONNECTS: usize = 1_000;
/// How many tasks do, at once.
const TASKS: usize = 50;

/// How many tokens are tried; `REPLAY_TOKENS` sets another number.
fn tokens() -> usize {
    env::var("REPLAY_TOKENS").map_or(50, |number| number.parse().expect("a number of tokens"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_opens_as_many_sessions_as_it_has_uses() {
    let clock = ManualClock::new(UnixMillis::new(1_800_000_000_000));
    let store = Arc::new(MemoryStore::new());
    let keys = Keys::new(Arc::clone(&store)).with_clock(clock.clone());
    let secret = keys.issue(NewKey::secret("acme")).await.unwrap();
    let parent =
        Principal::new(secret.record().clone(), CredentialSource::Header, UnixMillis::new(0));
    // The handshake takes its time, so that all are under way at once.
    let inner = service_fn(async |_: Request<()>| {
        tokio::task::yield_now().await;
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let response = response.header("upgrade", "websocket").body(Body::default()).unwrap();
        Ok::<_, Infallible>(response)
    });
    let layer = RealtimeAuthLayer::new(keys.clone()).with_refusal(RefusalMode::Never);

    for round in 0..tokens() {
        let uses = [1, 1, 1, 7][round % 4];
        let token = NewToken::lasting(Duration::from_secs(60))
            .with_grants(Grants::default().with_uses(uses));
        let token = keys.mint(&parent, token).await.unwrap();
        let (together, opened) = (Arc::new(Barrier::new(TASKS)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let (together, opened) = (Arc::clone(&together), Arc::clone(&opened));
            let (service, key) = (layer.layer(inner), token.key().expose().to_owned());
            tasks.spawn(async move {
                together.wait().await;
                for _ in 0..CONNECTS / TASKS {
                    let request = support::upgrade_with(CredentialSource::Header, &key);
                    let response = service.clone().oneshot(request).await.unwrap();
                    match response.status() {
                        StatusCode::SWITCHING_PROTOCOLS => opened.fetch_add(1, Ordering::SeqCst),
                        StatusCode::UNAUTHORIZED => 0,
                        other => panic!("{other}"),
                    };
                }
            });
        }
        tasks.join_all().await;
        assert_eq!(opened.load(Ordering::SeqCst), uses as usize, "round {round}");
    }

    // Nothing of it is left a minute after the tokens have expired.
    clock.advance(Duration::from_secs(60 + 61));
    keys.issue(NewKey::secret("acme")).await.unwrap();
    let left = store.list(&KeyFilter::default()).await.unwrap();
    assert_eq!(left.len(), 2, "the secret keys");
}
