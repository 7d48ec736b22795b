//! A lock that nobody enforces is a hole: what needs a guard does not begin without one.

mod support;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::WebSocketUpgrade, routing::any};
use tokio::net::TcpListener;
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};
use tower_realtime_auth::{
    Answer, ApiKey, CredentialSource, Grants, KeyDigest, KeyId, KeyKind, KeyRecord, KeyStore, Keys,
    Lock, Lookup, MemoryStore, NewKey, Principal, Profile, RealtimeAuthLayer, Rejection,
    RejectionKind, Settings, UnixMillis,
    http::{Request, Response, StatusCode},
};

use self::support::{Body, json};

const KEY: &str = "sk_test_of_somebody_else";

fn voice() -> Settings {
    Settings::parse(r#"{"voice":"marin"}"#).unwrap()
}

/// Grants, by what they need a guard for.
fn needing() -> [(&'static str, Grants); 5] {
    let grants = Grants::default();
    [
        ("settings", grants.clone().with_session(voice())),
        ("everything locked", grants.clone().with_lock(Lock::all())),
        ("a path locked", grants.clone().with_lock(Lock::nothing().and(["tools"]).unwrap())),
        ("a model", grants.clone().with_models(["m"])),
        ("the length of sessions", grants.with_max_session(Duration::from_secs(60))),
    ]
}

async fn keys_with(grants: Grants) -> Keys<MemoryStore> {
    let keys = Keys::new(MemoryStore::new());
    let key = ApiKey::new(KEY.to_owned()).unwrap();
    keys.import(&key, NewKey::secret("acme").with_grants(grants)).await.unwrap();
    keys
}

fn upgrade() -> Request<()> {
    support::upgrade_with(CredentialSource::Header, KEY)
}

fn plain() -> Request<()> {
    support::plain_with(CredentialSource::Header, KEY)
}

/// What a handler does about the guard.
type Handler = fn(&Principal);

fn neglects(_: &Principal) {}

fn guards(principal: &Principal) {
    let _ = principal.guard();
}

/// Completes every handshake, after `handler` has done what it does.
fn service(
    handler: Handler,
) -> impl tower::Service<
    Request<()>,
    Response = Response<Body>,
    Error = Infallible,
    Future = Ready<Result<Response<Body>, Infallible>>,
> + Clone {
    service_fn(move |request: Request<()>| {
        handler(request.extensions().get::<Principal>().expect("a principal"));
        let mut response = Response::new(Body::default());
        if request.headers().contains_key("upgrade") {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        }
        ready(Ok(response))
    })
}

#[tokio::test]
async fn a_handshake_that_nobody_guards_does_not_complete() {
    for (what, grants) in needing() {
        let layer = RealtimeAuthLayer::new(keys_with(grants).await);
        let response = layer.layer(service(neglects)).oneshot(upgrade()).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{what}");
        let rejection = response.extensions().get::<Rejection>().unwrap();
        assert_eq!(rejection.kind(), RejectionKind::Unguarded, "{what}");
        assert_eq!(rejection.source(), Some(CredentialSource::Header), "{what}");
        assert_eq!(response.headers()["connection"], "close");
        assert!(!response.headers().contains_key("upgrade"), "nothing of the handshake is left");
        let error = &json(response).await["error"];
        assert_eq!(error["code"], "session_not_guarded");
        let message = error["message"].as_str().unwrap();
        for hint in ["Principal::guard()", "GuardedSocket", "Principal::waive_guard()"] {
            assert!(message.contains(hint), "{message}");
        }
    }
}

#[tokio::test]
async fn whoever_guards_or_says_that_nobody_need_goes_on() {
    for (what, grants) in needing() {
        for handler in [guards as Handler, Principal::waive_guard] {
            let layer = RealtimeAuthLayer::new(keys_with(grants.clone()).await);
            let response = layer.layer(service(handler)).oneshot(upgrade()).await.unwrap();
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "{what}");
        }
    }
}

#[tokio::test]
async fn what_needs_no_guard_gets_along_without() {
    let nothing_locked = Grants::default().with_session(voice()).with_lock(Lock::nothing());
    for grants in [Grants::default(), nothing_locked, Grants::default().with_uses(3)] {
        let layer = RealtimeAuthLayer::new(keys_with(grants).await);
        let response = layer.layer(service(neglects)).oneshot(upgrade()).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    }
    // Nor does what is no session.
    for (what, grants) in needing() {
        let layer = RealtimeAuthLayer::new(keys_with(grants).await);
        let response = layer.layer(service(neglects)).oneshot(plain()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{what}");
    }
}

#[tokio::test]
async fn where_all_locks_in_time_every_session_needs_a_guard() {
    let layer =
        RealtimeAuthLayer::new(keys_with(Grants::default()).await).with_profile(Profile::swaram());
    let response = layer.layer(service(neglects)).oneshot(upgrade()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let response = layer.layer(service(guards)).oneshot(upgrade()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
}

#[tokio::test]
async fn a_use_is_not_spent_on_a_session_that_did_not_begin() {
    let grants = Grants::default().with_session(voice()).with_uses(1);
    let layer = RealtimeAuthLayer::new(keys_with(grants).await);
    for _ in 0..3 {
        let response = layer.layer(service(neglects)).oneshot(upgrade()).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    let mut guarded = layer.layer(service(guards));
    let response = guarded.ready().await.unwrap().call(upgrade()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
}

/// Answers later.
struct Slow(Grants);

impl KeyStore for Slow {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        let id = KeyId::new("key_1");
        let record = KeyRecord::new(id, *digest, "acme", KeyKind::Secret, UnixMillis::new(0));
        let record = Arc::new(record.with_grants(self.0.clone()));
        Answer::pending(async {
            tokio::task::yield_now().await;
            Ok(Some(record))
        })
    }
}

#[tokio::test]
async fn a_request_that_waited_for_the_store_is_no_exception() {
    for (handler, status) in [
        (neglects as Handler, StatusCode::INTERNAL_SERVER_ERROR),
        (guards, StatusCode::SWITCHING_PROTOCOLS),
    ] {
        let layer = RealtimeAuthLayer::new(Slow(Grants::default().with_session(voice())));
        let response = layer.layer(service(handler)).oneshot(upgrade()).await.unwrap();
        assert_eq!(response.status(), status);
    }
}

/// Through a real server. A handler that asks within its session asks too late.
#[tokio::test]
async fn over_a_socket_the_client_sees_why() {
    let keys = keys_with(Grants::default().with_session(voice())).await;
    let realtime = async |principal: Principal, upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async move |_| drop(principal.guard()))
    };
    let app = Router::new().route("/v1/realtime", any(realtime));
    let app = RealtimeAuthLayer::new(keys).layer(app);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        axum::serve(listener, axum::ServiceExt::<axum::extract::Request>::into_make_service(app))
            .await
            .unwrap();
    });
    let handshake = support::handshake_with(CredentialSource::Subprotocol, KEY);
    let (mut raw, head) = support::Raw::send(address, handshake.as_bytes()).await;
    assert_eq!(head.status, 500);
    let rest = String::from_utf8(raw.rest().await).unwrap();
    assert!(rest.contains("session_not_guarded"), "{rest}");
}
