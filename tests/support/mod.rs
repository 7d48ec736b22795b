//! What several tests need: keys, a server on a free port, raw requests, a runtime that counts.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod http2;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tower::Service;
use tower_realtime_auth::{
    CredentialSource, KeyDigest, KeyStore, Keys, Lookup, MemoryStore, NewKey, Principal, Runtime,
    TokioRuntime,
    bytes::Bytes,
    http::{HeaderValue, Request, Response, StatusCode},
};

/// The body type of the hyper servers here.
pub type Body = Full<Bytes>;

/// A deadline for what should take milliseconds: long enough for a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// Keys in memory, with one secret key for the account `acme`.
pub async fn keys_with_secret() -> (Keys<MemoryStore>, String) {
    let keys = Keys::new(MemoryStore::new());
    let issued = keys.issue(NewKey::secret("acme")).await.expect("a key");
    let secret = issued.key().expose().to_owned();
    (keys, secret)
}

/// Serves `service` over HTTP/1.1 and HTTP/2 on a free port until the test ends.
pub async fn serve<S>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let mut builder = auto::Builder::new(TokioExecutor::new());
                builder.http2().enable_connect_protocol();
                // A client that leaves is no failure of the server.
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// The lines of a WebSocket handshake over HTTP/1.1, with `extra` headers.
pub fn handshake(path_and_query: &str, extra: &[(&str, &str)]) -> String {
    let mut text = format!(
        "GET {path_and_query} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    for (name, value) in extra {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text
}

/// The `Sec-WebSocket-Accept` of [`handshake`]'s key (the sample of RFC 6455 §1.3).
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One raw connection: bytes out, response head and frames in.
pub struct Raw {
    pub stream: TcpStream,
    read: Vec<u8>,
}

/// The head of a response, with names in lower case.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// All values of one header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(other, _)| other == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        Self { stream, read: Vec::new() }
    }

    /// Sends a request's bytes and reads the head of the answer.
    pub async fn send(address: SocketAddr, request: &[u8]) -> (Self, Head) {
        let mut raw = Self::connect(address).await;
        raw.stream.write_all(request).await.expect("written");
        let head = raw.head().await;
        (raw, head)
    }

    pub async fn head(&mut self) -> Head {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            assert!(self.more().await, "the connection ended within a head");
        };
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("a head of text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Head { status: status.parse().expect("a number"), headers: headers.collect() }
    }

    /// Reads one unmasked frame: its first byte and its payload. `None` at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        while self.read.len() < 2 {
            if !self.more().await {
                return None;
            }
        }
        let (header, len) = match self.read[1] {
            126 => {
                self.at_least(4).await;
                (4, u16::from_be_bytes([self.read[2], self.read[3]]).into())
            }
            len => (2, usize::from(len)),
        };
        self.at_least(header + len).await;
        let frame: Vec<u8> = self.read.drain(..header + len).collect();
        Some((frame[0], frame[header..].to_vec()))
    }

    /// Reads to the end of the connection; what came.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    async fn at_least(&mut self, len: usize) {
        while self.read.len() < len {
            assert!(self.more().await, "the connection ended within a frame");
        }
    }

    /// Reads more; false at the end, be it orderly or a reset.
    async fn more(&mut self) -> bool {
        let mut room = [0; 4096];
        let reading = tokio::time::timeout(SOON, self.stream.read(&mut room));
        let len = reading.await.expect("an answer in time").unwrap_or(0);
        self.read.extend_from_slice(&room[..len]);
        len > 0
    }
}

/// A masked client frame.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The tokio runtime, counting the tasks that the crate spawned and that have not ended.
#[derive(Clone, Default)]
pub struct CountingRuntime(Arc<Counts>);

#[derive(Default)]
struct Counts {
    spawned: AtomicUsize,
    running: AtomicUsize,
    ended: Notify,
}

impl CountingRuntime {
    /// How many tasks were spawned so far.
    pub fn spawned(&self) -> usize {
        self.0.spawned.load(Ordering::SeqCst)
    }

    /// How many of them run.
    pub fn running(&self) -> usize {
        self.0.running.load(Ordering::SeqCst)
    }

    /// Waits until none runs.
    pub async fn idle(&self) {
        self.at_most(0).await;
    }

    /// Waits until no more than `tasks` run.
    pub async fn at_most(&self, tasks: usize) {
        loop {
            let ended = self.0.ended.notified();
            if self.running() <= tasks {
                return;
            }
            tokio::time::timeout(SOON, ended).await.expect("tasks end");
        }
    }
}

impl Runtime for CountingRuntime {
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        TokioRuntime.sleep(duration)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        struct Ended(Arc<Counts>);
        impl Drop for Ended {
            fn drop(&mut self) {
                self.0.running.fetch_sub(1, Ordering::SeqCst);
                self.0.ended.notify_waiters();
            }
        }
        self.0.spawned.fetch_add(1, Ordering::SeqCst);
        self.0.running.fetch_add(1, Ordering::SeqCst);
        let ended = Ended(Arc::clone(&self.0));
        TokioRuntime.spawn(Box::pin(async move {
            // Dropped after the task, whose own counters have returned by then.
            let _ended = ended;
            task.await;
        }));
    }
}

/// A store whose answers a function makes.
pub struct StoreFn<F>(pub F);

impl<F> KeyStore for StoreFn<F>
where
    F: Fn(&KeyDigest) -> Lookup + Send + Sync + 'static,
{
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        (self.0)(digest)
    }
}

/// The places of a credential, in the order in which they are looked at.
pub const PLACES: [CredentialSource; 3] =
    [CredentialSource::Header, CredentialSource::Query, CredentialSource::Subprotocol];

/// A plain request that carries `key` in one place. (As a subprotocol it counts for nothing.)
pub fn plain_with(place: CredentialSource, key: &str) -> Request<()> {
    let (path_and_query, header) = carrying(place, key);
    let builder = header
        .into_iter()
        .fold(Request::get(path_and_query), |builder, (name, value)| builder.header(name, value));
    builder.body(()).expect("a request")
}

/// A WebSocket handshake that carries `key` in one place.
pub fn upgrade_with(place: CredentialSource, key: &str) -> Request<()> {
    upgraded(plain_with(place, key))
}

/// The same request as a WebSocket handshake over HTTP/1.1.
pub fn upgraded(mut request: Request<()>) -> Request<()> {
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    request
}

/// The lines of a WebSocket handshake that carries `key` in one place.
pub fn handshake_with(place: CredentialSource, key: &str) -> String {
    let (path_and_query, header) = carrying(place, key);
    let header: Vec<_> = header.iter().map(|(name, value)| (*name, value.as_str())).collect();
    handshake(&path_and_query, &header)
}

/// The path and the header by which a request carries `key` in one place.
fn carrying(place: CredentialSource, key: &str) -> (String, Option<(&'static str, String)>) {
    let path = "/v1/realtime".to_owned();
    match place {
        CredentialSource::Header => (path, Some(("authorization", format!("Bearer {key}")))),
        CredentialSource::Query => (format!("{path}?api_key={key}"), None),
        CredentialSource::Subprotocol => {
            let offers = format!("realtime, openai-insecure-api-key.{key}");
            (path, Some(("sec-websocket-protocol", offers)))
        }
        other => panic!("no such place: {other}"),
    }
}

/// A service to put behind the layer: counts its calls, completes handshakes, answers everything
/// else with 200, and puts the [`Principal`] that it got into the extensions of its response.
#[derive(Debug, Clone, Default)]
pub struct Inner(Arc<AtomicUsize>);

impl Inner {
    /// How often it was called.
    pub fn calls(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl<B> Service<Request<B>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.0.fetch_add(1, Ordering::SeqCst);
        let mut response = Response::new(Body::default());
        if request.headers().contains_key("upgrade") {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
        }
        if let Some(principal) = request.extensions().get::<Principal>() {
            // No session follows.
            principal.waive_guard();
            response.extensions_mut().insert(principal.clone());
        }
        ready(Ok(response))
    }
}

/// The JSON in a response.
pub async fn json<B>(response: Response<B>) -> serde_json::Value
where
    B: hyper::body::Body,
    B::Error: std::fmt::Debug,
{
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}
