//! WebSockets over HTTP/2 (RFC 8441): streams that share a connection and nothing else.
//!
//! The client speaks HTTP/2 with its bare hands, so that it sees how a stream ends: by END_STREAM,
//! or by a reset.

mod support;

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router, ServiceExt as _,
    body::Body,
    extract::{Request, WebSocketUpgrade, ws::Message},
    response::Response,
    routing::{any, get},
};
use futures_util::future::join_all;
use h2::Reason;
use serde_json::json;
use support::{
    CountingRuntime, SOON,
    http2::{CLOSE, Client, End, Stream, TEXT, extended_connect, with_headers},
    keys_with_secret as keys, masked,
};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, timeout},
};
use tower::{Layer, Service, ServiceExt as _};
use tower_realtime_auth::{
    Answer, Closing, KeyDigest, KeyStore, Keys, Lookup, ManualClock, MemoryStore, NewKey,
    Principal, RealtimeAuthLayer, UnixMillis,
    bytes::Bytes,
    http::{HeaderMap, Method, StatusCode, Uri, Version, request},
};

const BAD: &str = "sk_test_bad";
const BAD_QUERY: &str = "/v1/realtime?api_key=sk_test_bad";

/// Headers that HTTP/2 forbids, or that belong to the handshake of HTTP/1.1.
const FORBIDDEN: [&str; 6] = [
    "connection",
    "upgrade",
    "transfer-encoding",
    "keep-alive",
    "sec-websocket-accept",
    "sec-websocket-key",
];

#[tokio::test]
async fn accepted_wherever_the_key_stands() {
    let (keys, key) = keys().await;
    let client = Client::of(RealtimeAuthLayer::new(keys)).await;
    let offers = |credential: &str| format!("realtime, {credential}, chat");
    let openai = format!("openai-insecure-api-key.{key}");
    let xai = format!("xai-client-secret.{key}");
    // Lines of headers; the query; the subprotocol answered; what the inner service sees of both.
    let cases = [
        (vec![("authorization", format!("Bearer {key}"))], "", None, None, ""),
        (vec![], "?api_key=KEY&b=%2", None, None, "?b=%2"),
        (vec![], "?api_key=KEY", None, None, ""),
        (
            vec![("sec-websocket-protocol", offers(&openai))],
            "?model=m",
            Some("realtime"),
            Some("realtime, chat"),
            "?model=m",
        ),
        (
            vec![
                ("sec-websocket-protocol", "realtime".to_owned()),
                ("sec-websocket-protocol", openai.clone()),
            ],
            "",
            Some("realtime"),
            Some("realtime"),
            "",
        ),
        (vec![("sec-websocket-protocol", xai.clone())], "", Some(&*xai), None, ""),
    ];
    for (headers, query, answered, offered, seen_query) in cases {
        let path = format!("/v1/realtime{}", query.replace("KEY", &key));
        let mut stream = client.connect(&path, &headers).await;
        assert_eq!(stream.status(), StatusCode::OK, "{headers:?} {query}");
        assert_no_forbidden(stream.headers());
        assert_eq!(stream.header("sec-websocket-protocol"), answered);

        let seen = stream.json().await;
        // Scheme and authority stay where they were, as HTTP/2 has them in every request.
        assert_eq!(seen["uri"], format!("http://gateway.example:1/v1/realtime{seen_query}"));
        assert_eq!(seen["account"], "acme");
        assert_eq!(seen["headers"]["sec-websocket-protocol"], json!(offered));
        assert!(!seen.to_string().contains(&key), "{seen}");

        stream.text("still here");
        assert_eq!(stream.frame().await, (TEXT, b"still here".to_vec()));
        stream.close(1000);
        assert_eq!(stream.frame().await.0, CLOSE);
        assert_eq!(stream.end().await, End::Stream);
    }
}

#[tokio::test]
async fn each_stream_is_judged_by_itself() {
    let clock = ManualClock::new(UnixMillis::new(0));
    let keys = Keys::new(MemoryStore::new()).with_clock(clock.clone());
    let good = issue(&keys, NewKey::secret("acme")).await;
    let brief = NewKey::secret("acme").with_lifetime(Duration::from_secs(60));
    let expired = issue(&keys, brief).await;
    clock.advance(Duration::from_secs(60));
    let client = Client::of(RealtimeAuthLayer::new(keys)).await;

    let mut first = client.connect("/v1/realtime", &[bearer(&good)]).await;
    assert_eq!(first.json().await["account"], "acme");

    let by_header = [bearer(&good), bearer(BAD), bearer(&expired), ("x-nothing", String::new())];
    let by_header = by_header.map(|header| [header]);
    let by_query = [&*good, BAD, &*expired].map(|key| format!("/v1/realtime?api_key={key}"));
    for _ in 0..5 {
        let sockets_by_header =
            by_header.iter().map(|headers| client.connect("/v1/realtime", headers));
        let sockets_by_query = by_query.iter().map(|path| client.connect(path, &[]));
        let plain = by_header.iter().map(|headers| client.get("/whoami", headers));
        let (sockets_by_header, sockets_by_query, plain) =
            tokio::join!(join_all(sockets_by_header), join_all(sockets_by_query), join_all(plain));

        let statuses = |streams: &[Stream]| streams.iter().map(Stream::status).collect::<Vec<_>>();
        use StatusCode as S;
        let judged = [S::OK, S::UNAUTHORIZED, S::UNAUTHORIZED, S::UNAUTHORIZED];
        assert_eq!(statuses(&sockets_by_header), judged);
        assert_eq!(statuses(&plain), judged);
        assert_eq!(statuses(&sockets_by_query), [S::OK, S::OK, S::OK]);
        let mut told = Vec::new();
        for mut stream in sockets_by_query {
            told.push(stream.json().await);
        }
        assert_eq!(told[0]["account"], "acme");
        assert_eq!(told[1]["error"]["code"], "invalid_api_key");
        assert_eq!(told[2]["error"]["code"], "invalid_api_key");
    }

    first.text("still here");
    assert_eq!(first.frame().await, (TEXT, b"still here".to_vec()));
}

#[tokio::test]
async fn refused_by_a_code() {
    let (keys, _) = keys().await;
    let runtime = CountingRuntime::default();
    let layer = RealtimeAuthLayer::new_with_runtime(keys, runtime.clone()).with_closing(patient());
    let client = Client::of(layer.clone()).await;
    let offers = |offers: String| vec![("sec-websocket-protocol", offers)];
    let xai = format!("xai-client-secret.{BAD}");
    let cases = [
        (offers(format!("realtime, openai-insecure-api-key.{BAD}")), "", Some("realtime")),
        (offers(xai.clone()), "", Some(&*xai)),
        (vec![], "?api_key=sk_test_bad", None),
        (vec![("origin", "https://app.example".to_owned())], "", None),
    ];
    for (headers, query, answered) in cases {
        let mut stream = client.connect(&format!("/v1/realtime{query}"), &headers).await;
        assert_eq!(stream.status(), StatusCode::OK, "{headers:?} {query}");
        assert_no_forbidden(stream.headers());
        assert_eq!(stream.header("sec-websocket-protocol"), answered);
        assert_eq!(stream.json().await["type"], "error");
        let (opcode, payload) = stream.frame().await;
        assert_eq!((opcode, &payload[..2]), (CLOSE, &4001_u16.to_be_bytes()[..]));
        assert!(payload[2..].starts_with(b"Unauthorized: "), "{payload:?}");

        assert_eq!(layer.lingering(), 1, "it waits for our Close");
        stream.close(4001);
        assert_eq!(stream.end().await, End::Stream);
        gone(&runtime, &layer).await;
    }
}

#[tokio::test]
async fn refused_by_a_status() {
    let (keys, key) = keys().await;
    let layer = RealtimeAuthLayer::new(keys);
    let client = Client::of(layer.clone()).await;
    let mut lives_on = client.connect("/v1/realtime", &[bearer(&key)]).await;
    lives_on.json().await;

    for headers in [vec![bearer(BAD)], vec![]] {
        let mut stream = client.connect("/v1/realtime", &headers).await;
        assert_eq!(stream.status(), StatusCode::UNAUTHORIZED);
        assert_no_forbidden(stream.headers());
        assert!(stream.header("www-authenticate").is_some());
        let body = stream.body().await;
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(layer.lingering(), 0);

        lives_on.text("still here");
        assert_eq!(lives_on.frame().await, (TEXT, b"still here".to_vec()));
    }

    // What HTTP/2 forbids, hyper takes out on the way. Not even before that is it there.
    let request = extended_connect("/v1/realtime")
        .version(Version::HTTP_2)
        .header("sec-websocket-version", "13")
        .body(Body::empty())
        .expect("a request");
    let response = layer.layer(router()).oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_no_forbidden(response.headers());
}

/// A WebSocket over HTTP/2 is no GET, so that the router's answer to a route for GET alone stands.
#[tokio::test]
async fn a_route_for_get_answers_405() {
    let (keys, key) = keys().await;
    let client = Client::of(RealtimeAuthLayer::new(keys)).await;
    let offers = format!("realtime, openai-insecure-api-key.{key}");
    for headers in [bearer(&key), ("sec-websocket-protocol", offers)] {
        let stream = client.connect("/get", &[headers]).await;
        assert_eq!(stream.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(stream.header("allow"), Some("GET,HEAD"));
        assert_eq!(stream.header("sec-websocket-protocol"), None);
    }
}

/// A tunnel to somewhere (RFC 9110 §9.3.6) is nothing that a key for a realtime API can open.
#[tokio::test]
async fn a_connect_without_protocol_is_refused() {
    let (keys, key) = keys().await;
    let layer = RealtimeAuthLayer::new(keys);
    let client = Client::of(layer.clone()).await;
    for (headers, expected) in [
        (vec![bearer(&key)], StatusCode::UPGRADE_REQUIRED),
        (vec![bearer(BAD)], StatusCode::UNAUTHORIZED),
        (vec![("origin", "https://app.example".to_owned())], StatusCode::UNAUTHORIZED),
        (vec![], StatusCode::UNAUTHORIZED),
    ] {
        let tunnel = request::Builder::new().method(Method::CONNECT).uri("elsewhere.example:443");
        let stream = client.send(with_headers(tunnel, &headers), false).await;
        assert_eq!(stream.status(), expected);
        assert_no_forbidden(stream.headers());
        assert_eq!(layer.lingering(), 0);
    }
    let version_8 = extended_connect("/v1/realtime")
        .header("authorization", format!("Bearer {key}"))
        .header("sec-websocket-version", "8");
    let stream = client.send(version_8, false).await;
    assert_eq!(stream.status(), StatusCode::UPGRADE_REQUIRED);
}

#[tokio::test]
async fn silent_peers_are_left_at_the_deadline() {
    const DEADLINE: Duration = Duration::from_millis(500);
    let (keys, key) = keys().await;
    let runtime = CountingRuntime::default();
    let layer = RealtimeAuthLayer::new_with_runtime(keys, runtime.clone())
        .with_closing(Closing::default().with_deadline(DEADLINE));
    let client = Client::of(layer.clone()).await;
    let began = Instant::now();
    let mut silent = join_all((0..100).map(|_| client.connect(BAD_QUERY, &[]))).await;
    for stream in &mut silent {
        assert_eq!(stream.json().await["type"], "error");
        assert_eq!(stream.frame().await.0, CLOSE);
        stream.end().await;
    }
    gone(&runtime, &layer).await;
    assert!(began.elapsed() >= DEADLINE);

    let mut stream = client.connect("/v1/realtime", &[bearer(&key)]).await;
    assert_eq!(stream.json().await["account"], "acme");
}

/// They are let go at once, however they leave.
#[tokio::test]
async fn peers_that_leave_without_a_close_keep_nothing() {
    let (keys, key) = keys().await;
    let closing = patient().with_max_drained(16 * 1024);
    let runtime = CountingRuntime::default();
    let layer = RealtimeAuthLayer::new_with_runtime(keys, runtime.clone()).with_closing(closing);
    let client = Client::of(layer.clone()).await;
    type Leave = fn(&mut Stream);
    let leaving: [(&str, Leave); 4] = [
        ("by a reset", |stream| stream.send.send_reset(Reason::CANCEL)),
        ("by END_STREAM", |stream| stream.write(Bytes::new(), true)),
        ("by a frame that is not masked", |stream| {
            stream.write(Bytes::from_static(b"\x81\x05hello"), false);
        }),
        ("by more frames than anybody reads", |stream| {
            stream.write(masked(TEXT, &[0; 60_000]).into(), false);
        }),
    ];
    for (how, leave) in leaving {
        println!("{how}");
        let mut stream = client.connect(BAD_QUERY, &[]).await;
        leave(&mut stream);
        gone(&runtime, &layer).await;
    }

    let other = client.another().await;
    let streams = join_all((0..100).map(|_| other.connect(BAD_QUERY, &[]))).await;
    assert_eq!(layer.lingering(), 100);
    // The connection ends, and with it all that it carries.
    drop((streams, other));
    gone(&runtime, &layer).await;

    let mut stream = client.connect("/v1/realtime", &[bearer(&key)]).await;
    assert_eq!(stream.json().await["account"], "acme");
}

/// Clients that do not wait for the answer: everything that was begun for them is dropped.
#[tokio::test]
async fn a_thousand_streams_reset_during_the_lookup() {
    const AT_ONCE: usize = 100;
    let (keys, key) = keys().await;
    let lookups = Arc::new(Lookups::default());
    let store = Slow { keys, lookups: Arc::clone(&lookups) };
    let calls = Arc::new(AtomicUsize::new(0));
    let layer = RealtimeAuthLayer::new(store).with_lookup_deadline(SOON * 10);
    let api = router().layer(axum::middleware::map_request({
        let calls = Arc::clone(&calls);
        move |request: Request| {
            calls.fetch_add(1, Ordering::SeqCst);
            async { request }
        }
    }));
    let client = Client::new(serve(layer.layer(api)).await).await;

    let offers = format!("realtime, openai-insecure-api-key.{BAD}");
    for batch in 1..=10 {
        let streams: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let request = extended_connect("/v1/realtime")
                    .header("sec-websocket-version", "13")
                    .header("sec-websocket-protocol", &offers);
                client.begin(request, false)
            })
            .collect();
        lookups.begun.reach(batch * AT_ONCE).await;
        assert_eq!(lookups.dropped.now(), (batch - 1) * AT_ONCE);
        for (_answer, mut send) in streams {
            send.send_reset(Reason::CANCEL);
        }
        lookups.dropped.reach(batch * AT_ONCE).await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(layer.lingering(), 0);

    let mut stream = client.connect("/v1/realtime", &[bearer(&key)]).await;
    assert_eq!(stream.json().await["account"], "acme");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// Answers for the keys that there are, and never for others.
struct Slow {
    keys: Keys<MemoryStore>,
    lookups: Arc<Lookups>,
}

#[derive(Default)]
struct Lookups {
    begun: Count,
    dropped: Count,
}

/// A count that can be waited for.
#[derive(Default)]
struct Count(watch::Sender<usize>);

impl Count {
    fn add(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    fn now(&self) -> usize {
        *self.0.borrow()
    }

    async fn reach(&self, expected: usize) {
        let mut counts = self.0.subscribe();
        let reached = counts.wait_for(|count| *count >= expected);
        let reached = timeout(SOON, reached).await.expect("in time").expect("a count");
        assert_eq!(*reached, expected);
    }
}

impl KeyStore for Slow {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        struct Dropped(Arc<Lookups>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.dropped.add();
            }
        }
        match self.keys.store().lookup(digest).try_now() {
            Ok(Ok(None)) => {}
            Ok(answer) => return Answer::ready(answer),
            Err(pending) => return pending,
        }
        self.lookups.begun.add();
        let dropped = Dropped(Arc::clone(&self.lookups));
        Answer::pending(async move {
            let _dropped = dropped;
            std::future::pending().await
        })
    }
}

// The server: axum, as it serves by default.

async fn issue(keys: &Keys<MemoryStore>, new: NewKey) -> String {
    keys.issue(new).await.expect("a key").key().expose().to_owned()
}

fn router() -> Router {
    Router::new()
        .route("/v1/realtime", any(realtime))
        .route("/get", get(realtime))
        .route("/whoami", get(async |principal: Principal| principal.account().to_owned()))
}

/// Says first what it sees of the request, then all that it is sent.
async fn realtime(
    principal: Principal,
    uri: Uri,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let headers: HashMap<_, _> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let seen = json!({
        "uri": uri.to_string(), "headers": headers, "account": principal.account(),
    });
    upgrade.on_upgrade(async move |mut socket| {
        let _ = socket.send(Message::text(seen.to_string())).await;
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Text(_)) && socket.send(message).await.is_err() {
                break;
            }
        }
    })
}

/// Serves on a free port until the test ends.
async fn serve<S>(service: S) -> SocketAddr
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, service.into_make_service()).await });
    address
}

/// Waits for peers longer than any test does.
fn patient() -> Closing {
    Closing::default().with_deadline(SOON * 10)
}

/// Waits until no refused handshake waits for its peer.
async fn gone<S>(runtime: &CountingRuntime, layer: &RealtimeAuthLayer<S>) {
    runtime.idle().await;
    assert_eq!(layer.lingering(), 0);
}

// The client: one connection of many streams.

impl Client {
    /// To a server of its own behind `layer`.
    async fn of(layer: RealtimeAuthLayer<MemoryStore>) -> Self {
        Self::new(serve(layer.layer(router())).await).await
    }
}

fn bearer(key: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {key}"))
}

fn assert_no_forbidden(headers: &HeaderMap) {
    for name in FORBIDDEN {
        assert!(!headers.contains_key(name), "{name}: {headers:?}");
    }
}
