//! What an operator reads: one event for each decision, who and why, and never a byte of a key.

mod support;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::{self, Debug},
    sync::{Arc, Mutex, Once},
};

use futures_util::{SinkExt as _, StreamExt as _, future::poll_immediate};
use http_body_util::{BodyExt, Full};
use support::{Inner, PLACES, Raw, StoreFn, handshake, plain_with, serve, upgrade_with, upgraded};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};
use tower::{Layer, Service, ServiceExt};
use tower_realtime_auth::{
    Answer, ApiKey, ClientSecrets, Conflicts, CredentialSource, Grants, GuardedSocket, Issued,
    KeyDigest, KeyKind, KeyRecord, KeyStore, Keys, ManualClock, MemoryStore, NewKey, NewToken,
    Principal, RealtimeAuthLayer, Rejection, SessionGuard, Settings, StoreError, UnixMillis,
    bytes::Bytes,
    http::{HeaderValue, Request},
};
use tracing::{
    Level, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{layer::Context, prelude::*};

/// Keeps everything that is traced, at every level and by every crate, for the thread it came from.
///
/// It is the subscriber of the whole process, and not one for each test: `tracing` remembers which
/// events somebody listens to, and may remember wrongly while such subscribers come and go.
struct Recorder;

thread_local! {
    static RECORDED: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Clone)]
struct Event {
    target: String,
    level: Level,
    fields: Fields,
}

type Fields = BTreeMap<&'static str, String>;

struct Visitor<'a>(&'a mut Fields);

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        // As subscribers print it, with what is behind it.
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            text += &format!(": {error}");
            source = error.source();
        }
        self.0.insert(field.name(), text);
    }
}

/// To be called first by each test here.
fn record_events() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Recorder);
        tracing::subscriber::set_global_default(subscriber).expect("the only one");
    });
}

/// What was recorded on this thread since the last time.
fn take_events() -> Vec<Event> {
    RECORDED.take()
}

fn record(metadata: &tracing::Metadata<'_>, record: impl FnOnce(&mut Visitor<'_>)) {
    let mut fields = Fields::new();
    record(&mut Visitor(&mut fields));
    let (target, level) = (metadata.target().to_owned(), *metadata.level());
    RECORDED.with_borrow_mut(|events| events.push(Event { target, level, fields }));
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Recorder {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        record(event.metadata(), |visitor| event.record(visitor));
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        record(attributes.metadata(), |visitor| attributes.record(visitor));
    }
}

/// The only decision among `events`: its level and its fields.
fn decision(events: &[Event]) -> (Level, &Fields) {
    let decisions: Vec<_> = events
        .iter()
        .filter(|event| event.target == "tower_realtime_auth")
        .filter(|event| ["accepted", "refused"].contains(&&*event.fields["message"]))
        .collect();
    let [decision] = decisions[..] else { panic!("one decision, not {events:?}") };
    (decision.level, &decision.fields)
}

fn fields<'a>(fields: impl IntoIterator<Item = (&'static str, &'a str)>) -> Fields {
    fields.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

// ---- Who and why ----

/// A secret key and a token of it, in one store.
async fn secret_and_token(keys: &Keys<MemoryStore>) -> [Issued; 2] {
    let secret = keys.issue(NewKey::secret("acme")).await.expect("a key");
    let parent = Principal::new(Arc::clone(secret.record()), CredentialSource::Header, keys.now());
    let token = NewToken::lasting(std::time::Duration::from_secs(60));
    let token = keys.mint(&parent, token).await.expect("a token");
    [secret, token]
}

#[tokio::test]
async fn who_is_let_through_is_told_once() {
    record_events();
    let keys = Keys::new(MemoryStore::new());
    let issued = secret_and_token(&keys).await;
    let service = RealtimeAuthLayer::new(keys).layer(Inner::default());
    take_events();

    for (issued, kind) in issued.iter().zip(["secret", "ephemeral"]) {
        let key = issued.key().expose();
        for place in PLACES {
            let mut requests = vec![upgrade_with(place, key)];
            if place != CredentialSource::Subprotocol {
                requests.push(plain_with(place, key));
            }
            for request in requests {
                service.clone().oneshot(request).await.unwrap();
                let expected = fields([
                    ("message", "accepted"),
                    ("account", "acme"),
                    ("key_id", issued.record().id().as_str()),
                    ("kind", kind),
                    ("source", place.as_str()),
                    ("ambiguous", "false"),
                ]);
                assert_eq!(decision(&take_events()), (Level::DEBUG, &expected));
            }
        }
    }
}

/// Which places hold what, and which of them decides: `G` good, `B` bad, `M` malformed, `-` none.
#[tokio::test]
async fn several_credentials_are_told() {
    record_events();
    use CredentialSource::{Header, Query, Subprotocol};

    let keys = Keys::new(MemoryStore::new());
    let [good, _] = secret_and_token(&keys).await;
    let layer = RealtimeAuthLayer::new(keys);
    take_events();

    for (places, conflicts, source, ambiguous) in [
        ("G--", Conflicts::FirstPresent, Header, "false"),
        ("-G-", Conflicts::FirstPresent, Query, "false"),
        ("--G", Conflicts::FirstPresent, Subprotocol, "false"),
        ("GG-", Conflicts::FirstPresent, Header, "true"),
        ("GB-", Conflicts::FirstPresent, Header, "true"),
        ("G-B", Conflicts::FirstPresent, Header, "true"),
        ("-GB", Conflicts::FirstPresent, Query, "true"),
        ("-GM", Conflicts::FirstPresent, Query, "true"),
        ("GGG", Conflicts::FirstPresent, Header, "true"),
        ("BG-", Conflicts::TryNext, Query, "true"),
        ("M-G", Conflicts::TryNext, Subprotocol, "true"),
        ("BMG", Conflicts::TryNext, Subprotocol, "true"),
        ("GG-", Conflicts::RejectConflict, Header, "true"),
        ("--G", Conflicts::RejectConflict, Subprotocol, "false"),
    ] {
        let mut request = Request::new(());
        for (place, what) in PLACES.into_iter().zip(places.chars()) {
            let key = match what {
                'G' => good.key().expose(),
                'B' => "bad",
                // Longer than anything that is looked at.
                'M' => &"m".repeat(5_000),
                _ => continue,
            };
            let (part, _) = plain_with(place, key).into_parts();
            if place == Query {
                *request.uri_mut() = part.uri;
            }
            request.headers_mut().extend(part.headers);
        }
        let service = layer.clone().with_conflicts(conflicts).layer(Inner::default());
        service.oneshot(upgraded(request)).await.unwrap();

        let events = take_events();
        let (_, fields) = decision(&events);
        assert_eq!(fields["message"], "accepted", "{places} {conflicts:?}");
        assert_eq!(fields["source"], source.as_str(), "{places} {conflicts:?}");
        assert_eq!(fields["ambiguous"], ambiguous, "{places} {conflicts:?}");
    }
}

/// The refusal of `request` by a layer over `store`: its fields, and what else was told.
async fn refusal_of<S: KeyStore>(
    layer: RealtimeAuthLayer<S>,
    request: Request<()>,
) -> (Fields, Vec<Event>) {
    let inner = Inner::default();
    let response = layer.layer(inner.clone()).oneshot(request).await.unwrap();
    assert_eq!(inner.calls(), 0);
    let events = take_events();
    let (level, fields) = decision(&events);
    assert_eq!(level, Level::INFO);

    // The event says what the response's extension says.
    let rejection = response.extensions().get::<Rejection>().expect("a rejection");
    assert_eq!(fields["reason"], rejection.kind().as_str());
    assert_eq!(
        fields.get("source").map(String::as_str),
        rejection.source().map(CredentialSource::as_str)
    );
    let fields = fields.clone();
    let others = events.into_iter().filter(|event| event.fields != fields).collect();
    (fields, others)
}

fn refused(reason: &'static str, source: Option<CredentialSource>) -> Fields {
    let source = source.map(|source| ("source", source.as_str()));
    let told = [("message", "refused"), ("reason", reason), ("ambiguous", "false")];
    fields(told.into_iter().chain(source))
}

fn ambiguous(fields: Fields) -> Fields {
    fields.into_iter().chain([("ambiguous", "true".to_owned())]).collect()
}

#[tokio::test]
async fn why_a_request_is_refused_is_told_once() {
    record_events();
    const NOW: UnixMillis = UnixMillis::new(1_000);
    type Change = fn(KeyRecord) -> KeyRecord;
    let changes: [(&str, Change); 3] = [
        ("expired", |key| key.with_expires_at(Some(NOW))),
        ("revoked", |key| key.with_revoked_at(Some(NOW))),
        ("model", |key| key.with_grants(Grants::default().with_models(["a", "b"]))),
    ];
    take_events();
    let nobody = || RealtimeAuthLayer::new(MemoryStore::new());

    for place in PLACES {
        // By what the store answers.
        let unknown = refusal_of(nobody(), upgrade_with(place, "some-key")).await;
        assert_eq!(unknown.0, refused("unknown", Some(place)));
        assert!(unknown.1.is_empty(), "{:?}", unknown.1);

        for (reason, change) in changes {
            let store = StoreFn(move |digest: &KeyDigest| {
                let id = tower_realtime_auth::KeyId::new("key_1");
                let record = KeyRecord::new(id, *digest, "acme", KeyKind::Secret, NOW);
                Answer::ready(Ok(Some(Arc::new(change(record)))))
            });
            let keys = Keys::new(store).with_clock(ManualClock::new(NOW));
            let layer = RealtimeAuthLayer::new(keys);
            let told = refusal_of(layer, upgrade_with(place, "some-key")).await;
            assert_eq!(told.0, refused(reason, Some(place)));
            assert!(told.1.is_empty(), "{:?}", told.1);
        }

        // By the store's failure, of which one more event tells the cause.
        let broken =
            StoreFn(|_: &KeyDigest| Answer::ready(Err(StoreError::new("connection refused"))));
        let layer = RealtimeAuthLayer::new(broken);
        let told = refusal_of(layer, upgrade_with(place, "some-key")).await;
        assert_eq!(told.0, refused("store_unavailable", Some(place)));
        let [cause] = &told.1[..] else { panic!("one cause, not {:?}", told.1) };
        assert_eq!(cause.level, Level::ERROR);
        assert!(cause.fields["error"].ends_with(": connection refused"), "{cause:?}");

        // By the text of the credential.
        let long = "m".repeat(5_000);
        let told = refusal_of(nobody(), upgrade_with(place, &long)).await;
        assert_eq!(told.0, refused("malformed", Some(place)));
        assert!(told.1.is_empty(), "{:?}", told.1);
    }

    // By the request alone.
    let told = refusal_of(nobody(), Request::new(())).await;
    assert_eq!(told.0, refused("missing", None));

    let mut differing = plain_with(CredentialSource::Query, "one-key");
    differing.headers_mut().insert("authorization", HeaderValue::from_static("Bearer other"));
    let strict = nobody().with_conflicts(Conflicts::RejectConflict);
    let told = refusal_of(strict, differing).await;
    assert_eq!(told.0, ambiguous(refused("conflict", Some(CredentialSource::Header))));

    let keys = Keys::new(MemoryStore::new());
    let [good, _] = secret_and_token(&keys).await;
    take_events();
    let mut h2c = plain_with(CredentialSource::Header, good.key().expose());
    h2c.headers_mut().insert("upgrade", HeaderValue::from_static("h2c"));
    let told = refusal_of(RealtimeAuthLayer::new(keys), h2c).await;
    assert_eq!(told.0, refused("handshake", Some(CredentialSource::Header)));
}

/// By their paths, which are cut; never by a value, the key's or the client's.
#[tokio::test]
async fn locked_settings_that_a_client_sends_are_told() {
    tower_realtime_auth::wire!(struct Tungstenite for tokio_tungstenite::tungstenite::protocol);

    record_events();
    let settings = Settings::parse(r#"{"voice":"canary"}"#).unwrap();
    let guard = SessionGuard::new(&Grants::default().with_session(settings), None);
    let (server, client) = tokio::io::duplex(64 * 1024);
    let server = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let mut socket = GuardedSocket::<_, Tungstenite>::new(server, guard);

    let long = "\u{e9}".repeat(1000);
    let update = serde_json::json!({
        "type": "session.update",
        "session": { "voice": "canary too" },
        long: "canary",
    });
    client.send(update.to_string().into()).await.unwrap();
    take_events();
    socket.next().await.unwrap().unwrap();
    let events = take_events();
    let ours: Vec<_> =
        events.iter().filter(|event| event.target == "tower_realtime_auth").collect();
    let [told] = ours[..] else { panic!("one event, not {ours:?}") };
    assert_eq!(told.level, Level::INFO);
    let cut = "\u{e9}".repeat(64);
    assert_eq!(
        told.fields,
        fields([
            ("message", "locked settings kept"),
            ("paths", &format!("[{cut:?}, \"session.voice\"]")),
        ])
    );
}

#[tokio::test]
async fn a_minted_token_is_told_by_its_id() {
    record_events();
    let keys = Keys::new(MemoryStore::new());
    let [secret, _] = secret_and_token(&keys).await;
    let mint = RealtimeAuthLayer::new(keys.clone()).layer(ClientSecrets::new(keys.clone()));
    take_events();

    let request = plain_with(CredentialSource::Header, secret.key().expose());
    let (mut parts, ()) = request.into_parts();
    parts.method = "POST".parse().unwrap();
    mint.oneshot(Request::from_parts(parts, Full::<Bytes>::default())).await.unwrap();

    let events = take_events();
    assert_eq!(decision(&events).1["message"], "accepted");
    let minted: Vec<_> =
        events.iter().filter(|event| event.fields["message"] == "minted").collect();
    let [minted] = minted[..] else { panic!("one event, not {events:?}") };
    assert_eq!(minted.fields["account"], "acme");
    assert_eq!(minted.fields["parent"], secret.record().id().as_str());
    assert_ne!(minted.fields["key_id"], secret.record().id().as_str());
    assert_eq!(minted.level, Level::INFO);
}

// ---- And never the key ----

/// Texts that nothing but a key may hold.
struct Canaries(Vec<String>);

impl Canaries {
    /// How much of a key counts as leaked: less could be chance.
    const LEAK: usize = 6;

    fn assert_none_in(&self, what: impl fmt::Display, text: &[u8]) {
        for key in &self.0 {
            // What stands in front of the first few random characters is public.
            let secret = key.rsplit('_').next().unwrap_or(key).as_bytes();
            for part in secret.windows(Self::LEAK) {
                let leaks = text.windows(Self::LEAK).any(|window| window == part);
                assert!(!leaks, "{what} holds a part of a key: {}", String::from_utf8_lossy(text));
            }
        }
    }

    fn assert_not_shown_by(&self, what: &str, shown: &dyn Debug) {
        self.assert_none_in(what, format!("{shown:?}").as_bytes());
        self.assert_none_in(what, format!("{shown:#?}").as_bytes());
    }
}

/// Keys, good and bad, of our make and of another; the good ones are known to `keys`.
async fn canaries(keys: &Keys<MemoryStore>) -> (Canaries, [Issued; 2]) {
    let issued = secret_and_token(keys).await;
    let imported = ApiKey::new("Zk7qW-other.make~Lw93xTb5").expect("a key");
    keys.import(&imported, NewKey::secret("acme")).await.expect("taken in");
    let texts = issued.iter().map(|issued| issued.key().expose());
    let texts = texts.chain([
        imported.expose(),
        "Ux31v-nobodys.key~Qm42yRd8",
        // Of our form, with a wrong checksum.
        "sk_live_Hy8Kd2Wq5Zt7Mv4Bn1Xc6Lp9Rf3Gj0Sa8000000",
    ]);
    (Canaries(texts.map(str::to_owned).collect()), issued)
}

/// Requests that carry `key` in every place and every way.
fn heads_with(key: &str) -> Vec<String> {
    let line = |name: &str, value: String| (name.to_owned(), value);
    let plain = format!("GET /?api_key={key}&model=m HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut heads = vec![plain, handshake(&format!("/v1/realtime?x=1&api_key={key}"), &[])];
    for (name, value) in [
        line("Authorization", format!("Bearer {key}")),
        line("Authorization", format!("bearer   {key} x")),
        line("Sec-WebSocket-Protocol", format!("realtime, openai-insecure-api-key.{key}")),
        line("Sec-WebSocket-Protocol", format!("xai-client-secret.{key}")),
        line("Sec-WebSocket-Protocol", format!("xai-client-secret.{key}, xai-client-secret.b")),
    ] {
        heads.push(handshake("/v1/realtime", &[(&name, &value)]));
    }
    heads
}

/// Over a real socket, with everything on the thread recorded: hyper and the layer alike.
#[tokio::test]
async fn no_key_is_in_an_event_or_an_answer() {
    record_events();
    let keys = Keys::new(MemoryStore::new());
    let (canaries, _) = canaries(&keys).await;
    take_events();
    let layer = RealtimeAuthLayer::new(keys);
    let inner = Inner::default();
    let address = serve(layer.layer(inner.clone())).await;

    let mut requests = 0;
    for key in &canaries.0 {
        for head in heads_with(key) {
            requests += 1;
            let (mut raw, mut head) = Raw::send(address, head.as_bytes()).await;
            // The one place where a key may return: the echo that browsers insist on.
            head.headers.retain(|(name, value)| {
                let is_echo = name == "sec-websocket-protocol"
                    && *value == format!("xai-client-secret.{key}");
                !is_echo
            });
            canaries.assert_none_in("a head", format!("{head:?}").as_bytes());
            let kept_alive = head.status == 200;
            if !kept_alive {
                // What comes to a handshake that was let through, nobody here says.
                tokio::io::AsyncWriteExt::shutdown(&mut raw.stream).await.expect("shut down");
                canaries.assert_none_in("an answer", &raw.rest().await);
            }
        }
    }
    assert!(inner.calls() > 10, "good keys are let through");
    let events = take_events();
    let decisions = events.iter().filter(|event| event.fields.contains_key("message")).count();
    assert!(decisions >= requests, "{decisions} events for {requests} requests");
    for event in &events {
        canaries.assert_not_shown_by("an event", event);
    }
}

/// What the service behind the layer gets to see, it may log.
#[tokio::test]
async fn no_key_reaches_the_inner_service() {
    record_events();
    let keys = Keys::new(MemoryStore::new());
    let (canaries, issued) = canaries(&keys).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let recording = Arc::clone(&seen);
    let inner = tower::service_fn(move |request: Request<()>| {
        let mut text = format!("{request:?}");
        for (name, value) in request.headers() {
            text += &format!("{name}: {:?}", value.as_bytes());
        }
        text += &format!("{:?}", request.extensions().get::<Principal>());
        recording.lock().expect("no panic").push(text);
        std::future::ready(Ok::<_, std::convert::Infallible>(
            tower_realtime_auth::http::Response::new(support::Body::default()),
        ))
    });
    let service = RealtimeAuthLayer::new(keys).layer(inner);
    for issued in &issued {
        for place in PLACES {
            // The places that do not decide hold a key too.
            let mut request = upgrade_with(place, issued.key().expose());
            for (name, value) in [
                ("authorization", format!("Bearer {}", issued.key().expose())),
                ("sec-websocket-protocol", format!("a, xai-client-secret.{}", canaries.0[3])),
            ] {
                if !request.headers().contains_key(name) {
                    request.headers_mut().insert(name, value.parse().expect("a value"));
                }
            }
            service.clone().oneshot(request).await.unwrap();
        }
    }
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen.len(), 6);
    for text in &*seen {
        canaries.assert_none_in("the inner request", text.as_bytes());
    }
}

#[tokio::test]
async fn no_key_is_shown_by_debug() {
    record_events();
    let keys = Keys::new(MemoryStore::new());
    let (canaries, [secret, token]) = canaries(&keys).await;
    let layer = RealtimeAuthLayer::new(keys.clone());
    let service = layer.layer(Inner::default());
    let mint = ClientSecrets::new(keys.clone());
    let new = NewKey::secret("acme");
    let taken = keys.import(secret.key(), new.clone()).await.unwrap_err();
    let parent = Principal::new(Arc::clone(secret.record()), CredentialSource::Header, keys.now());
    let unreadable = mint.mint(&parent, secret.key().expose().as_bytes()).await.unwrap_err();

    // Responses and a future that waits, of which the xAI echo is the hard one.
    let key = token.key().expose();
    let offer = format!("xai-client-secret.{key}").parse().unwrap();
    let mut request = upgraded(Request::new(()));
    request.headers_mut().insert("sec-websocket-protocol", offer);
    let echoing = service.clone().oneshot(request).await.unwrap();
    let echo = echoing.headers()["sec-websocket-protocol"].to_str().unwrap();
    assert_eq!(echo, format!("xai-client-secret.{key}"));
    let principal = echoing.extensions().get::<Principal>().expect("let through").clone();
    let refused = service.clone().oneshot(plain_with(CredentialSource::Query, &canaries.0[3]));
    let refused = refused.await.unwrap();
    let rejection = *refused.extensions().get::<Rejection>().expect("refused");
    let hanging = StoreFn(|_: &KeyDigest| Answer::pending(std::future::pending()));
    let mut waiting = RealtimeAuthLayer::new(hanging)
        .layer(Inner::default())
        .call(plain_with(CredentialSource::Header, key));
    assert!(poll_immediate(&mut waiting).await.is_none());

    let shown: [(&str, &dyn Debug); 17] = [
        ("ApiKey", secret.key()),
        ("Issued", &secret),
        ("a minted Issued", &token),
        ("KeyRecord", secret.record()),
        ("KeyDigest", secret.record().digest()),
        ("Keys", &keys),
        ("MemoryStore", keys.store()),
        ("RealtimeAuthLayer", &layer),
        ("RealtimeAuth", &service),
        ("ClientSecrets", &mint),
        ("NewKey", &new),
        ("KeyError", &taken),
        ("MintError", &unreadable),
        ("Principal", &principal),
        ("Rejection", &rejection),
        ("an echoing response", &echoing),
        ("ResponseFuture", &waiting),
    ];
    for (what, shown) in shown {
        canaries.assert_not_shown_by(what, shown);
    }
    for error in [&taken as &dyn std::error::Error, &unreadable, &rejection] {
        canaries.assert_none_in("an error", error.to_string().as_bytes());
    }
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    canaries.assert_none_in("a refusal", &body);
}
