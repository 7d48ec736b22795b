//! Client secrets: what real clients ask for is minted, what is not right is refused by name, and
//! no token gets more than the key that minted it.

mod bounds;
mod caps;
mod client_tokens;
mod races;
mod refused;
mod sessions;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use futures_util::{FutureExt, stream};
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use support::{Inner, json as read_json, upgrade_with};
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt};
use tower_realtime_auth::{
    Answer, AuditEntry, AuditFilter, ClientSecrets, ClientTokens, CredentialSource, Environment,
    Grants, Inserted, Issued, JsonBody, KeyAdmin, KeyDigest, KeyFilter, KeyFormat, KeyId, KeyKind,
    KeyRecord, KeyStore, Keys, Lifetimes, Lock, Lookup, ManualClock, MemoryStore, MintError,
    MintFields, NewKey, NewToken, Plan, Principal, Profile, RealtimeAuthLayer, RealtimeSessions,
    Rejection, Revocation, Rotated, SessionGuard, Settings, Stamp, StoreError,
    TranscriptionSessions, UnixMillis, Verdict, Write,
    bytes::Bytes,
    http::{HeaderMap, Method, Request, Response, StatusCode},
};

/// When everything here begins: half a second past a full one, so that rounding shows.
const START: UnixMillis = UnixMillis::new(1_700_000_000_500);

const PATH: &str = "/v1/realtime/client_secrets";

/// An endpoint, the key that mints there, and the time.
struct Desk<S = MemoryStore> {
    keys: Keys<S>,
    clock: ManualClock,
    parent: Issued,
    endpoint: ClientSecrets<S>,
}

/// What the endpoint answered.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    json: Value,
    /// Whether the layer has refused it, and the endpoint knows nothing of it.
    is_rejected: bool,
}

impl Reply {
    fn token(&self) -> &str {
        self.json["value"].as_str().unwrap_or_else(|| panic!("no token: {}", self.json))
    }

    /// The code of the error, and the field that it names.
    fn fault(&self) -> (Option<&str>, Option<&str>) {
        let error = &self.json["error"];
        (error["code"].as_str(), error["param"].as_str())
    }
}

/// A request to mint, authorized by `key`.
fn request_by<B>(key: &str, body: B) -> Request<B> {
    let builder = Request::post(PATH).header("authorization", format!("Bearer {key}"));
    builder.body(body).expect("a request")
}

/// What `service` answers behind the layer.
async fn answer<S, T, B>(keys: &Keys<S>, service: T, request: Request<B>) -> Reply
where
    S: KeyAdmin,
    T: Service<Request<B>, Response = Response<JsonBody>, Error = Infallible> + Clone,
{
    let service = RealtimeAuthLayer::new(keys.clone()).layer(service);
    // Longer than anything here may take, in tests whose time is paused and in the others.
    let response = timeout(Duration::from_secs(60), service.oneshot(request)).await;
    let response = response.expect("an answer in time").expect("a response");
    let (status, headers) = (response.status(), response.headers().clone());
    let is_rejected = response.extensions().get::<Rejection>().is_some();
    Reply { status, headers, json: read_json(response).await, is_rejected }
}

impl Desk {
    /// A desk over a store in memory, with a key that may do everything.
    async fn open() -> Self {
        Self::over(MemoryStore::new(), NewKey::secret("acme")).await
    }
}

impl<S: KeyAdmin> Desk<S> {
    async fn over(store: S, parent: NewKey) -> Self {
        let clock = ManualClock::new(START);
        let keys = Keys::new(store).with_clock(clock.clone());
        let parent = keys.issue(parent).await.expect("a key");
        Self { endpoint: ClientSecrets::new(keys.clone()), keys, clock, parent }
    }

    /// The parent, as a request proved it now.
    fn principal(&self) -> Principal {
        let record = Arc::clone(self.parent.record());
        Principal::new(record, CredentialSource::Header, self.keys.now())
    }

    async fn answer<B>(&self, request: Request<B>) -> Reply
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        answer(&self.keys, self.endpoint.clone(), request).await
    }

    async fn mint(&self, body: impl Into<Bytes>) -> Reply {
        let body = Full::new(body.into());
        self.answer(request_by(self.parent.key().expose(), body)).await
    }

    /// The status with which a browser's handshake with `token` is answered.
    async fn handshake(&self, token: &str) -> StatusCode {
        let service = RealtimeAuthLayer::new(self.keys.clone()).layer(Inner::default());
        let request = upgrade_with(CredentialSource::Subprotocol, token);
        service.oneshot(request).await.expect("a response").status()
    }

    /// The records of the tokens minted so far.
    async fn tokens(&self) -> Vec<Arc<KeyRecord>> {
        let all = self.keys.store().list(&KeyFilter::default()).await.expect("a list");
        all.into_iter().filter(|record| record.kind() == KeyKind::Ephemeral).collect()
    }
}

const OPENED: StatusCode = StatusCode::SWITCHING_PROTOCOLS;
const REFUSED: StatusCode = StatusCode::UNAUTHORIZED;

// ---- What clients ask for ----

/// The time at which a token minted at [`START`] for that long expires, on the wire.
fn expiry_after(seconds: u64) -> Value {
    // Rounded up: it lives at least as long as promised.
    json!(START.get() / 1_000 + 1 + seconds)
}

#[tokio::test]
async fn real_clients_get_the_fields_that_they_read() {
    let recorded: Value = serde_json::from_str(include_str!("../data/mint.json")).unwrap();
    let recorded = recorded["mint"].as_array().unwrap();
    assert_eq!(recorded.len(), 7);
    for case in recorded {
        let id = case["id"].as_str().unwrap();
        let desk = Desk::open().await;
        let format = if id.starts_with("swaram") {
            KeyFormat::default().with_ephemeral_prefix("swaram_ek_").unwrap()
        } else {
            KeyFormat::default()
        };
        let keys = desk.keys.clone().with_format(format);
        let desk = Desk { endpoint: ClientSecrets::new(keys.clone()), keys, ..desk };

        let mut request = request_by(
            desk.parent.key().expose(),
            Full::new(Bytes::from(case["body"].to_string())),
        );
        for header in case["headers"].as_array().unwrap() {
            let (name, value) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
            if !name.eq_ignore_ascii_case("authorization") {
                let name: tower_realtime_auth::http::HeaderName = name.parse().unwrap();
                request.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        let reply = desk.answer(request).await;
        assert_eq!(reply.status, StatusCode::OK, "{id}: {}", reply.json);

        for (field, expected) in case["reads"].as_object().unwrap() {
            let value = &reply.json[field];
            let fits = match expected.as_str().unwrap() {
                "string" => value.is_string(),
                "object" => value.is_object(),
                "swaram_ek_..." => value.as_str().unwrap().starts_with("swaram_ek_"),
                integer if integer.starts_with("integer") => value.is_u64(),
                other => panic!("{id}: what is {other:?}?"),
            };
            assert!(fits, "{id}: {field} is {value}");
        }
        let seconds = case["body"]["expires_after"]["seconds"].as_u64().unwrap_or(60);
        assert_eq!(reply.json["expires_at"], expiry_after(seconds), "{id}");

        // The effective session: what was asked for, and what OpenAI's always has.
        let session = reply.json["session"].as_object().unwrap();
        assert_eq!(session["type"], "realtime", "{id}");
        assert_eq!(session["object"], "realtime.session", "{id}");
        for (name, value) in case["body"]["session"].as_object().into_iter().flatten() {
            assert_eq!(&session[name], value, "{id}: session.{name}");
        }
        if let Some(model) = case["body"].get("model") {
            assert_eq!(&session["model"], model, "{id}");
        }
        assert_eq!(desk.handshake(reply.token()).await, OPENED, "{id}");
    }
}

#[tokio::test]
async fn a_body_may_be_missing() {
    let desk = Desk::open().await;
    for body in ["", " \r\n\t", "{}", "{ }", r#"{"session":{}}"#] {
        let reply = desk.mint(body).await;
        assert_eq!(reply.status, StatusCode::OK, "{body:?}");
        assert_eq!(reply.json["expires_at"], expiry_after(60), "{body:?}");
        let plain = json!({"type": "realtime", "object": "realtime.session"});
        assert_eq!(reply.json["session"], plain, "{body:?}");
        assert_eq!(reply.headers["cache-control"], "no-store");
        assert_eq!(reply.headers["content-type"], "application/json");
    }
}

/// Every token is its own, and its record says whose and whence.
#[tokio::test]
async fn a_token_is_a_child_of_the_key() {
    let parent = NewKey::secret("acme").with_environment(Environment::Test);
    let desk = Desk::over(MemoryStore::new(), parent).await;
    let mut texts = BTreeSet::new();
    for _ in 0..3 {
        texts.insert(desk.mint("{}").await.token().to_owned());
    }
    assert_eq!(texts.len(), 3);
    assert!(texts.iter().all(|text| text.starts_with("ek_")));
    for token in desk.tokens().await {
        assert_eq!(&**token.account(), "acme");
        assert_eq!(token.environment(), Environment::Test);
        assert_eq!(token.parent().unwrap().id(), desk.parent.record().id());
        assert_eq!(token.created_at(), START);
        let expires_at = START.saturating_add(Duration::from_secs(60));
        assert_eq!(token.expires_at(), Some(expires_at));
    }
}

// ---- Lifetimes ----

#[tokio::test]
async fn lifetimes_are_within_their_range() {
    let secs = Duration::from_secs;
    let openai = Lifetimes::new(secs(10)..=secs(7_200), secs(600)).unwrap();
    let short = Lifetimes::new(secs(1)..=secs(5), secs(5)).unwrap();
    // What is asked for, in seconds, and what is given; `None` is the default, or a refusal.
    type Case = (Option<u64>, Option<u64>);
    let table: [(Lifetimes, &[Case]); 3] = [
        (
            Lifetimes::default(),
            &[
                (None, Some(60)),
                (Some(1), Some(1)),
                (Some(7_200), Some(7_200)),
                (Some(0), None),
                (Some(7_201), None),
                (Some(u64::MAX), None),
            ],
        ),
        (openai, &[(None, Some(600)), (Some(10), Some(10)), (Some(9), None), (Some(7_201), None)]),
        (short, &[(None, Some(5)), (Some(1), Some(1)), (Some(5), Some(5)), (Some(6), None)]),
    ];
    for (lifetimes, cases) in table {
        for (asked, given) in cases {
            let desk = Desk::open().await;
            let endpoint = desk.endpoint.clone().with_lifetimes(lifetimes.clone());
            let desk = Desk { endpoint, ..desk };
            let body = asked.map_or_else(
                || "{}".to_owned(),
                |seconds| json!({"expires_after": {"seconds": seconds}}).to_string(),
            );
            let reply = desk.mint(body.clone()).await;
            match given {
                Some(seconds) => {
                    assert_eq!(reply.json["expires_at"], expiry_after(*seconds), "{body}");
                }
                None => {
                    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
                    let expected = (Some("invalid_value"), Some("expires_after.seconds"));
                    assert_eq!(reply.fault(), expected, "{body}");
                }
            }
        }
    }
    assert!(Lifetimes::new(secs(0)..=secs(5), secs(1)).is_err());
    assert!(Lifetimes::new(secs(1)..=secs(5), secs(6)).is_err());
    assert!(Lifetimes::new(secs(5)..=secs(1), secs(3)).is_err());
}

/// A token opens something until its last millisecond, and a new session never after it.
#[tokio::test]
async fn a_token_works_at_once_and_until_its_expiry() {
    let desk = Desk::open().await;
    let reply = desk.mint(r#"{"expires_after":{"seconds":120}}"#).await;
    assert_eq!(desk.handshake(reply.token()).await, OPENED);
    desk.clock.advance(Duration::from_millis(119_999));
    assert_eq!(desk.handshake(reply.token()).await, OPENED);
    desk.clock.advance(Duration::from_millis(1));
    assert_eq!(desk.handshake(reply.token()).await, REFUSED);
}

/// A key that has less time left than the default gives all it has, and no more.
#[tokio::test]
async fn a_token_does_not_outlive_its_key() {
    let parent = NewKey::secret("acme").with_lifetime(Duration::from_secs(100));
    let desk = Desk::over(MemoryStore::new(), parent).await;
    desk.clock.advance(Duration::from_secs(70));

    let refused = desk.mint(r#"{"expires_after":{"seconds":31}}"#).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.fault(), (Some("exceeds_api_key"), Some("expires_after.seconds")));
    for body in ["{}", r#"{"expires_after":{"seconds":30}}"#] {
        let reply = desk.mint(body).await;
        assert_eq!(reply.json["expires_at"], expiry_after(100), "{body}");
    }
}

// ---- What is not right ----

#[tokio::test]
async fn bodies_are_bounded() {
    let nested = |depth: usize| {
        let arrays = depth - 1;
        format!(r#"{{"x":{}{}}}"#, "[".repeat(arrays), "]".repeat(arrays))
    };
    let padded = |len: usize| format!("{{}}{}", " ".repeat(len - 2));
    let model = |len: usize| format!(r#"{{"model":"{}"}}"#, "m".repeat(len));
    let bad_text = b"{\"instructions\":\"\xff\"}".to_vec();
    let table = [
        (nested(32).into_bytes(), 200),
        (nested(33).into_bytes(), 400),
        (nested(30_000).into_bytes(), 400),
        (padded(64 * 1024).into_bytes(), 200),
        (padded(64 * 1024 + 1).into_bytes(), 413),
        (padded(1024 * 1024).into_bytes(), 413),
        (model(256).into_bytes(), 200),
        (model(257).into_bytes(), 400),
        (bad_text, 400),
    ];
    let desk = Desk::open().await;
    for (row, (body, status)) in table.into_iter().enumerate() {
        let pieces = stream::iter(
            body.clone()
                .into_iter()
                .map(|byte| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(&[byte])))),
        );
        let request = request_by(desk.parent.key().expose(), StreamBody::new(pieces));
        // As a whole, and byte by byte without a Content-Length.
        for reply in [desk.mint(body).await, desk.answer(request).await] {
            assert_eq!(reply.status, status, "row {row}: {}", reply.json);
            assert_eq!(reply.headers["cache-control"], "no-store");
            if status == 413 {
                assert_eq!(reply.fault(), (Some("body_too_large"), None));
            }
        }
    }
}

/// Settings that are not known are kept, locked, and told.
#[tokio::test]
async fn unknown_settings_are_kept() {
    let desk = Desk::open().await;
    let reply = desk.mint(r#"{"mood":"calm","session":{"x":{"y":[1,null]},"mood":"calm"}}"#).await;
    assert_eq!(reply.json["session"]["mood"], "calm");
    assert_eq!(reply.json["session"]["x"], json!({"y": [1, null]}));
    let token = desk.tokens().await.pop().unwrap();
    let mut guard = SessionGuard::new(token.grants(), None);
    let update = r#"{"type":"session.update","session":{"mood":"wild"}}"#;
    assert!(matches!(guard.client(update), Verdict::Rewrite { .. }));
}

// ---- Who may mint, and how ----

#[tokio::test]
async fn a_token_does_not_mint() {
    let desk = Desk::open().await;
    let token = desk.mint("{}").await.token().to_owned();
    let reply = desk.answer(request_by(&token, Full::<Bytes>::default())).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert_eq!(reply.fault(), (Some("insufficient_scope"), None));
    let challenge = reply.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains(r#"error="insufficient_scope""#), "{challenge}");
    assert_eq!(desk.tokens().await.len(), 1);

    let reply = desk.answer(request_by("unknown", Full::<Bytes>::default())).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert_eq!(desk.tokens().await.len(), 1);
}

/// What each profile takes of a body, and the field that it names if it does not.
const FIELDS: &[(&str, &str, Option<&str>)] = &[
    ("openai", r#"{}"#, None),
    ("openai", r#"{"expires_after":{"anchor":"created_at","seconds":60}}"#, None),
    ("openai", r#"{"session":{"type":"realtime","model":"m","tracing":"auto"}}"#, None),
    ("openai", r#"{"model":"m"}"#, Some("model")),
    ("openai", r#"{"session":{"voice":"marin"}}"#, Some("session.voice")),
    ("openai", r#"{"session":{"colour":"blue"}}"#, Some("session.colour")),
    ("xai", r#"{"expires_after":{"seconds":60}}"#, None),
    (
        "xai",
        r#"{"expires_after":{"anchor":"created_at","seconds":60}}"#,
        Some("expires_after.anchor"),
    ),
    ("xai", r#"{"session":{"voice":"ara"}}"#, Some("session")),
    ("xai", r#"{"model":"m"}"#, Some("model")),
    ("swaram", r#"{"model":"m","colour":"blue","session":{"voice":"a","shade":1}}"#, None),
    ("any", r#"{"model":"m","colour":"blue","session":{"voice":"a","shade":1}}"#, None),
    ("own", r#"{"session":{"voice":"a"}}"#, None),
    ("own", r#"{"session":{"instructions":"i"}}"#, Some("session.instructions")),
    ("own", r#"{"voice":"a"}"#, Some("voice")),
];

#[tokio::test]
async fn profiles_say_which_fields_there_are() {
    let own = MintFields::only(["session"]).with_session_fields(["voice"]);
    for (profile, body, unknown) in FIELDS {
        let named = match *profile {
            "openai" => Profile::openai(),
            "xai" => Profile::xai(),
            "swaram" => Profile::swaram(),
            "own" => Profile::default().with_mint_fields(own.clone()),
            _ => Profile::default(),
        };
        let desk = Desk::open().await;
        let endpoint = desk.endpoint.clone().with_profile(&named);
        let desk = Desk { endpoint, ..desk };
        let reply = desk.mint(*body).await;
        match unknown {
            None => assert_eq!(reply.status, StatusCode::OK, "{profile}: {body}: {}", reply.json),
            Some(field) => {
                assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{profile}: {body}");
                let fault = (Some("unknown_parameter"), Some(*field));
                assert_eq!(reply.fault(), fault, "{profile}: {body}");
                assert!(desk.tokens().await.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn a_token_learns_that_it_cannot_mint_before_its_body_is_read() {
    let desk = Desk::open().await;
    let token = desk.mint("{}").await.token().to_owned();
    for body in ["{", "[]", r#"{"session":null}"#] {
        let reply = desk.answer(request_by(&token, Full::new(Bytes::from(body)))).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{body}");
    }
}

/// What stood in a URL is in logs, and what stood in a subprotocol came from a browser.
#[tokio::test]
async fn a_secret_key_mints_from_a_header_alone() {
    let desk = Desk::open().await;
    let key = desk.parent.key().expose();
    // Nothing is said of the body, nor is it waited for.
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let request = Request::post(format!("{PATH}?api_key={key}")).body(body).unwrap();
    let reply = desk.answer(request).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert_eq!(reply.fault(), (Some("credential_not_in_header"), None), "{}", reply.json);

    for source in [CredentialSource::Query, CredentialSource::Subprotocol] {
        let record = Arc::clone(desk.parent.record());
        let principal = Principal::new(record, source, desk.keys.now());
        let error = desk.endpoint.mint(&principal, b"{").await.unwrap_err();
        assert!(matches!(error, MintError::NotInHeader(from) if from == source), "{error:?}");
    }
    assert!(desk.tokens().await.is_empty());
}

#[tokio::test]
async fn only_post_mints() {
    let desk = Desk::open().await;
    for method in [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
    ] {
        let mut request = request_by(desk.parent.key().expose(), Full::<Bytes>::default());
        *request.method_mut() = method.clone();
        let reply = desk.answer(request).await;
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(reply.headers["allow"], "POST");
        assert_eq!(reply.headers["cache-control"], "no-store");
    }
    assert!(desk.tokens().await.is_empty());
}

#[tokio::test]
async fn without_the_layer_nothing_is_minted() {
    let desk = Desk::open().await;
    let request = request_by(desk.parent.key().expose(), Full::<Bytes>::default());
    let response = desk.endpoint.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let error = read_json(response).await;
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("RealtimeAuthLayer"), "{message}");
    assert!(desk.tokens().await.is_empty());
}

#[tokio::test]
async fn minting_is_a_plain_call_too() {
    let desk = Desk::open().await;
    let parent = desk.principal();
    let body = br#"{"model":"m","session":{"voice":"marin"}}"#;
    let issued = desk.endpoint.mint(&parent, body).await.unwrap();
    assert_eq!(desk.handshake(issued.key().expose()).await, OPENED);
    let settings = issued.record().grants().session().unwrap();
    assert_eq!(settings.as_json(), r#"{"model":"m","voice":"marin"}"#);

    let error = desk.endpoint.mint(&parent, b"[]").await.unwrap_err();
    assert!(matches!(error, MintError::Invalid { field: None, .. }));

    let token = NewToken::lasting(Duration::from_secs(5));
    let issued = desk.keys.mint(&parent, token).await.unwrap();
    assert_eq!(issued.record().remaining(START), Some(Duration::from_secs(5)));
}

/// What is said about a token never holds the token.
#[tokio::test]
async fn a_token_is_not_shown() {
    let desk = Desk::open().await;
    let issued = desk.endpoint.mint(&desk.principal(), b"{}").await.unwrap();
    let secret = desk.parent.key().expose();
    let error = desk.endpoint.mint(&desk.principal(), secret.as_bytes()).await.unwrap_err();
    let shown = format!(
        "{issued:?} {error:?} {error} {:?} {:?} {:?}",
        desk.parent, desk.endpoint, desk.keys
    );
    for key in [issued.key().expose(), secret] {
        let random = key.rsplit('_').next().unwrap();
        assert!(!shown.contains(random), "{shown}");
    }
}

// ---- How many ----

#[tokio::test]
async fn live_tokens_are_capped_per_key() {
    let desk = Desk::open().await;
    let endpoint = desk.endpoint.clone().with_max_live_tokens(2);
    let desk = Desk { endpoint, ..desk };

    let first = desk.mint(r#"{"expires_after":{"seconds":10}}"#).await;
    let second = desk.mint(r#"{"expires_after":{"seconds":20}}"#).await;
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::OK));
    let third = desk.mint("{}").await;
    assert_eq!(third.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(third.fault(), (Some("too_many_tokens"), None));
    assert_eq!(third.headers["retry-after"], "1");
    assert_eq!(third.headers["cache-control"], "no-store");

    // Another key has a cap of its own.
    let other = desk.keys.issue(NewKey::secret("acme")).await.unwrap();
    let request = request_by(other.key().expose(), Full::<Bytes>::default());
    assert_eq!(desk.answer(request).await.status, StatusCode::OK);

    // One place is free once the first token has expired, and not before.
    desk.clock.advance(Duration::from_millis(9_999));
    assert_eq!(desk.mint("{}").await.status, StatusCode::TOO_MANY_REQUESTS);
    desk.clock.advance(Duration::from_millis(1));
    assert_eq!(desk.mint("{}").await.status, StatusCode::OK);
    assert_eq!(desk.mint("{}").await.status, StatusCode::TOO_MANY_REQUESTS);

    // And once one is revoked.
    let mut own = desk.tokens().await;
    own.retain(|token| token.parent().unwrap().id() == desk.parent.record().id());
    desk.keys.revoke(own.last().unwrap().id()).await.unwrap();
    assert_eq!(desk.mint("{}").await.status, StatusCode::OK);
}

// ---- What is late, and what breaks ----

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_408() {
    let desk = Desk::open().await;
    let begins = || stream::iter([Ok(Frame::data(Bytes::from_static(b"{")))]);
    let never = StreamBody::new(futures_util::StreamExt::chain(
        begins(),
        stream::pending::<Result<Frame<Bytes>, std::io::Error>>(),
    ));
    let broken = StreamBody::new(futures_util::StreamExt::chain(
        begins(),
        stream::iter([Err(std::io::Error::other("connection lost"))]),
    ));
    let key = desk.parent.key().expose();
    let replies =
        [desk.answer(request_by(key, never)).await, desk.answer(request_by(key, broken)).await];
    for reply in replies {
        assert_eq!(reply.status, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(reply.fault(), (Some("body_incomplete"), None));
        assert_eq!(reply.headers["cache-control"], "no-store");
    }
    assert!(desk.tokens().await.is_empty());
}

/// What a store does while a token is being minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meddling {
    RevokesParentBeforeInsert,
    RevokesParentAfterInsert,
    RevokesAccountAfterInsert,
    ForgetsParent,
    HangsAtInsert,
    HangsAtFind,
    FailsAtInsert,
    FailsAtFind,
    KnowsTheKey,
}

/// A store in memory that meddles with tokens, and leaves secret keys alone.
struct Meddler {
    store: MemoryStore,
    how: Meddling,
}

impl KeyStore for Meddler {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        self.store.lookup(digest)
    }
}

impl Meddler {
    fn revoke_now(&self, what: &Revocation) {
        let revoked = self.store.revoke(what, &Stamp::new(START)).now_or_never();
        revoked.expect("an answer at once").expect("revoked");
    }
}

impl KeyAdmin for Meddler {
    fn insert(
        &self,
        record: KeyRecord,
        max_children: Option<u32>,
        stamp: &Stamp,
    ) -> Write<'_, Inserted> {
        let Some(parent) = record.parent().map(|parent| parent.id().clone()) else {
            return self.store.insert(record, max_children, stamp);
        };
        let account = Revocation::Account(Arc::clone(record.account()));
        match self.how {
            Meddling::HangsAtInsert => return Answer::pending(std::future::pending()),
            Meddling::FailsAtInsert => return Answer::ready(Err(StoreError::new("disk full"))),
            Meddling::KnowsTheKey => return Answer::ready(Ok(Inserted::Taken)),
            Meddling::RevokesParentBeforeInsert => {
                self.revoke_now(&Revocation::Key(parent.clone()));
            }
            _ => {}
        }
        let inserted = self.store.insert(record, max_children, stamp);
        match self.how {
            Meddling::RevokesParentAfterInsert => self.revoke_now(&Revocation::Key(parent)),
            Meddling::RevokesAccountAfterInsert => self.revoke_now(&account),
            _ => {}
        }
        inserted
    }

    fn find(&self, id: &KeyId) -> Write<'_, Option<Arc<KeyRecord>>> {
        match self.how {
            Meddling::HangsAtFind => Answer::pending(std::future::pending()),
            Meddling::FailsAtFind => Answer::ready(Err(StoreError::new("connection lost"))),
            Meddling::ForgetsParent => Answer::ready(Ok(None)),
            _ => self.store.find(id),
        }
    }

    fn rotate(
        &self,
        old: &KeyId,
        new: KeyRecord,
        old_expires_at: UnixMillis,
        stamp: &Stamp,
    ) -> Write<'_, Rotated> {
        self.store.rotate(old, new, old_expires_at, stamp)
    }

    fn revoke(&self, what: &Revocation, stamp: &Stamp) -> Write<'_, u64> {
        self.store.revoke(what, stamp)
    }

    fn remove(&self, id: &KeyId, stamp: &Stamp) -> Write<'_, bool> {
        self.store.remove(id, stamp)
    }

    fn set_plan(&self, id: &KeyId, plan: Plan, stamp: &Stamp) -> Write<'_, bool> {
        self.store.set_plan(id, plan, stamp)
    }

    fn audit(&self, filter: &AuditFilter) -> Write<'_, Vec<AuditEntry>> {
        self.store.audit(filter)
    }

    fn list(&self, filter: &KeyFilter) -> Write<'_, Vec<Arc<KeyRecord>>> {
        self.store.list(filter)
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_goes_while_it_mints_leaves_no_token() {
    for how in [
        Meddling::RevokesParentBeforeInsert,
        Meddling::RevokesParentAfterInsert,
        Meddling::RevokesAccountAfterInsert,
        Meddling::ForgetsParent,
    ] {
        let store = Meddler { store: MemoryStore::new(), how };
        let desk = Desk::over(store, NewKey::secret("acme")).await;
        let reply = desk.mint("{}").await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{how:?}");
        assert_eq!(reply.fault(), (Some("invalid_api_key"), None), "{how:?}");
        let challenge = reply.headers["www-authenticate"].to_str().unwrap();
        assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
        let tokens = desk.tokens().await;
        assert_eq!(tokens.len(), 1, "{how:?}");
        assert!(tokens.iter().all(|token| token.is_revoked()), "{how:?}: a live token is left");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_breaks_while_minting_is_503() {
    for how in [
        Meddling::HangsAtInsert,
        Meddling::HangsAtFind,
        Meddling::FailsAtInsert,
        Meddling::FailsAtFind,
        Meddling::KnowsTheKey,
    ] {
        let store = Meddler { store: MemoryStore::new(), how };
        let desk = Desk::over(store, NewKey::secret("acme")).await;
        let reply = desk.mint("{}").await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{how:?}");
        assert_eq!(reply.fault(), (Some("service_unavailable"), None), "{how:?}");
        assert_eq!(reply.json["error"]["type"], "server_error", "{how:?}");
        assert_eq!(reply.headers["retry-after"], "1");
        assert_eq!(reply.headers["cache-control"], "no-store");
    }
}

/// A key that expires between being accepted and minting.
#[tokio::test]
async fn a_key_that_expired_meanwhile_does_not_mint() {
    let parent = NewKey::secret("acme").with_lifetime(Duration::from_secs(5));
    let desk = Desk::over(MemoryStore::new(), parent).await;
    let principal = desk.principal();
    desk.clock.advance(Duration::from_secs(5));
    let error = desk.endpoint.mint(&principal, b"{}").await.unwrap_err();
    assert!(matches!(error, MintError::ParentGone), "{error:?}");
    assert!(desk.tokens().await.iter().all(|token| token.is_revoked()));
}

#[tokio::test]
async fn a_revoked_key_takes_its_tokens_along() {
    let desk = Desk::open().await;
    let reply = desk.mint("{}").await;
    assert_eq!(desk.handshake(reply.token()).await, OPENED);
    desk.keys.revoke(desk.parent.record().id()).await.unwrap();
    assert_eq!(desk.handshake(reply.token()).await, REFUSED);
    assert_eq!(desk.mint("{}").await.status, StatusCode::UNAUTHORIZED);
}

// ---- Never more than the parent ----

const MODELS: [&str; 3] = ["a", "b", "c"];

/// Settings that meet each other in every way: equal, different, under another name, in a group.
fn settings() -> impl Strategy<Value = Map<String, Value>> {
    let setting = prop_oneof![
        prop::sample::select(&MODELS[..]).prop_map(|model| json!({"model": model})),
        prop::sample::select(vec!["v", "w"]).prop_map(|voice| json!({"voice": voice})),
        prop::sample::select(vec!["v", "w"])
            .prop_map(|voice| json!({"audio": {"output": {"voice": voice}}})),
        (1..=2_u8).prop_map(|speed| json!({"audio": {"output": {"speed": speed}}})),
        (1..=2_u8).prop_map(|speed| json!({"speed": speed})),
        any::<bool>().prop_map(|off| {
            let detection = if off { Value::Null } else { json!({"type": "server_vad"}) };
            json!({"audio": {"input": {"turn_detection": detection}}})
        }),
        any::<bool>().prop_map(|some| {
            json!({"tools": if some { json!([{"name": "t"}]) } else { json!([]) }})
        }),
        prop::sample::select(vec!["x", "y"]).prop_map(|text| json!({"instructions": text})),
    ];
    prop::collection::vec(setting, 0..4)
        .prop_map(|settings| {
            settings.into_iter().fold(Settings::parse("{}").expect("settings"), |all, one| {
                all.updated(&Settings::parse(&one.to_string()).expect("settings"))
            })
        })
        .prop_map(|settings| serde_json::from_str(&settings.as_json()).expect("an object"))
}

/// The same, without those that say one thing twice and differently.
fn consistent_settings() -> impl Strategy<Value = Map<String, Value>> {
    settings().prop_filter("contradicts itself", |settings| {
        lets_set(&grants_of(None, Some(settings)), settings)
    })
}

fn models() -> impl Strategy<Value = Option<Vec<&'static str>>> {
    prop::option::of(prop::sample::subsequence(&MODELS[..], 0..=MODELS.len()))
}

fn grants_of(models: Option<&[&'static str]>, session: Option<&Map<String, Value>>) -> Grants {
    let grants = Grants::default();
    let grants = match models {
        Some(models) => grants.with_models(models.iter().copied()),
        None => grants,
    };
    match session {
        Some(session) => {
            let json = Value::from(session.clone()).to_string();
            grants.with_session(Settings::parse(&json).expect("settings"))
        }
        None => grants,
    }
}

/// Whether a guard over `grants` lets a client set `settings`, all of them.
fn lets_set(grants: &Grants, settings: &Map<String, Value>) -> bool {
    let update = json!({"type": "session.update", "session": settings}).to_string();
    matches!(SessionGuard::new(grants, None).client(&update), Verdict::Forward(_))
}

fn settings_in(grants: &Grants) -> Map<String, Value> {
    let json = grants.session().map_or_else(|| "{}".to_owned(), Settings::as_json);
    serde_json::from_str(&json).expect("an object")
}

/// What can be granted beside models and settings.
#[derive(Debug, Clone)]
struct Bounds {
    origins: Option<Vec<&'static str>>,
    max_session: Option<u64>,
    uses: Option<u32>,
    role: Option<&'static str>,
}

const ORIGINS: [&str; 3] = ["https://a", "https://b", "http://c:1"];

fn bounds() -> impl Strategy<Value = Bounds> {
    (
        prop::option::of(prop::sample::subsequence(&ORIGINS[..], 0..=ORIGINS.len())),
        prop::option::of(8..=14_u64),
        prop::option::of(0..=3_u32),
        prop::option::of(prop::sample::select(vec!["host", "viewer"])),
    )
        .prop_map(|(origins, max_session, uses, role)| Bounds {
            origins,
            max_session,
            uses,
            role,
        })
}

impl Bounds {
    fn add_to(&self, mut grants: Grants) -> Grants {
        if let Some(origins) = &self.origins {
            grants = grants.with_origins(origins.iter().copied());
        }
        if let Some(seconds) = self.max_session {
            grants = grants.with_max_session(Duration::from_secs(seconds));
        }
        if let Some(uses) = self.uses {
            grants = grants.with_uses(uses);
        }
        if let Some(role) = self.role {
            grants = grants.with_metadata([("role", role)]);
        }
        grants
    }
}

/// How a token is asked for: by the JSON of a client in one of the shapes, or by the operator's own
/// code.
#[derive(Debug, Clone)]
enum Asked {
    ForSecret(Map<String, Value>),
    ForSession(Map<String, Value>),
    ForTranscription(Map<String, Value>),
    ForToken(Map<String, Value>),
    ByOperator {
        models: Option<Vec<&'static str>>,
        session: Option<Map<String, Value>>,
        bounds: Bounds,
    },
}

/// An object of what is there.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let fields = fields.into_iter();
    fields.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn asked() -> impl Strategy<Value = Asked> {
    let for_secret = (
        prop::option::of(prop::sample::select(&MODELS[..])),
        prop::option::of(settings()),
        prop::option::of(1..=120_u64),
    );
    let for_secret = for_secret.prop_map(|(model, session, seconds)| {
        Asked::ForSecret(object([
            ("model", model.map(Value::from)),
            ("session", session.map(Value::from)),
            ("expires_after", seconds.map(|seconds| json!({"seconds": seconds}))),
        ]))
    });
    let flat = || {
        settings().prop_map(|mut settings| {
            settings.remove("audio");
            settings
        })
    };
    let for_session = flat().prop_map(Asked::ForSession);
    let for_transcription = prop::option::of(prop::sample::select(&MODELS[..])).prop_map(|model| {
        let transcription = model.map(|model| json!({"model": model}));
        Asked::ForTranscription(object([("input_audio_transcription", transcription)]))
    });
    let for_token = (models(), prop::option::of(1..=120_u64), bounds());
    let for_token = for_token.prop_map(|(models, seconds, bounds)| {
        let max = bounds.max_session.map(|max| json!({"realtime": {"maxSessionDuration": max}}));
        Asked::ForToken(object([
            ("allowedModels", models.map(Value::from)),
            ("allowedOrigins", bounds.origins.map(Value::from)),
            ("expiresIn", seconds.map(Value::from)),
            ("constraints", max),
            ("metadata", bounds.role.map(|role| json!({"role": role}))),
        ]))
    });
    let by_operator = (models(), prop::option::of(settings()), bounds());
    let by_operator = by_operator.prop_map(|(models, session, bounds)| Asked::ByOperator {
        models,
        session,
        bounds,
    });
    prop_oneof![3 => for_secret, 2 => for_session, 1 => for_transcription, 3 => for_token, 3 => by_operator]
}

/// How many parents and requests; `PROPERTY_CASES` says otherwise.
fn cases() -> u32 {
    let cases = std::env::var("PROPERTY_CASES").ok();
    cases.map_or(4_000, |cases| cases.parse().expect("PROPERTY_CASES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_token_never_exceeds_its_key(
        of_parent in (models(), prop::option::of(consistent_settings()), prop::option::of(1..=120_u64)),
        bounds_of_parent in bounds(),
        waited in 0..=60_u64,
        asked in asked(),
        update in settings(),
    ) {
        let (models, session, lifetime) = of_parent;
        let new = NewKey::secret("acme")
            .with_grants(bounds_of_parent.add_to(grants_of(models.as_deref(), session.as_ref())));
        let new = match lifetime {
            Some(seconds) => new.with_lifetime(Duration::from_secs(seconds)),
            None => new,
        };
        let desk = Desk::over(MemoryStore::new(), new).now_or_never().expect("no waiting");
        let parent = desk.principal();
        desk.clock.advance(Duration::from_secs(waited));
        let now = desk.keys.now();

        let (keys, json) = (desk.keys.clone(), |body: &Map<_, _>| Value::from(body.clone()).to_string());
        let minted = match &asked {
            Asked::ForSecret(body) => {
                desk.endpoint.mint(&parent, json(body).as_bytes()).now_or_never()
            }
            Asked::ForSession(body) => {
                RealtimeSessions::new(keys).mint(&parent, json(body).as_bytes()).now_or_never()
            }
            Asked::ForTranscription(body) => {
                TranscriptionSessions::new(keys).mint(&parent, json(body).as_bytes()).now_or_never()
            }
            Asked::ForToken(body) => {
                ClientTokens::new(keys).mint(&parent, json(body).as_bytes()).now_or_never()
            }
            Asked::ByOperator { models, session, bounds } => {
                let token = NewToken::lasting(Duration::from_secs(1))
                    .with_grants(bounds.add_to(grants_of(models.as_deref(), session.as_ref())));
                desk.keys.mint(&parent, token).now_or_never()
            }
        };
        let tokens = desk.tokens().now_or_never().expect("no waiting");
        let (parent, has) = (parent.record(), parent.grants());
        let issued = match minted.expect("no waiting") {
            Ok(issued) => issued,
            Err(error) => {
                prop_assert!(tokens.iter().all(|token| token.is_revoked()), "{error}");
                let asks_nothing = match &asked {
                    Asked::ForSecret(body) | Asked::ForSession(body) | Asked::ForToken(body) => body.is_empty(),
                    // Its type may be locked to another.
                    Asked::ForTranscription(_) | Asked::ByOperator { .. } => false,
                };
                prop_assert!(!asks_nothing || parent.is_expired(now), "{error}");
                return Ok(());
            }
        };
        prop_assert!(!parent.is_expired(now));
        let token = issued.record();
        let gets = token.grants();

        let ends = token.expires_at().expect("a token expires");
        prop_assert!(ends > now && parent.expires_at().is_none_or(|parent| ends <= parent));
        if let Some(allowed) = has.origins() {
            let given = gets.origins().expect("a list, as the parent has one");
            prop_assert!(given.iter().all(|origin| allowed.contains(origin)));
        }
        let no_more = |given: Option<Duration>, allowed: Option<Duration>| {
            allowed.is_none_or(|allowed| given.is_some_and(|given| given <= allowed))
        };
        prop_assert!(no_more(gets.max_session(), has.max_session()));
        prop_assert!(has.uses().is_none_or(|has| gets.uses().is_some_and(|gets| gets <= has)));
        // Metadata bounds nothing: a token's own, or else its key's.
        prop_assert!(gets.metadata().is_some() || has.metadata().is_none());
        prop_assert_eq!(token.environment(), parent.environment());
        prop_assert_eq!(token.account(), parent.account());
        if let Some(allowed) = has.models() {
            let given = gets.models().expect("a list, as the parent has one");
            prop_assert!(given.iter().all(|model| allowed.contains(model)));
            // Nor is a model that is not allowed what its sessions start with.
            let starts_with = settings_in(gets).get("model").cloned();
            let inherited = starts_with == settings_in(has).get("model").cloned();
            let allowed = |name: &Value| allowed.iter().any(|model| *name == **model);
            prop_assert!(inherited || starts_with.as_ref().is_none_or(allowed), "{starts_with:?}");
        }
        // What its sessions start with, the parent's lock would have let through; and what the
        // parent's lock would not, its own does not either.
        prop_assert!(lets_set(has, &settings_in(gets)), "{:?}", settings_in(gets));
        prop_assert!(lets_set(has, &update) || !lets_set(gets, &update), "{update:?}");
    }
}

/// The two sides of one model list, as an example that a reader can follow.
#[tokio::test]
async fn a_token_names_models_of_its_key() {
    let grants = Grants::default().with_models(["a", "b"]);
    let desk = Desk::over(MemoryStore::new(), NewKey::secret("acme").with_grants(grants)).await;
    for body in [r#"{"model":"c"}"#, r#"{"session":{"model":"c"}}"#] {
        let refused = desk.mint(body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(refused.fault(), (Some("exceeds_api_key"), Some("model")), "{body}");
    }
    let session = Settings::parse(r#"{"model":"c"}"#).unwrap();
    let token = NewToken::lasting(Duration::from_secs(5))
        .with_grants(Grants::default().with_session(session));
    let refused = desk.keys.mint(&desk.principal(), token).await.unwrap_err();
    assert!(
        matches!(&refused, MintError::ExceedsParent { field, .. } if field == "session.model"),
        "{refused:?}"
    );
    assert!(desk.tokens().await.is_empty());

    desk.mint(r#"{"model":"b"}"#).await.token();
    desk.mint("{}").await.token();
    let tokens = desk.tokens().await;
    let lists: BTreeSet<Vec<&str>> = tokens
        .iter()
        .map(|token| token.grants().models().unwrap().iter().map(|model| &**model).collect())
        .collect();
    assert_eq!(lists, BTreeSet::from([vec!["b"], vec!["a", "b"]]));
}

/// The bound on sessions: the parent's, or a tighter one.
#[tokio::test]
async fn a_token_has_no_longer_sessions_than_its_key() {
    let seconds = Duration::from_secs;
    let hour = Grants::default().with_max_session(seconds(3600));
    let brief = Grants::default().with_max_session(seconds(5));
    for (of_key, asked, minted) in [
        (&Grants::default(), None, Ok(None)),
        (&Grants::default(), Some(10), Ok(Some(10))),
        (&Grants::default(), Some(1_000_000), Ok(Some(1_000_000))),
        (&Grants::default(), Some(9), Err("invalid")),
        (&Grants::default(), Some(0), Err("invalid")),
        (&hour, None, Ok(Some(3600))),
        (&hour, Some(3600), Ok(Some(3600))),
        (&hour, Some(10), Ok(Some(10))),
        (&hour, Some(3601), Err("exceeds")),
        (&hour, Some(9), Err("invalid")),
        // What the operator wanted that tight is inherited as it is.
        (&brief, None, Ok(Some(5))),
        (&brief, Some(10), Err("exceeds")),
    ] {
        let key = NewKey::secret("acme").with_grants(of_key.clone());
        let desk = Desk::over(MemoryStore::new(), key).await;
        let asked = asked.map_or_else(Grants::default, |asked| {
            Grants::default().with_max_session(seconds(asked))
        });
        let token = NewToken::lasting(seconds(60)).with_grants(asked.clone());
        let came = match desk.keys.mint(&desk.principal(), token).await {
            Ok(issued) => Ok(issued.record().grants().max_session().map(|max| max.as_secs())),
            Err(MintError::Invalid { field: Some(field), .. }) => Err(("invalid", field)),
            Err(MintError::ExceedsParent { field, .. }) => Err(("exceeds", field)),
            Err(other) => panic!("{other:?}"),
        };
        let minted = minted.map_err(|kind| (kind, "max_session".to_owned()));
        assert_eq!(came, minted, "{of_key:?} <- {asked:?}");
    }
}

/// A setting that the key has locked.
#[tokio::test]
async fn a_token_keeps_what_its_key_has_locked() {
    let settings = Settings::parse(r#"{"voice":"marin","instructions":"Be kind."}"#).unwrap();
    let grants = Grants::default().with_session(settings);
    let desk = Desk::over(MemoryStore::new(), NewKey::secret("acme").with_grants(grants)).await;
    for (body, field) in [
        (r#"{"session":{"voice":"cedar"}}"#, "session.voice"),
        (r#"{"voice":"cedar"}"#, "session.voice"),
        (r#"{"session":{"audio":{"output":{"voice":"cedar"}}}}"#, "session.audio.output.voice"),
    ] {
        let refused = desk.mint(body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(refused.fault(), (Some("exceeds_api_key"), Some(field)), "{body}");
    }
    let reply = desk.mint(r#"{"session":{"voice":"marin","speed":1.5}}"#).await;
    let session = &reply.json["session"];
    assert_eq!(session["voice"], "marin");
    assert_eq!(session["instructions"], "Be kind.");
    assert_eq!(session["speed"], 1.5);
}

/// A part of a setting, or all of them, that the key has locked.
#[tokio::test]
async fn a_token_keeps_the_parts_that_its_key_has_locked() {
    let settings = r#"{"turn_detection":{"type":"server_vad","threshold":0.5}}"#;
    let part = Lock::nothing().and(["turn_detection.threshold"]).unwrap();
    let grants =
        Grants::default().with_session(Settings::parse(settings).unwrap()).with_lock(part.clone());
    let desk = Desk::over(MemoryStore::new(), NewKey::secret("acme").with_grants(grants)).await;
    let reply = desk.mint(r#"{"session":{"turn_detection":{"type":"semantic_vad"}}}"#).await;
    let detection = &reply.json["session"]["turn_detection"];
    assert_eq!(*detection, json!({ "type": "semantic_vad", "threshold": 0.5 }));
    let refused = desk.mint(r#"{"session":{"turn_detection":{"threshold":0.9}}}"#).await;
    assert_eq!(refused.fault().1, Some("session.turn_detection.threshold"));
    // A token locks no less than its key.
    let asked = Grants::default().with_lock(Lock::nothing());
    let token = NewToken::lasting(Duration::from_secs(60)).with_grants(asked);
    let issued = desk.keys.mint(&desk.principal(), token).await.unwrap();
    assert_eq!(issued.record().grants().lock(), Some(&part));

    let grants = Grants::default().with_lock(Lock::all());
    let desk = Desk::over(MemoryStore::new(), NewKey::secret("acme").with_grants(grants)).await;
    let refused = desk.mint(r#"{"session":{"voice":"cedar"}}"#).await;
    assert_eq!(refused.fault(), (Some("exceeds_api_key"), Some("session.voice")));
}
