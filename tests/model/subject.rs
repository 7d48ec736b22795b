//! The layer itself, asked in the model's words and answering in them.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use hyper::ext::Protocol;
use tower::{Layer as _, Service as _, util::ServiceFn};
use tower_realtime_auth::{
    Answer as StoreAnswer, ApiKey, CredentialSource, Environment, Grants, KeyDigest, KeyKind,
    KeyStore, Keys, Lookup, ManualClock, MemoryStore, NewKey, Principal, RealtimeAuth,
    RealtimeAuthLayer, Redeemed, RefusalMode, Rejection, StoreError, SubprotocolForm, UnixMillis,
    bytes::Bytes as Body,
    http::{self, HeaderMap, HeaderValue, Method, StatusCode, Version, header, uri::Authority},
};

use super::{
    Accepted, Answer, Bytes, Conflicts, HeaderForm, HttpVersion, Inner, Key, OfferForm, Profile,
    Request, Setting,
};

type Service = RealtimeAuth<ServiceFn<Handler>, Flaky>;
type Handler = fn(http::Request<()>) -> Ready<Result<http::Response<Body>, Infallible>>;

/// The subprotocol that an inner service names that chooses for itself.
pub const FORCED: &str = "forced";

/// A key in the form of those that are issued by the crate, checksum and all.
pub const ISSUED: &str = "sk_live_7d0Q2mXkT4vB9sLr1WcYzE6hNpUa3GfJi2Gy64j";

/// Every setting that the layer is tried in, each with a service that is in it.
pub struct Subject {
    settings: Vec<(Setting, Service)>,
}

impl Subject {
    pub fn new() -> Self {
        let keys = keys();
        let store = store_of(&keys);
        let mut settings = Vec::new();
        for profile in profiles() {
            for conflicts in
                [Conflicts::FirstPresent, Conflicts::TryNext, Conflicts::RejectConflict]
            {
                for live_only in [false, true] {
                    let (profile, keys) = (profile.clone(), keys.clone());
                    let setting = Setting { profile, conflicts, live_only, keys };
                    let service = service(&setting, store.clone());
                    settings.push((setting, service));
                }
            }
        }
        Self { settings }
    }

    /// Any number names a setting.
    pub fn setting(&self, number: usize) -> &Setting {
        &self.settings[number % self.settings.len()].0
    }

    pub fn settings(&self) -> usize {
        self.settings.len()
    }

    /// What the layer decides. `None`: no server could pass such a request on.
    pub fn answer(&self, request: &Request, inner: Inner, setting: usize) -> Option<Answer> {
        let mut incoming = incoming(request)?;
        incoming.extensions_mut().insert(inner);
        if request.method == "CONNECT" && !request.path.is_empty() {
            // As hyper tells of a CONNECT that names a protocol.
            incoming.extensions_mut().insert(Protocol::from_static("websocket"));
        }
        let mut service = self.settings[setting % self.settings.len()].1.clone();
        let response = service.call(incoming).now_or_never().expect("an answer at once");
        let Ok(mut response) = response;
        let answer = match response.extensions_mut().remove::<Seen>() {
            Some(Seen { principal, uri, headers }) => Answer::Accepted(Accepted {
                key: Bytes(principal.account().into()),
                source: principal.source().as_str(),
                model: principal.model().map(Into::into),
                protocol: principal.protocol().map(Into::into),
                query: query_of(request, &uri),
                headers: lines_of(&headers),
                echo: echo_of(&response),
            }),
            None => {
                assert_eq!(echo_of(&response), [], "a refusal selects nothing");
                let rejection = response.extensions().get::<Rejection>().expect("a reason");
                let source = rejection.source().map(CredentialSource::as_str);
                Answer::Refused { kind: rejection.kind().as_str(), source }
            }
        };
        Some(answer)
    }
}

fn profiles() -> [Profile; 3] {
    [
        Profile {
            headers: vec![
                HeaderForm::Scheme("authorization", "Bearer"),
                HeaderForm::Key("x-api-key"),
                HeaderForm::Key("api-key"),
            ],
            query_names: vec!["api_key"],
            offers: vec![
                OfferForm::Prefix("openai-insecure-api-key."),
                OfferForm::Prefix("xai-client-secret."),
            ],
            protocols: vec!["realtime"],
        },
        Profile {
            headers: vec![
                HeaderForm::Scheme("authorization", "Token"),
                HeaderForm::Key("x-goog-api-key"),
                HeaderForm::Scheme("authorization", "Bearer"),
                HeaderForm::Scheme("x-auth", "Key"),
            ],
            query_names: vec!["key", "access_token"],
            offers: vec![
                OfferForm::Base64Url("base64url.bearer."),
                OfferForm::After("token"),
                OfferForm::Beginning("rt_"),
                OfferForm::Prefix("openai-insecure-api-key."),
                OfferForm::After("bearer"),
            ],
            protocols: vec!["v5.channel", "token", "realtime"],
        },
        Profile {
            headers: vec![HeaderForm::Key("authorization")],
            query_names: vec![],
            offers: vec![],
            protocols: vec![],
        },
    ]
}

/// One key for each fate, some in two ways at once, some with texts that are hard to carry.
pub fn keys() -> Vec<Key> {
    let key = |text: &str| Key { text: text.into(), ..Key::default() };
    let app = Some(vec!["https://app.example", "null"]);
    vec![
        key("good"),
        key("other"),
        key("a+b%41="),
        key("rt_good"),
        key(ISSUED),
        key("null"),
        Key { text: "k".repeat(super::MAX_CREDENTIAL), ..Key::default() },
        Key { breaks_store: true, ..key("breaks") },
        Key { revoked: true, ..key("revoked") },
        Key { expired: true, ..key("expired") },
        Key { revoked: true, expired: true, ..key("revoked-expired") },
        Key { test: true, ..key("test") },
        Key { spent: true, ..key("spent") },
        Key { origins: app.clone(), ..key("app") },
        Key { models: Some(vec!["m1"]), ..key("m1") },
        Key { models: Some(vec!["m1", "m 2"]), ..key("m1-m2") },
        Key { models: Some(vec![]), ..key("no-model") },
        Key { test: true, spent: true, origins: app, models: Some(vec!["m 2"]), ..key("narrow") },
    ]
}

/// A store in memory that fails for some keys.
#[derive(Clone)]
struct Flaky {
    memory: Arc<MemoryStore>,
    breaks: Arc<[KeyDigest]>,
    clock: ManualClock,
}

impl KeyStore for Flaky {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        if self.breaks.contains(digest) {
            return StoreAnswer::ready(Err(StoreError::new("as told to")));
        }
        self.memory.lookup(digest)
    }

    fn redeem(&self, record: &Arc<tower_realtime_auth::KeyRecord>) -> Redeemed {
        self.memory.redeem(record)
    }
}

fn store_of(known: &[Key]) -> Flaky {
    let clock = ManualClock::new(UnixMillis::new(1_000_000));
    let memory = Arc::new(MemoryStore::new());
    let keys = Keys::new(Arc::clone(&memory)).with_clock(clock.clone());
    let mut breaks = Vec::new();
    for key in known {
        let mut grants = Grants::default();
        if let Some(origins) = &key.origins {
            grants = grants.with_origins(origins.iter().copied());
        }
        if let Some(models) = &key.models {
            grants = grants.with_models(models.iter().copied());
        }
        if key.spent {
            grants = grants.with_uses(0);
        }
        // The account tells which key it was.
        let mut new = NewKey::secret(&*key.text).with_grants(grants);
        if key.test {
            new = new.with_environment(Environment::Test);
        }
        if key.expired {
            new = new.with_lifetime(Duration::from_secs(1));
        }
        let text = ApiKey::new(&*key.text).expect("a legal key");
        let record = keys.import(&text, new).now_or_never().expect("at once").expect("a new key");
        assert_eq!(record.kind(), KeyKind::Secret);
        if key.revoked {
            keys.revoke(record.id()).now_or_never().expect("at once").expect("revoked");
        }
        if key.breaks_store {
            breaks.push(*record.digest());
        }
    }
    clock.advance(Duration::from_secs(1));
    Flaky { memory, breaks: breaks.into(), clock }
}

fn service(setting: &Setting, store: Flaky) -> Service {
    let clock = store.clock.clone();
    let mut layer = RealtimeAuthLayer::new(Keys::new(store).with_clock(clock))
        .with_profile(profile(&setting.profile))
        .with_conflicts(match setting.conflicts {
            Conflicts::FirstPresent => tower_realtime_auth::Conflicts::FirstPresent,
            Conflicts::TryNext => tower_realtime_auth::Conflicts::TryNext,
            Conflicts::RejectConflict => tower_realtime_auth::Conflicts::RejectConflict,
        })
        .with_refusal(RefusalMode::Never);
    if setting.live_only {
        layer = layer.with_environment(Environment::Live);
    }
    layer.layer(tower::service_fn(handle as Handler))
}

fn profile(described: &Profile) -> tower_realtime_auth::Profile {
    let headers = described.headers.iter().map(|form| match form {
        HeaderForm::Scheme(name, scheme) => tower_realtime_auth::HeaderForm::scheme(name, scheme),
        HeaderForm::Key(name) => tower_realtime_auth::HeaderForm::key(name),
    });
    let offers = described.offers.iter().map(|form| match form {
        OfferForm::Prefix(prefix) => SubprotocolForm::prefix(prefix),
        OfferForm::Base64Url(prefix) => SubprotocolForm::base64url(prefix),
        OfferForm::After(marker) => SubprotocolForm::after(marker),
        OfferForm::Beginning(with) => SubprotocolForm::beginning(with),
    });
    tower_realtime_auth::Profile::default()
        .with_headers(headers.map(|form| form.expect("a legal header")))
        .with_subprotocols(offers.map(|form| form.expect("a legal subprotocol")))
        .with_query_names(described.query_names.iter().copied())
        .and_then(|profile| profile.with_protocols(described.protocols.iter().copied()))
        .expect("a legal profile")
}

/// The request as a server would hand it on, if one could receive it.
fn incoming(request: &Request) -> Option<http::Request<()>> {
    let mut target = String::new();
    if let Some(authority) = &request.authority {
        target += if request.path.is_empty() { "" } else { "https://" };
        target += authority;
    }
    target += &request.path;
    if let Some(query) = &request.query {
        target += "?";
        target += query;
    }
    let mut incoming = http::Request::builder()
        .method(request.method.as_bytes())
        .uri(&target)
        .version(match request.version {
            HttpVersion::Http10 => Version::HTTP_10,
            HttpVersion::Http11 => Version::HTTP_11,
            HttpVersion::Http2 => Version::HTTP_2,
        })
        .body(())
        .ok()?;
    let uri = incoming.uri();
    let as_meant = (uri.path(), uri.query(), uri.authority().map(Authority::as_str))
        == (&request.path, request.query.as_deref(), request.authority.as_deref());
    if !as_meant {
        return None;
    }
    for (name, value) in &request.headers {
        let name = header::HeaderName::from_bytes(name.as_bytes()).ok()?;
        incoming.headers_mut().append(name, HeaderValue::from_bytes(&value.0).ok()?);
    }
    Some(incoming)
}

/// What the inner service saw.
#[derive(Clone)]
struct Seen {
    principal: Principal,
    uri: http::Uri,
    headers: HeaderMap,
}

fn handle(request: http::Request<()>) -> Ready<Result<http::Response<Body>, Infallible>> {
    let (parts, ()) = request.into_parts();
    let inner = *parts.extensions.get::<Inner>().expect("the case says how to answer");
    let mut response = http::Response::new(Body::new());
    if inner == Inner::Declines {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    } else if parts.method != Method::CONNECT && parts.headers.contains_key(header::UPGRADE) {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    if let Inner::Chooses(protocol) = inner {
        let protocol = HeaderValue::from_static(protocol);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let principal = parts.extensions.get::<Principal>().expect("a principal").clone();
    principal.waive_guard();
    response.extensions_mut().insert(Seen { principal, uri: parts.uri, headers: parts.headers });
    ready(Ok(response))
}

/// The query that is left, and nothing else of the URI changed.
fn query_of(request: &Request, uri: &http::Uri) -> Option<String> {
    assert_eq!(uri.path(), request.path);
    assert_eq!(uri.authority().map(Authority::as_str), request.authority.as_deref());
    uri.query().map(Into::into)
}

fn lines_of(headers: &HeaderMap) -> Vec<(String, Bytes)> {
    let lines =
        headers.iter().map(|(name, value)| (name.to_string(), Bytes(value.as_bytes().into())));
    let mut lines: Vec<_> = lines.collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines
}

fn echo_of(response: &http::Response<Body>) -> Vec<(Bytes, bool)> {
    let lines = response.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    lines.map(|line| (Bytes(line.as_bytes().into()), line.is_sensitive())).collect()
}
