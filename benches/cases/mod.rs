//! What is measured: handshakes as servers hand them on, and the services that answer them.
//!
//! Time, instructions and allocations are counted by three programs over the same cases.
#![allow(dead_code, reason = "each program uses its part")]

pub mod limits;

use std::{
    convert::Infallible,
    future::{Future, Ready, pending, poll_fn, ready},
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tower::{Layer, Service};
use tower_realtime_auth::{
    Answer, FromBytes, Inserted, KeyAdmin, KeyDigest, KeyId, KeyKind, KeyRecord, KeyStore, Keys,
    Lookup, MemoryStore, NewKey, RealtimeAuth, RealtimeAuthLayer, Runtime, Stamp, UnixMillis,
    bytes::Bytes,
    http::{
        HeaderValue, Request, Response, StatusCode,
        header::{self, HeaderName},
    },
};

/// How many keys the store holds.
const KEYS: usize = 1_000;

/// The headers of Chrome's handshake, ten with the credential's.
const HEADERS: [(HeaderName, &str); 9] = [
    (header::HOST, "api.example.com"),
    (header::CONNECTION, "Upgrade"),
    (header::UPGRADE, "websocket"),
    (header::SEC_WEBSOCKET_VERSION, "13"),
    (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
    (header::SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate; client_max_window_bits"),
    (header::ORIGIN, "https://app.example.com"),
    (header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0"),
    (header::ACCEPT_LANGUAGE, "en-GB,en;q=0.9"),
];

/// Where a handshake carries its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// `Authorization: Bearer KEY`.
    Header,
    /// `?model=MODEL&api_key=KEY`.
    Query,
    /// `realtime, openai-insecure-api-key.KEY`: Swaram's browser clients.
    Subprotocol,
    /// The same with a third entry, which stays: OpenAI's browser clients.
    OtherOffers,
    /// `xai-client-secret.KEY` and nothing else: xAI's browser clients.
    LoneEntry,
    /// A header with a key that nobody has.
    Unknown,
}

impl Case {
    /// The cases whose time and instructions are measured.
    pub const MEASURED: [Self; 5] =
        [Self::Header, Self::Query, Self::Subprotocol, Self::LoneEntry, Self::Unknown];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Query => "query",
            Self::Subprotocol => "subprotocol",
            Self::OtherOffers => "other-offers",
            Self::LoneEntry => "lone-entry",
            Self::Unknown => "unknown",
        }
    }

    /// The handshake, with something in its extensions as hyper leaves its `OnUpgrade` there.
    pub fn request(self, key: &str) -> Request<()> {
        let mut request = Request::new(());
        request.extensions_mut().insert(Arc::new(()));
        let model = "/v1/realtime?model=gpt-realtime";
        let uri = match self {
            Self::Query => format!("{model}&api_key={key}"),
            _ => model.to_owned(),
        };
        *request.uri_mut() = uri.parse().expect("a URI");
        let carrier = match self {
            Self::Header => (header::AUTHORIZATION, format!("Bearer {key}")),
            // Valid in form and checksum, so that nothing is spared.
            Self::Unknown => (header::AUTHORIZATION, format!("Bearer {}", unknown_key())),
            Self::Query => (header::CACHE_CONTROL, "no-cache".to_owned()),
            Self::Subprotocol => {
                (header::SEC_WEBSOCKET_PROTOCOL, format!("realtime, openai-insecure-api-key.{key}"))
            }
            Self::OtherOffers => (
                header::SEC_WEBSOCKET_PROTOCOL,
                format!("realtime, openai-insecure-api-key.{key}, openai-beta.realtime-v1"),
            ),
            Self::LoneEntry => (header::SEC_WEBSOCKET_PROTOCOL, format!("xai-client-secret.{key}")),
        };
        let headers = HEADERS.map(|(name, value)| (name, value.to_owned()));
        for (name, value) in headers.into_iter().chain([carrier]) {
            // Shared bytes, as slices of what a server has read are.
            let value = HeaderValue::from_maybe_shared(Bytes::from(value)).expect("a header");
            request.headers_mut().insert(name, value);
        }
        request
    }
}

fn unknown_key() -> String {
    keys(1).1
}

/// A store with `count` keys, and the text of one of them.
fn keys(count: usize) -> (Keys<MemoryStore>, String) {
    let keys = Keys::new(MemoryStore::new());
    let issue = || {
        let issued = keys.issue(NewKey::secret("acme")).now_or_never();
        issued.expect("memory answers at once").expect("a key")
    };
    let key = issue().key().expose().to_owned();
    (1..count).for_each(|_| drop(issue()));
    (keys, key)
}

/// The service behind the layer: it completes the handshake.
#[derive(Clone)]
pub struct Bare;

impl Service<Request<()>> for Bare {
    type Response = Response<Bytes>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Bytes>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        drop(black_box(request));
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        ready(Ok(response))
    }
}

/// The record of the key with this number.
pub fn record(number: u64) -> KeyRecord {
    let id = KeyId::new(format!("key_{number:020}"));
    KeyRecord::new(id, digest(number), "acme", KeyKind::Secret, stamp().at())
}

/// Its digest: bytes without order, as those of SHA-256 are.
pub fn digest(number: u64) -> KeyDigest {
    let mut bytes = [0; 32];
    for (word, chunk) in (0..).zip(bytes.as_chunks_mut::<8>().0) {
        *chunk = mixed(number.wrapping_mul(4).wrapping_add(word)).to_ne_bytes();
    }
    KeyDigest::from_bytes(bytes)
}

pub const fn stamp() -> Stamp {
    Stamp::new(UnixMillis::new(0))
}

/// A store in memory with the first `size` records.
pub fn filled(size: u64) -> MemoryStore {
    let store = MemoryStore::new();
    for number in 0..size {
        let inserted = store.insert(record(number), None, &stamp()).now_or_never();
        assert_eq!(inserted.expect("at once").expect("an answer"), Inserted::Yes);
    }
    store
}

/// Numbers without order, the same in each run.
#[derive(Default)]
pub struct Numbers(u64);

impl Numbers {
    pub const fn below(&mut self, end: u64) -> u64 {
        self.0 += 1;
        mixed(self.0) % end
    }
}

/// SplitMix64.
const fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The layer with its defaults round [`Bare`], and a key that it accepts.
pub fn layered() -> (RealtimeAuth<Bare, MemoryStore>, String) {
    let (keys, key) = keys(KEYS);
    (layer(keys).layer(Bare), key)
}

/// The same with a store that has to wait once for each answer.
pub fn pending_store() -> (RealtimeAuth<Bare, Later>, String) {
    let (keys, key) = keys(KEYS);
    (layer(Later(keys)).layer(Bare), key)
}

pub fn layer<S: KeyStore>(keys: impl Into<Keys<S>>) -> RealtimeAuthLayer<S, FromBytes> {
    RealtimeAuthLayer::new_with_runtime(keys, NoRuntime)
}

/// Answers what the keys in memory answer, when it is asked a second time.
pub struct Later(Keys<MemoryStore>);

impl KeyStore for Later {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        let mut answer = Some(self.0.store().lookup(digest));
        let mut waited = false;
        Answer::pending(async move {
            poll_fn(|_| {
                if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            answer.take().expect("polled once").await
        })
    }
}

/// A runtime whose timer costs nothing, so that it is not measured.
struct NoRuntime;

impl Runtime for NoRuntime {
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(pending())
    }

    fn spawn(&self, _: BoxFuture<'static, ()>) {}
}

/// Has `service` answer `request`, as often as that needs polling.
pub fn answer<S>(service: &mut S, request: Request<()>) -> Response<Bytes>
where
    S: Service<Request<()>, Response = Response<Bytes>, Error = Infallible>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut future = pin!(service.call(request));
    loop {
        if let Poll::Ready(Ok(response)) = future.as_mut().poll(&mut cx) {
            return response;
        }
    }
}
