//! What a request needs to be let through: routes, environments, uses, and what presets take.

mod support;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use futures_util::FutureExt as _;
use support::{Body, Raw, StoreFn, handshake, keys_with_secret, serve};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_realtime_auth::{
    Answer, ClientAddress, Closing, CredentialSource, Environment, Grants, KeyDigest, Keys,
    Lifetimes, MemoryStore, NewKey, Policy, Principal, Profile, RealtimeAuthLayer, RefusalMode,
    Rejection, RejectionKind, StoreError,
    http::{HeaderMap, Method, Request, Response, StatusCode, Uri},
};

/// What the inner service saw: in the extensions of its answer.
#[derive(Clone)]
struct Seen {
    account: Option<String>,
    uri: Uri,
    headers: HeaderMap,
}

/// Completes a handshake and answers anything else with 200.
fn inner(request: Request<()>) -> Ready<Result<Response<Body>, Infallible>> {
    let (parts, ()) = request.into_parts();
    let account = parts.extensions.get::<Principal>().map(|principal| {
        // No session follows.
        principal.waive_guard();
        principal.account().into()
    });
    let mut response = Response::builder();
    if parts.headers.contains_key("upgrade") {
        response = response.status(101).header("upgrade", "websocket");
    }
    let seen = Seen { account, uri: parts.uri, headers: parts.headers };
    ready(Ok(response.extension(seen).body(Body::default()).unwrap()))
}

macro_rules! ask {
    ($layer:expr, $request:expr) => {{
        let service = $layer.clone().with_refusal(RefusalMode::Never).layer(service_fn(inner));
        service.oneshot($request).await.unwrap()
    }};
}

fn kind(response: &Response<Body>) -> Option<RejectionKind> {
    response.extensions().get::<Rejection>().map(Rejection::kind)
}

fn seen(response: &Response<Body>) -> &Seen {
    response.extensions().get().expect("the inner service was called")
}

fn plain(target: &str, headers: &[(&str, &str)]) -> Request<()> {
    let request = Request::builder().uri(target);
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .body(())
        .unwrap()
}

fn upgrade(target: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = plain(target, headers);
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn an_optional_key_may_be_absent_and_not_bad() {
    let (keys, secret) = keys_with_secret().await;
    let layer = RealtimeAuthLayer::new(keys.clone()).optional();
    let bearer = format!("Bearer {secret}");

    for absent in [plain("/", &[]), plain("/?api_key=null", &[("authorization", "Bearer")])] {
        let mut forged = absent;
        let record = keys.issue(NewKey::secret("mallory")).await.unwrap().record().clone();
        let principal = Principal::new(record, CredentialSource::Header, keys.now());
        forged.extensions_mut().insert(principal);
        let response = ask!(layer, forged);
        assert_eq!(seen(&response).account, None, "nobody, and not whom the client claims to be");
        assert_eq!(seen(&response).uri, "/");
        assert!(seen(&response).headers.is_empty());
    }
    let response = ask!(layer, plain("/", &[("authorization", &bearer)]));
    assert_eq!(seen(&response).account.as_deref(), Some("acme"));
    let response = ask!(layer, plain("/", &[("authorization", "Bearer bad")]));
    assert_eq!(kind(&response), Some(RejectionKind::Unknown));
    let response = ask!(layer, plain("/", &[("authorization", "Bearer a b")]));
    assert_eq!(kind(&response), Some(RejectionKind::Malformed));

    // A WebSocket without a key is answered as one with a key.
    let response = ask!(layer, upgrade("/", &[("sec-websocket-protocol", "a, realtime")]));
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-protocol"], "realtime");
    let response = ask!(layer, plain("/", &[("upgrade", "h2c"), ("connection", "upgrade")]));
    assert_eq!(kind(&response), Some(RejectionKind::Handshake));

    let broken = StoreFn(|_: &KeyDigest| Answer::ready(Err(StoreError::new("down"))));
    let layer = RealtimeAuthLayer::new(broken).optional();
    let response = ask!(layer, plain("/", &[("authorization", &bearer)]));
    assert_eq!(kind(&response), Some(RejectionKind::StoreUnavailable));
    assert_eq!(seen(&ask!(layer, plain("/", &[]))).account, None);
}

#[tokio::test]
async fn routes_differ_in_what_they_need() {
    let (keys, secret) = keys_with_secret().await;
    let decart = Arc::new(Profile::decart());
    let layer =
        RealtimeAuthLayer::new(keys).with_policy(move |method: &Method, uri: &Uri| {
            match uri.path() {
                "/" if method == Method::GET => Policy::Public,
                "/maybe" => Policy::Optional,
                "/v1/stream" => Policy::ProtectedBy(Arc::clone(&decart)),
                _ => Policy::Protected,
            }
        });
    let offer = format!("realtime, openai-insecure-api-key.{secret}");
    let by_offer = |target: &str| upgrade(target, &[("sec-websocket-protocol", &offer)]);
    let by_query = |path: &str| plain(&format!("{path}?api_key={secret}&b=1"), &[]);

    let response = ask!(layer, by_query("/"));
    assert_eq!(seen(&response).account, None);
    assert_eq!(seen(&response).uri, "/?b=1", "a public route sees no key either");
    assert_eq!(kind(&ask!(layer, plain("/maybe", &[]))), None);
    for path in ["/maybe", "/v1/stream", "/other"] {
        assert_eq!(seen(&ask!(layer, by_query(path))).account.as_deref(), Some("acme"), "{path}");
    }
    let response = ask!(layer, by_offer("/other"));
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let response = ask!(layer, by_offer("/v1/stream"));
    assert_eq!(kind(&response), Some(RejectionKind::Missing), "Decart's clients offer none");
    assert_eq!(kind(&ask!(layer, plain("/other", &[]))), Some(RejectionKind::Missing));
    let post = Request::post("/").body(()).unwrap();
    assert_eq!(kind(&ask!(layer, post)), Some(RejectionKind::Missing));
}

#[tokio::test]
async fn keys_of_another_environment_stay_out() {
    let keys = Keys::new(MemoryStore::new());
    let issue = async |environment| {
        let new = NewKey::secret("acme").with_environment(environment);
        keys.issue(new).await.unwrap().key().expose().to_owned()
    };
    let [live, test] = [issue(Environment::Live).await, issue(Environment::Test).await];
    for (served, live_is, test_is) in [
        (None, None, None),
        (Some(Environment::Live), None, Some(RejectionKind::Environment)),
        (Some(Environment::Test), Some(RejectionKind::Environment), None),
    ] {
        let mut layer = RealtimeAuthLayer::new(keys.clone());
        if let Some(served) = served {
            layer = layer.with_environment(served);
        }
        for (key, expected) in [(&live, live_is), (&test, test_is)] {
            let response = ask!(layer, plain("/", &[("x-api-key", key)]));
            assert_eq!(kind(&response), expected, "{served:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_sessions_open_as_a_key_has_uses() {
    const USES: u32 = 3;
    let keys = Keys::new(MemoryStore::new());
    let grants = Grants::default().with_uses(USES);
    let issued = keys.issue(NewKey::secret("acme").with_grants(grants)).await.unwrap();
    let key = issued.key().expose();
    let layer = RealtimeAuthLayer::new(keys.clone());

    // What does not complete a handshake gives its use back.
    let failing = layer.clone().with_refusal(RefusalMode::Never).layer(service_fn(
        |request: Request<()>| async move {
            match request.uri().path() {
                "/error" => Err("broken"),
                "/panic" => panic!("the inner service panics"),
                "/never" => std::future::pending().await,
                _ => Ok(Response::builder().status(400).body(Body::default()).unwrap()),
            }
        },
    ));
    for _ in 0..10 {
        let ask = |path| failing.clone().oneshot(upgrade(path, &[("x-api-key", key)]));
        assert_eq!(ask("/refused").await.unwrap().status(), 400);
        assert!(ask("/error").await.is_err());
        assert!(tokio::spawn(ask("/panic")).await.unwrap_err().is_panic());
        assert!(ask("/never").now_or_never().is_none(), "dropped, as when the client leaves");
    }
    // And plain requests take none.
    for _ in 0..10 {
        assert_eq!(kind(&ask!(layer, plain("/", &[("x-api-key", key)]))), None);
    }

    let racers = (0..1_000).map(|_| {
        let service = layer.clone().with_refusal(RefusalMode::Never).layer(service_fn(inner));
        tokio::spawn(service.oneshot(upgrade("/", &[("x-api-key", key)])))
    });
    let mut opened = 0;
    for racer in racers.collect::<Vec<_>>() {
        let response = racer.await.unwrap().unwrap();
        match kind(&response) {
            None => opened += 1,
            refused => assert_eq!(refused, Some(RejectionKind::Spent)),
        }
    }
    assert_eq!(opened, USES);
}

#[tokio::test]
async fn a_store_that_does_not_count_lets_no_limited_key_through() {
    let keys = Keys::new(MemoryStore::new());
    let grants = Grants::default().with_uses(1);
    let issued = keys.issue(NewKey::secret("acme").with_grants(grants)).await.unwrap();
    let record = Arc::clone(issued.record());
    let layer = RealtimeAuthLayer::new(StoreFn(move |_: &KeyDigest| {
        Answer::ready(Ok(Some(record.clone())))
    }));
    let response = ask!(layer, upgrade("/", &[("x-api-key", issued.key().expose())]));
    assert_eq!(kind(&response), Some(RejectionKind::StoreUnavailable));
}

#[tokio::test]
async fn one_source_holds_only_so_many_refused_handshakes() {
    let (keys, _) = keys_with_secret().await;
    let closing =
        Closing::default().with_deadline(std::time::Duration::from_secs(60)).with_max_per_source(
            2,
            ClientAddress::connection(|_| Some(IpAddr::V4(Ipv4Addr::LOCALHOST))),
        );
    let layer = RealtimeAuthLayer::new(keys).with_closing(closing);
    let watched = layer.clone();
    let service = layer.layer(service_fn(|_: Request<hyper::body::Incoming>| {
        ready(Ok::<_, Infallible>(Response::new(Body::default())))
    }));
    let address = serve(service).await;
    let refused = handshake("/?api_key=bad", &[]);
    let mut held = Vec::new();
    for expected in [101, 101, 401, 401] {
        let (raw, head) = Raw::send(address, refused.as_bytes()).await;
        assert_eq!(head.status, expected);
        held.push(raw);
    }
    assert_eq!(watched.lingering(), 2);
}

/// Which places each preset reads, how it refuses, and how long its tokens live.
#[tokio::test]
async fn presets_take_what_their_clients_send() {
    let (keys, secret) = keys_with_secret().await;
    let bearer = format!("Bearer {secret}");
    let [openai, xai] =
        ["openai-insecure-api-key", "xai-client-secret"].map(|prefix| format!("{prefix}.{secret}"));
    let places = [
        ("bearer", upgrade("/", &[("authorization", &bearer)])),
        ("x-api-key", upgrade("/", &[("x-api-key", &secret)])),
        ("query", upgrade(&format!("/?api_key={secret}"), &[])),
        ("openai", upgrade("/", &[("sec-websocket-protocol", &openai)])),
        ("xai", upgrade("/", &[("sec-websocket-protocol", &xai)])),
    ];
    let unauthorized = "Unauthorized: no API key was presented";
    let openai_reason = "invalid_request_error.invalid_api_key";
    for (name, profile, taken, close, seconds) in [
        (
            "any",
            Profile::default(),
            &["bearer", "x-api-key", "query", "openai", "xai"][..],
            (4001, unauthorized),
            (1, 7_200, 60),
        ),
        (
            "openai",
            Profile::openai(),
            &["bearer", "openai"],
            (3000, openai_reason),
            (10, 7_200, 600),
        ),
        ("xai", Profile::xai(), &["bearer", "xai"], (4001, unauthorized), (1, 3_600, 600)),
        (
            "swaram",
            Profile::swaram(),
            &["bearer", "query", "openai"],
            (4001, unauthorized),
            (1, 3_600, 60),
        ),
        (
            "decart",
            Profile::decart(),
            &["bearer", "x-api-key", "query"],
            (4001, unauthorized),
            (1, 3_600, 60),
        ),
        ("svara", Profile::svara(), &["bearer"], (4001, unauthorized), (1, 7_200, 60)),
    ] {
        let layer = RealtimeAuthLayer::new(keys.clone()).with_profile(profile.clone());
        for (place, request) in &places {
            let response = ask!(layer, request.clone());
            let expected = (!taken.contains(place)).then_some(RejectionKind::Missing);
            assert_eq!(kind(&response), expected, "{name}: {place}");
        }
        let response = ask!(layer, plain("/", &[]));
        let rejection = response.extensions().get::<Rejection>().unwrap();
        let refusal = profile.refusal(rejection);
        assert_eq!((refusal.close().code(), refusal.close().reason()), close, "{name}");
        let event: serde_json::Value = serde_json::from_str(refusal.event().unwrap()).unwrap();
        assert_eq!(event["type"], "error", "{name}");
        assert_eq!(event["error"].is_string(), name == "decart", "{name}");
        let body: serde_json::Value = serde_json::from_str(refusal.body()).unwrap();
        let key = if name == "decart" { "detail" } else { "error" };
        assert!(!body[key].is_null(), "{name}: {body}");
        let (min, max, default) = seconds;
        let secs = std::time::Duration::from_secs;
        let expected = Lifetimes::new(secs(min)..=secs(max), secs(default)).unwrap();
        assert_eq!(profile.lifetimes(), &expected, "{name}");
    }
}
