//! What Tower and axum expect of a layer: readiness, errors, bodies, auto traits, extractors.

mod support;

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex},
    task::Poll,
};

use axum::{Router, extract, routing::get};
use futures_util::future::poll_immediate;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use support::{Body, Inner, PLACES, Raw, StoreFn, handshake, json, keys_with_secret, plain_with};
use tokio::sync::oneshot;
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit, service_fn};
use tower_realtime_auth::{
    Answer, ApiKey, AuditAction, AuditEntry, AuditFilter, Clock, CloseFrame, Closing, ConfigError,
    Conflicts, CredentialSource, Environment, FromBytes, Grants, Inserted, InvalidKey, Issued,
    KeyAdmin, KeyDigest, KeyError, KeyFilter, KeyFormat, KeyHint, KeyId, KeyKind, KeyRecord,
    KeyStore, Keys, Lookup, ManualClock, MemoryStore, MissingPrincipal, NewKey, Parent, Principal,
    Profile, RealtimeAuth, RealtimeAuthLayer, RefusalMode, Rejection, RejectionKind, Revocation,
    Rotated, Runtime, Stamp, StoreError, SystemClock, TokioRuntime, UnixMillis,
    bytes::Bytes,
    http::{Request, Response, StatusCode},
};
use tower_test::mock;

const HEADER: CredentialSource = CredentialSource::Header;

/// A store whose first answer comes when the returned sender says so; later ones are there.
fn asked_twice(keys: Keys<MemoryStore>) -> (impl KeyStore, oneshot::Sender<()>) {
    let (tell, told) = oneshot::channel();
    let first = Mutex::new(Some(told));
    let store = StoreFn(move |digest: &KeyDigest| {
        let answer = keys.store().lookup(digest);
        match first.lock().expect("no panic").take() {
            None => answer,
            Some(told) => Answer::pending(async move {
                told.await.map_err(StoreError::new)?;
                answer.await
            }),
        }
    });
    (store, tell)
}

// ---- Readiness ----

async fn ready<S>(service: &mut S) -> &mut S
where
    S: Service<Request<()>>,
    S::Error: fmt::Debug,
{
    service.ready().await.expect("a service that gets ready")
}

/// `ConcurrencyLimit` panics if a clone is called that was not polled ready, so this shows that
/// the very service that was ready is called, whether the store answers at once or later.
#[tokio::test]
async fn the_service_that_was_ready_is_the_one_that_is_called() {
    let (keys, secret) = keys_with_secret().await;
    let inner = Inner::default();
    let (store, tell) = asked_twice(keys);
    let mut service = RealtimeAuthLayer::new(store).layer(ConcurrencyLimit::new(inner.clone(), 1));

    let mut pending = ready(&mut service).await.call(plain_with(HEADER, &secret));
    assert!(poll_immediate(&mut pending).await.is_none(), "the store has not answered");

    // The request that waits holds the only place.
    let is_ready = poll_fn(|cx| Poll::Ready(Service::<Request<()>>::poll_ready(&mut service, cx)));
    assert!(is_ready.await.is_pending());

    tell.send(()).unwrap();
    assert_eq!(pending.await.unwrap().status(), StatusCode::OK);

    let at_once = ready(&mut service).await.call(plain_with(HEADER, &secret));
    assert_eq!(at_once.await.unwrap().status(), StatusCode::OK);
    assert_eq!(inner.calls(), 2);
}

/// A caller that gives up while the store is asked gives the inner service's place back.
#[tokio::test]
async fn a_dropped_request_gives_its_place_back() {
    let (keys, secret) = keys_with_secret().await;
    let inner = Inner::default();
    let (store, _tell) = asked_twice(keys);
    let mut service = RealtimeAuthLayer::new(store).layer(ConcurrencyLimit::new(inner.clone(), 1));

    let mut pending = ready(&mut service).await.call(plain_with(HEADER, &secret));
    assert!(poll_immediate(&mut pending).await.is_none());
    drop(pending);

    let response = ready(&mut service).await.call(plain_with(HEADER, &secret)).await;
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    assert_eq!(inner.calls(), 1);
}

/// A refusal uses no place up.
#[tokio::test]
async fn a_refused_request_leaves_the_place_to_the_next() {
    let (keys, secret) = keys_with_secret().await;
    let limited = ConcurrencyLimit::new(Inner::default(), 1);
    let mut service = RealtimeAuthLayer::new(keys).layer(limited);
    for (key, status) in [("wrong", 401), ("wrong", 401), (&secret, 200), ("wrong", 401)] {
        let response = ready(&mut service).await.call(plain_with(HEADER, key)).await;
        assert_eq!(response.unwrap().status(), status);
    }
}

#[tokio::test]
async fn it_is_ready_exactly_when_the_inner_service_is() {
    let (keys, secret) = keys_with_secret().await;
    let layer = RealtimeAuthLayer::new(keys);
    let (mut service, mut handle) = mock::spawn_layer::<Request<()>, Response<Body>, _>(layer);

    handle.allow(0);
    assert!(service.poll_ready::<Request<()>>().is_pending());
    handle.allow(1);
    assert!(service.is_woken(), "readiness wakes the caller");
    assert!(matches!(service.poll_ready::<Request<()>>(), Poll::Ready(Ok(()))));

    let response = tokio::spawn(service.call(plain_with(HEADER, &secret)));
    let (_, answer) = handle.next_request().await.expect("the request");
    answer.send_response(Response::new(Body::default()));
    assert_eq!(response.await.unwrap().unwrap().status(), StatusCode::OK);
    assert!(service.poll_ready::<Request<()>>().is_pending(), "one was allowed");
}

/// The error that the inner service fails with: to be found again as it is.
#[derive(Debug, PartialEq)]
struct Mine(u8);

impl fmt::Display for Mine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mine {}", self.0)
    }
}

impl Error for Mine {}

#[tokio::test]
async fn errors_of_the_inner_service_pass_unchanged() {
    let (keys, secret) = keys_with_secret().await;
    let layer = RealtimeAuthLayer::new(keys);
    let (mut service, mut handle) = mock::spawn_layer::<Request<()>, Response<Body>, _>(layer);

    handle.send_error(Mine(1));
    let Poll::Ready(Err(error)) = service.poll_ready::<Request<()>>() else { panic!("no error") };
    assert_eq!(error.downcast_ref(), Some(&Mine(1)));

    handle.allow(1);
    assert!(service.poll_ready::<Request<()>>().is_ready());
    let response = tokio::spawn(service.call(plain_with(HEADER, &secret)));
    let (_, answer) = handle.next_request().await.expect("the request");
    answer.send_error(Mine(2));
    let error = response.await.unwrap().expect_err("the error");
    assert_eq!(error.downcast_ref(), Some(&Mine(2)));
}

#[tokio::test]
async fn the_inner_service_is_not_called_before_the_store_has_answered() {
    let (keys, secret) = keys_with_secret().await;
    let (store, tell) = asked_twice(keys);
    let layer = RealtimeAuthLayer::new(store);
    let (mut service, mut handle) = mock::spawn_layer::<Request<()>, Response<Body>, _>(layer);

    assert!(service.poll_ready::<Request<()>>().is_ready());
    let mut response = Box::pin(service.call(plain_with(HEADER, &secret)));
    assert!(poll_immediate(&mut response).await.is_none());
    assert!(poll_immediate(Box::pin(handle.next_request())).await.is_none(), "called too early");

    tell.send(()).unwrap();
    assert!(poll_immediate(&mut response).await.is_none(), "the inner service has not answered");
    let (_, answer) = handle.next_request().await.expect("the request");
    answer.send_response(Response::new(Body::default()));
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
}

// ---- Bodies ----

/// The status, and the body's bytes, with which a request without a key is refused.
async fn refused_by<B, S>(service: S) -> (StatusCode, Bytes)
where
    B: hyper::body::Body,
    B::Error: fmt::Debug,
    S: Service<Request<()>, Response = Response<B>>,
    S::Error: fmt::Debug,
{
    let response = service.oneshot(Request::new(())).await.expect("a response");
    let status = response.status();
    (status, response.into_body().collect().await.expect("a body").to_bytes())
}

async fn answers<B: Default>(_: Request<()>) -> Result<Response<B>, Infallible> {
    Ok(Response::new(B::default()))
}

#[tokio::test]
async fn refusals_come_in_the_inner_services_body_type() {
    let layer = RealtimeAuthLayer::new(MemoryStore::new());
    let boxed = layer.clone().with_body(|bytes: Bytes| BoxBody::new(Full::new(bytes)));
    let empty = layer.clone().with_body(|_: Bytes| Empty::<Bytes>::new());

    let by_axum = refused_by(layer.layer(service_fn(answers::<axum::body::Body>))).await;
    let by_full = refused_by(layer.layer(service_fn(answers::<Full<Bytes>>))).await;
    let by_boxed = refused_by(boxed.layer(service_fn(answers::<BoxBody<Bytes, Infallible>>))).await;
    let by_empty = refused_by(empty.layer(service_fn(answers::<Empty<Bytes>>))).await;

    assert_eq!(by_full.0, StatusCode::UNAUTHORIZED);
    let json: serde_json::Value = serde_json::from_slice(&by_full.1).unwrap();
    assert_eq!(json["error"]["code"], "missing_api_key");
    assert_eq!(by_axum, by_full);
    assert_eq!(by_boxed, by_full);
    assert_eq!(by_empty, (StatusCode::UNAUTHORIZED, Bytes::new()));
}

/// The inner service's own body passes as the object it is, not as a copy of its bytes.
#[tokio::test]
async fn the_inner_services_body_is_not_touched() {
    #[derive(Debug)]
    struct Opaque(u32);
    let (keys, secret) = keys_with_secret().await;
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Opaque(7))));
    let layer = RealtimeAuthLayer::new(keys).with_body(|_: Bytes| Opaque(0));
    let response = layer.layer(inner).oneshot(plain_with(HEADER, &secret)).await.unwrap();
    assert_eq!(response.into_body().0, 7);
}

// ---- Types ----

/// Checked when this is compiled.
macro_rules! are {
    (($($bound:tt)*): $($type:ty),* $(,)?) => {
        const _: () = {
            const fn check<T: $($bound)*>() {}
            $(check::<$type>();)*
        };
    };
}

type Closure = fn(Bytes) -> Body;
type Layered = RealtimeAuth<Inner, MemoryStore>;
type Future = <Layered as Service<Request<()>>>::Future;

are!((Clone + fmt::Debug + Send + Sync + Unpin + 'static):
    RealtimeAuthLayer<MemoryStore>,
    RealtimeAuthLayer<Arc<dyn KeyAdmin>, Closure>,
    Layered,
    RealtimeAuth<Inner, Box<dyn KeyStore>, Closure>,
    Keys<MemoryStore>,
    tower_realtime_auth::ClientSecrets<MemoryStore>,
    tower_realtime_auth::ClientTokens<MemoryStore>,
    tower_realtime_auth::RealtimeSessions<MemoryStore>,
    tower_realtime_auth::TranscriptionSessions<MemoryStore>,
    Principal, KeyRecord, Grants, Parent, KeyId, KeyDigest, KeyKind, Environment, ApiKey, NewKey,
    KeyFormat, Profile, Conflicts, RefusalMode, Rejection, RejectionKind, CredentialSource,
    Closing, CloseFrame, ConfigError, InvalidKey, MissingPrincipal, UnixMillis, SystemClock,
    ManualClock, FromBytes, TokioRuntime, Inserted, Revocation, KeyFilter,
    Rotated, Stamp, AuditAction, AuditEntry, AuditFilter, KeyHint,
    tower_realtime_auth::Lifetimes, tower_realtime_auth::NewToken,
    tower_realtime_auth::Settings, tower_realtime_auth::InvalidSettings,
    tower_realtime_auth::SessionGuard, tower_realtime_auth::Verdict<'static>,
);
are!((fmt::Debug + Send + Sync + Unpin + 'static):
    MemoryStore, Issued, KeyError, StoreError, tower_realtime_auth::MintError,
    tower_realtime_auth::JsonBody,
);
// A store's future need not be `Sync`, so neither is what waits for it.
are!((fmt::Debug + Send + Unpin + 'static): Lookup, Future);
are!((Error): StoreError, KeyError, InvalidKey, ConfigError, Rejection, MissingPrincipal,
    tower_realtime_auth::MintError, tower_realtime_auth::InvalidSettings);
// Usable behind a pointer, each.
are!((Send + Sync + ?Sized): dyn KeyStore, dyn KeyAdmin, dyn Clock, dyn Runtime);

/// A closure that makes bodies need not be `Debug` for the layer and its services to be.
#[test]
fn layers_with_closures_can_be_shown() {
    let layer = RealtimeAuthLayer::new(MemoryStore::new()).with_body(|bytes: Bytes| bytes);
    assert!(format!("{layer:?}").starts_with("RealtimeAuthLayer"));
    assert!(format!("{:?}", layer.layer("inner")).starts_with("RealtimeAuth"));
}

#[tokio::test]
async fn keys_are_made_from_a_store_and_from_pointers_to_one() {
    let (keys, secret) = keys_with_secret().await;
    let shared = Arc::new(StoreFn(move |digest: &KeyDigest| keys.store().lookup(digest)));
    let shared: Arc<dyn KeyStore> = shared;
    let boxed: Box<dyn KeyStore> = Box::new(Arc::clone(&shared));

    let by_shared = RealtimeAuthLayer::new(Keys::new(shared.clone())).layer(Inner::default());
    let by_store = RealtimeAuthLayer::new(shared).layer(Inner::default());
    let by_boxed = RealtimeAuthLayer::new(Keys::from(boxed)).layer(Inner::default());
    let statuses = [
        by_shared.oneshot(plain_with(HEADER, &secret)).await.unwrap().status(),
        by_store.oneshot(plain_with(HEADER, &secret)).await.unwrap().status(),
        by_boxed.oneshot(plain_with(HEADER, &secret)).await.unwrap().status(),
    ];
    assert_eq!(statuses, [StatusCode::OK; 3]);

    let admin: Arc<dyn KeyAdmin> = Arc::new(MemoryStore::new());
    let keys = Keys::new(admin);
    let issued = keys.issue(NewKey::secret("acme")).await.unwrap();
    let service = RealtimeAuthLayer::new(keys.clone()).layer(Inner::default());
    let request = || plain_with(HEADER, issued.key().expose());
    assert_eq!(service.clone().oneshot(request()).await.unwrap().status(), StatusCode::OK);
    keys.revoke(issued.record().id()).await.unwrap();
    assert_eq!(service.oneshot(request()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

// ---- The principal ----

/// Only the layer says who is calling: what a caller planted is gone.
#[tokio::test]
async fn a_planted_principal_is_replaced() {
    let (keys, secret) = keys_with_secret().await;
    let other = keys.issue(NewKey::secret("mallory")).await.unwrap();
    let now = keys.now();
    for place in PLACES.into_iter().filter(|place| *place != CredentialSource::Subprotocol) {
        let mut request = plain_with(place, &secret);
        request.extensions_mut().insert(Principal::new(
            Arc::clone(other.record()),
            CredentialSource::Header,
            now,
        ));
        let service = RealtimeAuthLayer::new(keys.clone()).layer(Inner::default());
        let response = service.oneshot(request).await.unwrap();
        let seen = response.extensions().get::<Principal>().expect("a principal");
        assert_eq!((seen.account(), seen.source()), ("acme", place));
    }
}

// ---- axum ----

async fn whoami(principal: Principal) -> String {
    principal.account().to_owned()
}

async fn whoami_if_any(principal: Option<Principal>) -> String {
    principal.map_or_else(|| "nobody".to_owned(), |principal| principal.account().to_owned())
}

fn api() -> Router {
    Router::new().route("/whoami", get(whoami)).route("/maybe", get(whoami_if_any))
}

fn get_with_key(path: &str, key: Option<&str>) -> extract::Request {
    let builder = Request::get(path);
    let builder = match key {
        Some(key) => builder.header("authorization", format!("Bearer {key}")),
        None => builder,
    };
    builder.body(axum::body::Body::empty()).expect("a request")
}

async fn text(response: Response<axum::body::Body>) -> String {
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

#[tokio::test]
async fn handlers_extract_the_principal() {
    let (keys, secret) = keys_with_secret().await;
    let app = RealtimeAuthLayer::new(keys).layer(api());
    for path in ["/whoami", "/maybe"] {
        let response = app.clone().oneshot(get_with_key(path, Some(&secret))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(response).await, "acme", "{path}");

        let response = app.clone().oneshot(get_with_key(path, None)).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(json(response).await["error"]["code"], "missing_api_key", "{path}");
    }
}

#[tokio::test]
async fn without_the_layer_a_handler_says_what_is_missing() {
    let response = api().oneshot(get_with_key("/whoami", Some("any"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let text_of_it = text(response).await;
    assert!(text_of_it.contains("RealtimeAuthLayer"), "{text_of_it}");

    let response = api().oneshot(get_with_key("/maybe", Some("any"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, "nobody");
}

/// `Router::layer` does too, for those who put it there all the same.
#[tokio::test]
async fn a_router_takes_the_layer_inside() {
    let (keys, secret) = keys_with_secret().await;
    let app = api().layer(RealtimeAuthLayer::new(keys));
    let response = app.clone().oneshot(get_with_key("/whoami", Some(&secret))).await.unwrap();
    assert_eq!(text(response).await, "acme");
    let response = app.oneshot(get_with_key("/whoami", Some("wrong"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn axum_serves_a_layered_router() {
    let (keys, secret) = keys_with_secret().await;
    let app = RealtimeAuthLayer::new(keys).layer(api());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let make = axum::ServiceExt::<extract::Request>::into_make_service(app);
    tokio::spawn(async move { axum::serve(listener, make).await });

    let request = format!("GET /whoami?api_key={secret} HTTP/1.1\r\nHost: test\r\n\r\n");
    let (_, head) = Raw::send(address, request.as_bytes()).await;
    assert_eq!(head.status, 200);

    let request = handshake("/whoami?api_key=wrong", &[]);
    let (mut raw, head) = Raw::send(address, request.as_bytes()).await;
    assert_eq!(head.status, 101);
    assert_eq!(raw.frame().await.expect("the error event").0, 0x81);
    assert_eq!(raw.frame().await.expect("the Close").1[..2], 4001_u16.to_be_bytes());
}
