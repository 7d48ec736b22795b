//! Not a byte of a key: 10,000 requests for each place that can hold one, everything written down,
//! and the canary looked for in all of it (T10).

mod support;

use std::{
    convert::Infallible,
    fmt::Write as _,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt as _;
use support::Body;
use tower::{Layer, Service, ServiceExt as _, service_fn};
use tower_realtime_auth::{
    ApiKey, CredentialSource, HeaderForm, Keys, MemoryStore, NewKey, NewToken, Principal, Profile,
    RealtimeAuthLayer, SubprotocolForm, TokenSigner,
    http::{Request, Response},
    request_span,
};
use tracing_subscriber::fmt::MakeWriter;

/// For each place.
const REQUESTS: usize = 10_000;

/// All that was written during one request.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn write(&self, what: &dyn std::fmt::Debug) {
        write!(self.0.lock().unwrap(), "{what:?} {what:#?}").unwrap();
    }

    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// A handshake that carries `key` in one place, and a header besides.
fn request(place: &str, key: &str) -> Request<()> {
    let mut request = Request::get("/v1/realtime?model=m")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let offer = "sec-websocket-protocol";
    request = match place {
        "bearer" => request.header("authorization", format!("Bearer {key}")),
        "header" => request.header("x-api-key", key),
        "query" => request.uri(format!("/v1/realtime?api_key={key}&model=m&api%5Fkey={key}")),
        "offer" => request.header(offer, format!("realtime, openai-insecure-api-key.{key}, b")),
        "lone offer" => request.header(offer, format!("xai-client-secret.{key}")),
        "pair" => request.header(offer, format!("token, {key}, realtime")),
        "malformed" => request.header("authorization", format!("Bearer {key} {key}")),
        other => panic!("{other} is no place"),
    };
    request.body(()).unwrap()
}

/// The service behind the layer: writes down what it sees, and completes the handshake.
fn inner(
    log: Log,
) -> impl Service<Request<()>, Response = Response<Body>, Error = Infallible> + Clone {
    service_fn(move |request: Request<()>| {
        log.write(&request);
        for (name, value) in request.headers() {
            // What is marked sensitive is shown here all the same.
            log.write(&(name, String::from_utf8_lossy(value.as_bytes())));
        }
        let span = request_span(&request);
        span.in_scope(|| tracing::trace!("inside"));
        let response = Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
        std::future::ready(Ok(response.body(Body::default()).unwrap()))
    })
}

/// How many of the keys stood in what was written.
fn leaks<S>(service: &S, log: &Log, place: &str, known: &[ApiKey], requests: usize) -> usize
where
    S: Service<Request<()>, Response = Response<Body>, Error = Infallible> + Clone,
{
    let mut leaks = 0;
    for number in 0..requests {
        // Every other key is unknown.
        let key = known[number / 2 % known.len()].expose();
        let key = if number % 2 == 0 { key.to_owned() } else { format!("no{number}.{key}") };
        log.take();
        let asked = service.clone().oneshot(request(place, &key));
        let mut response =
            asked.now_or_never().expect("a store in memory answers at once").unwrap();
        if place == "lone offer" {
            // The one exception: browsers insist on getting it back.
            response.headers_mut().remove("sec-websocket-protocol");
        }
        log.write(&response);
        log.write(
            &response.headers().iter().map(|(_, value)| value.as_bytes()).collect::<Vec<_>>(),
        );
        let written = log.take();
        assert!(written.contains("HTTP") || !written.is_empty(), "something is written");
        leaks += usize::from(written.contains(&key[key.len() - 12..]));
    }
    leaks
}

fn keys() -> (Keys<MemoryStore>, Vec<ApiKey>) {
    let keys = Keys::new(MemoryStore::new());
    let issue = || keys.issue(NewKey::secret("acme")).now_or_never().unwrap().unwrap();
    let known = (0..50).map(|_| issue().key().clone()).collect();
    (keys, known)
}

fn profile() -> Profile {
    let profile = Profile::default().with_subprotocols([
        SubprotocolForm::prefix("openai-insecure-api-key.").unwrap(),
        SubprotocolForm::prefix("xai-client-secret.").unwrap(),
        SubprotocolForm::after("token").unwrap(),
    ]);
    profile.with_headers([HeaderForm::bearer(), HeaderForm::key("x-api-key").unwrap()])
}

#[test]
fn no_byte_of_a_key_is_written_anywhere() {
    let (keys, known) = keys();
    nothing_is_written(keys, &known, REQUESTS);
}

/// Nor of a signed twin, as a JWT and as what is none.
#[test]
fn no_byte_of_a_twin_is_written_anywhere() {
    let (keys, known) = keys();
    let signer = TokenSigner::generate("https://a.example", "https://a.example").unwrap();
    let keys = keys.with_signer(signer);
    let parent = Principal::new(
        keys.import(&ApiKey::new("sk-own").unwrap(), NewKey::secret("acme"))
            .now_or_never()
            .unwrap()
            .unwrap(),
        CredentialSource::Header,
        keys.now(),
    );
    let mint = || keys.mint(&parent, NewToken::lasting(Duration::from_secs(600)));
    let mint = |_| mint().now_or_never().unwrap().unwrap().twin().unwrap().clone();
    let twins: Vec<_> = (0..known.len()).map(mint).collect();
    nothing_is_written(keys, &twins, REQUESTS / 10);
}

/// In that many requests for each place.
fn nothing_is_written(keys: Keys<MemoryStore>, known: &[ApiKey], requests: usize) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let told = log.clone();
    let layer = RealtimeAuthLayer::new(keys)
        .with_profile(profile())
        .on_decision(move |decision| told.write(decision));
    let service = layer.layer(inner(log.clone()));
    for place in ["bearer", "header", "query", "offer", "lone offer", "pair", "malformed"] {
        let leaks = leaks(&service, &log, place, known, requests);
        assert_eq!(leaks, 0, "of {requests} requests with a key as {place}");
    }
    log.write(&layer);
    let written = log.take();
    for key in known {
        assert!(
            !written.contains(&key.expose()[key.expose().len() - 12..]),
            "the layer shows a key"
        );
    }
}

/// The same without the layer: what is looked for would be found.
#[test]
fn the_canaries_sing_where_there_is_no_layer() {
    let (_, known) = keys();
    let log = Log::default();
    for place in ["bearer", "header", "query", "offer", "pair", "malformed"] {
        assert_eq!(leaks(&inner(log.clone()), &log, place, &known, 100), 100, "{place}");
    }
}

/// A key that is marked as such shows nothing of itself.
#[test]
fn sources_have_names_and_keys_have_none() {
    assert_eq!(CredentialSource::Subprotocol.to_string(), "subprotocol");
    let key = ApiKey::new("sk_test_canary").unwrap();
    assert!(!format!("{key:?} {key:#?}").contains("canary"));
}
