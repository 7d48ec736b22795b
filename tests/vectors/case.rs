//! What all vectors share: a request in short form, and a layer whose every side can be watched.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tower::{Layer, Service};
use tower_realtime_auth::{
    ApiKey, Closing, Conflicts, Grants, KeyStore, Keys, MemoryStore, NewKey, Principal,
    RealtimeAuth, RealtimeAuthLayer,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
    },
};

use crate::support::{self, Body, CountingRuntime, StoreFn};

pub(crate) const PATH: &str = "/v1/realtime";
pub(crate) const HTTP2_ORIGIN: &str = "https://h:1";

/// The keys that the store knows, besides SMALL, which grants the model `small` alone, and one of
/// 4096 times `k`. It does not know BAD.
const KEYS: [&str; 4] = ["GOOD", "GOOD==", "a.b-c_~1", "a+b"];

/// One request of a table, and how the inner service answers it.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) vector: u8,
    method: &'a str,
    target: &'a str,
    /// One a line: see [`spelled_out`].
    headers: &'a str,
    pub(crate) is_handshake: bool,
    conflicts: Conflicts,
    pub(crate) inner_status: u16,
    pub(crate) inner_selects: Option<&'static str>,
}

/// A WebSocket handshake over HTTP/1.1 with these headers besides its own.
pub(crate) fn handshake(vector: u8, headers: &str) -> Case<'_> {
    Case {
        vector,
        method: "GET",
        target: PATH,
        headers,
        is_handshake: true,
        conflicts: Conflicts::FirstPresent,
        inner_status: 101,
        inner_selects: None,
    }
}

/// A request that wants no other protocol.
pub(crate) fn plain<'a>(vector: u8, method: &'a str, headers: &'a str) -> Case<'a> {
    Case { method, is_handshake: false, inner_status: 200, ..handshake(vector, headers) }
}

impl<'a> Case<'a> {
    pub(crate) fn at(self, target: &'a str) -> Self {
        Self { target, ..self }
    }

    pub(crate) fn under(self, conflicts: Conflicts) -> Self {
        Self { conflicts, ..self }
    }

    pub(crate) fn inner_selects(self, protocol: &'static str) -> Self {
        Self { inner_selects: Some(protocol), ..self }
    }

    pub(crate) fn inner_answers(self, status: u16) -> Self {
        Self { inner_status: status, ..self }
    }

    /// The request as it is handed to the layer by something that cannot upgrade.
    pub(crate) fn request(self) -> Request<()> {
        let mut request =
            Request::builder().method(self.method).uri(self.target).body(()).expect("a request");
        let headers = spelled_out(self.headers);
        if self.is_handshake {
            request = support::upgraded(request);
        }
        for line in headers.lines() {
            let (name, value) = line.split_once(": ").expect("a header");
            let name: HeaderName = name.parse().expect("a name");
            let value = HeaderValue::from_bytes(&latin1(value)).expect("a value");
            request.headers_mut().append(name, value);
        }
        request
    }

    /// The same handshake over HTTP/2 (RFC 8441 §5), if it is one.
    pub(crate) fn request_over_http2(self) -> Option<Request<()>> {
        let mut request = Some(self.request()).filter(|_| self.is_handshake)?;
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = format!("{HTTP2_ORIGIN}{}", self.target).parse().expect("a URI");
        request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
        for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_KEY] {
            request.headers_mut().remove(name);
        }
        Some(request)
    }

    /// The request as it comes over a connection.
    pub(crate) fn wire(self) -> Vec<u8> {
        let head = if self.is_handshake {
            support::handshake(self.target, &[])
        } else {
            format!("{} {} HTTP/1.1\r\nHost: test\r\n\r\n", self.method, self.target)
        };
        let mut wire = head.strip_suffix("\r\n").expect("an empty line").to_owned();
        for line in spelled_out(self.headers).lines() {
            wire.push_str(line);
            wire.push_str("\r\n");
        }
        wire.push_str("\r\n");
        latin1(&wire)
    }
}

/// The headers that a table's short form stands for.
pub(crate) fn spelled_out(short: &str) -> String {
    let lines = short.lines().map(|line| {
        let (name, value) = line.split_once(": ").expect("a header");
        let name = match name {
            "P" => "Sec-WebSocket-Protocol",
            "A" => "Authorization",
            "O" => "Origin",
            other => other,
        };
        let value = value
            .replace("OPENAI.", "openai-insecure-api-key.")
            .replace("XAI.", "xai-client-secret.");
        format!("{name}: {value}\n")
    });
    lines.collect()
}

/// One byte a letter, so that a table can hold any byte.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|letter| u8::try_from(letter).expect("a byte")).collect()
}

/// The lines of one header as a table writes them.
pub(crate) fn lines(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter();
    let text = values.map(|value| value.as_bytes().iter().copied().map(char::from).collect());
    text.map(|text: String| {
        text.replace("openai-insecure-api-key.", "OPENAI.").replace("xai-client-secret.", "XAI.")
    })
    .collect()
}

/// Says which vector failed, whatever it is that fails.
pub(crate) struct Named(String);

impl Named {
    pub(crate) fn of(case: Case<'_>) -> Self {
        let Case { vector, method, target, headers, conflicts, .. } = case;
        let short: String = format!("{method} {target} {headers:?}").chars().take(200).collect();
        Self(format!("{vector}: {short} {conflicts:?}"))
    }

    pub(crate) fn vector(vector: u8) -> Self {
        Self(vector.to_string())
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: vector {}", self.0);
        }
    }
}

/// What the inner service saw of a request.
pub(crate) struct Seen {
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) principal: Principal,
    pub(crate) debug: String,
}

/// A service to put behind the layer: notes what it sees and answers as it is told.
#[derive(Clone)]
pub(crate) struct Inner {
    seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) status: StatusCode,
    pub(crate) upgrade: Option<HeaderValue>,
    pub(crate) protocol: Option<HeaderValue>,
}

impl<B> Service<Request<B>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, _) = request.into_parts();
        let principal = parts.extensions.get::<Principal>().expect("a principal").clone();
        self.seen.lock().expect("no panic").push(Seen {
            target: parts.uri.to_string(),
            // The id is random: it may happen to spell a key of the tables.
            debug: format!("{parts:?} {principal:?}").replace(principal.key_id().as_str(), "ID"),
            principal,
            headers: parts.headers,
        });
        let mut response = Response::new(Body::default());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.extend(self.upgrade.clone().map(|value| (header::UPGRADE, value)));
        headers.extend(self.protocol.clone().map(|value| (header::SEC_WEBSOCKET_PROTOCOL, value)));
        ready(Ok(response))
    }
}

/// The layer on a store and a runtime that count, and the service behind it.
pub(crate) struct Setup {
    pub(crate) layer: RealtimeAuthLayer<Arc<dyn KeyStore>>,
    pub(crate) runtime: CountingRuntime,
    pub(crate) inner: Inner,
    lookups: Arc<AtomicUsize>,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let keys = Keys::new(Arc::clone(&store));
        let small = NewKey::secret("acme").with_grants(Grants::default().with_models(["small"]));
        let mut known = vec![("SMALL", small)];
        let long = "k".repeat(4096);
        known.extend(KEYS.iter().chain([&&*long]).map(|key| (*key, NewKey::secret("acme"))));
        for (key, new) in known {
            keys.import(&ApiKey::new(key).expect("a key"), new).await.expect("imported");
        }

        let lookups = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&lookups);
        let counting: Arc<dyn KeyStore> = Arc::new(StoreFn(move |digest: &_| {
            counted.fetch_add(1, Ordering::SeqCst);
            store.lookup(digest)
        }));
        let runtime = CountingRuntime::default();
        let layer = RealtimeAuthLayer::new_with_runtime(counting, runtime.clone());
        let inner = Inner {
            seen: Arc::default(),
            status: StatusCode::SWITCHING_PROTOCOLS,
            upgrade: Some(HeaderValue::from_static("websocket")),
            protocol: None,
        };
        Self { layer, runtime, inner, lookups }
    }

    pub(crate) async fn of(case: Case<'_>) -> Self {
        let mut setup = Self::new().await;
        setup.layer = setup.layer.with_conflicts(case.conflicts);
        setup.inner.status = StatusCode::from_u16(case.inner_status).expect("a status");
        setup.inner.protocol = case.inner_selects.map(HeaderValue::from_static);
        setup
    }

    pub(crate) async fn closing(closing: Closing) -> Self {
        let setup = Self::new().await;
        Self { layer: setup.layer.with_closing(closing), ..setup }
    }

    pub(crate) fn service(&self) -> RealtimeAuth<Inner, Arc<dyn KeyStore>> {
        self.layer.layer(self.inner.clone())
    }

    pub(crate) async fn serve(&self) -> SocketAddr {
        support::serve(self.service()).await
    }

    /// How often the store was asked.
    pub(crate) fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }

    /// What the inner service saw since this was last asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.inner.seen.lock().expect("no panic"))
    }

    /// Waits until every refusal has been seen to its end.
    pub(crate) async fn settled(&self) {
        self.runtime.idle().await;
        assert_eq!(self.layer.lingering(), 0);
    }
}
