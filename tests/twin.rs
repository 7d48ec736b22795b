//! The signed twin of a token: one record with two forms, of which the signed one is verified
//! before the store hears of it.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use futures_util::FutureExt as _;
use http_body_util::Full;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};
use serde_json::{Value, json};
use support::{Inner, PLACES, upgrade_with};
use tower::{Layer as _, ServiceExt as _};
use tower_realtime_auth::{
    ApiKey, ClientSecrets, ClientTokens, ConfigError, CredentialSource, Grants, InvalidKey, Issued,
    KeyAdmin, KeyDigest, KeyError, KeyFilter, KeyHasher, KeyKind, KeyRecord, KeyStore, Keys,
    Lookup, ManualClock, MemoryStore, MintError, NewKey, NewToken, Outcome, Pepper, Principal,
    RealtimeAuthLayer, Redeemed, RejectionKind, Revocations, TokenSigner, UnixMillis,
    bytes::Bytes,
    http::{Request, StatusCode},
};

/// When everything here begins: half a second past a full one, so that rounding shows.
const START: UnixMillis = UnixMillis::new(1_700_000_000_500);
const MINUTE: Duration = Duration::from_secs(60);

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "https://audience.example";

/// The seeds of this gateway's key, of the one before it, and of a stranger's.
const OURS: [u8; 32] = [1; 32];
const FORMER: [u8; 32] = [2; 32];
const STRANGE: [u8; 32] = [3; 32];

// ---- Keys to sign with ----

/// PKCS#8 as OpenSSL writes it (RFC 8410 §7).
fn der(seed: [u8; 32]) -> Vec<u8> {
    let head = [0x30, 0x2e, 0x02, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    [&head[..], &seed].concat()
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn private_pem(seed: [u8; 32]) -> String {
    pem("PRIVATE KEY", &der(seed))
}

fn public_key(seed: [u8; 32]) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(jwk(seed)["x"].as_str().unwrap()).unwrap()
}

/// SPKI as OpenSSL writes it (RFC 8410 §4).
fn public_pem(seed: [u8; 32]) -> String {
    let head = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
    pem("PUBLIC KEY", &[&head[..], &public_key(seed)].concat())
}

fn signer(seed: [u8; 32]) -> TokenSigner {
    TokenSigner::from_pem(&private_pem(seed), ISSUER, AUDIENCE).expect("a key")
}

fn jwks(signer: &TokenSigner) -> Vec<Value> {
    let set: Value = serde_json::from_str(&signer.jwks()).expect("JSON");
    set["keys"].as_array().expect("keys").clone()
}

fn jwk(seed: [u8; 32]) -> Value {
    jwks(&signer(seed)).remove(0)
}

// ---- JWTs, good and bad ----

fn part(part: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(part)
}

/// A JWT with this header and these claims, as they are, in bytes.
fn signed(seed: [u8; 32], header: &str, claims: &str) -> String {
    let message = format!("{}.{}", part(header.as_bytes()), part(claims.as_bytes()));
    let key = EncodingKey::from_ed_der(&der(seed));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::EdDSA);
    format!("{message}.{}", signature.expect("a signature"))
}

fn header() -> Value {
    json!({ "typ": "JWT", "alg": "EdDSA", "kid": jwk(OURS)["kid"] })
}

/// A JWT of our own key with these claims.
fn claiming(claims: &Value) -> String {
    signed(OURS, &header().to_string(), &claims.to_string())
}

/// What a JWT claims.
fn claims(twin: &str) -> Value {
    let claims = twin.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64url")).expect("JSON")
}

/// `value` without this member, or with another one.
fn with(mut value: Value, name: &str, member: Option<Value>) -> Value {
    let members = value.as_object_mut().expect("an object");
    match member {
        Some(member) => members.insert(name.to_owned(), member),
        None => members.remove(name),
    };
    value
}

// ---- A gateway ----

/// Counts how often it is asked.
#[derive(Clone, Default)]
struct Counted(Arc<MemoryStore>, Arc<AtomicUsize>);

impl KeyStore for Counted {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.lookup(digest)
    }

    fn redeem(&self, record: &Arc<KeyRecord>) -> Redeemed {
        self.0.redeem(record)
    }

    fn revocations(&self) -> Option<&Revocations> {
        self.0.revocations()
    }
}

struct Gateway {
    store: Counted,
    clock: ManualClock,
    parent: Issued,
    keys: Keys<Arc<MemoryStore>>,
}

impl Gateway {
    async fn open() -> Self {
        Self::with(NewKey::secret("acme")).await
    }

    async fn with(parent: NewKey) -> Self {
        let (store, clock) = (Counted::default(), ManualClock::new(START));
        let keys = Keys::new(Arc::clone(&store.0)).with_clock(clock.clone());
        let keys = keys.with_signer(signer(OURS));
        let parent = keys.issue(parent).await.expect("a key");
        Self { store, clock, parent, keys }
    }

    fn principal(&self) -> Principal {
        Principal::new(Arc::clone(self.parent.record()), CredentialSource::Header, START)
    }

    async fn mint(&self, grants: Grants) -> Issued {
        let token = NewToken::lasting(MINUTE).with_grants(grants);
        self.keys.mint(&self.principal(), token).await.expect("a token")
    }

    /// What a handshake with `text` comes to.
    fn ask(&self, place: CredentialSource, text: &str) -> Result<Principal, RejectionKind> {
        self.ask_signer(signer(OURS), place, text)
    }

    fn ask_signer(
        &self,
        signer: TokenSigner,
        place: CredentialSource,
        text: &str,
    ) -> Result<Principal, RejectionKind> {
        let keys = Keys::new(self.store.clone()).with_clock(self.clock.clone());
        let refused = Arc::new(Mutex::new(None));
        let told = Arc::clone(&refused);
        let layer = RealtimeAuthLayer::new(keys.with_signer(signer)).on_decision(move |decision| {
            if let Outcome::Refused(rejection) = decision.outcome() {
                *told.lock().unwrap() = Some(rejection.kind());
            }
        });
        let asked = layer.layer(Inner::default()).oneshot(upgrade_with(place, text)).now_or_never();
        let response = asked.expect("at once").expect("a response");
        let refused = refused.lock().unwrap().take();
        response.extensions().get().cloned().ok_or_else(|| refused.expect("told why"))
    }

    fn in_header(&self, text: &str) -> Result<Principal, RejectionKind> {
        self.ask(CredentialSource::Header, text)
    }

    /// Why `text` is refused, and how often the store was asked about it.
    fn refusal(&self, text: &str) -> (Option<RejectionKind>, usize) {
        let before = self.store.1.load(Ordering::SeqCst);
        let refusal = self.in_header(text).err();
        (refusal, self.store.1.load(Ordering::SeqCst) - before)
    }
}

fn twin(issued: &Issued) -> &str {
    issued.twin().expect("a twin").expose()
}

const LET_IN: (Option<RejectionKind>, usize) = (None, 1);
/// Refused without a question to the store.
const FORGED: (Option<RejectionKind>, usize) = (Some(RejectionKind::Unknown), 0);
const EXPIRED: (Option<RejectionKind>, usize) = (Some(RejectionKind::Expired), 0);

// ---- One record ----

#[tokio::test]
async fn a_twin_signs_in_wherever_its_token_does() {
    let gateway = Gateway::open().await;
    let issued = gateway.mint(Grants::default()).await;
    for place in PLACES {
        for text in [issued.key().expose(), twin(&issued)] {
            let principal = gateway.ask(place, text).expect("let in");
            assert_eq!(principal.key_id(), issued.record().id());
            assert_eq!((principal.account(), principal.kind()), ("acme", KeyKind::Ephemeral));
            assert_eq!(principal.source(), place);
        }
    }
    // Keys that were issued or taken in have none.
    assert!(gateway.parent.twin().is_none());
    assert_eq!(gateway.refusal(gateway.parent.key().expose()), LET_IN);
}

#[tokio::test]
async fn a_twin_tells_others_what_its_record_says() {
    let gateway = Gateway::open().await;
    let bare = gateway.mint(Grants::default()).await;
    let mut expected = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "acme",
        // The one rounded down, the other up.
        "iat": 1_700_000_000, "exp": 1_700_000_061,
        "jti": bare.record().id().as_str(),
        "parent_api_key_id": gateway.parent.record().id().as_str(),
        "digest": part(bare.record().digest().as_bytes()),
    });
    assert_eq!(claims(twin(&bare)), expected);

    let grants = Grants::default()
        .with_models(["a", "b"])
        .with_origins(["https://a"])
        .with_max_session(MINUTE)
        .with_uses(3)
        .with_metadata([("role", "viewer")]);
    let granted = gateway.mint(grants).await;
    expected["jti"] = granted.record().id().as_str().into();
    expected["digest"] = part(granted.record().digest().as_bytes()).into();
    expected["models"] = json!(["a", "b"]);
    expected["origins"] = json!(["https://a"]);
    expected["constraints"] = json!({ "realtime": { "maxSessionDuration": 60 } });
    assert_eq!(claims(twin(&granted)), expected);

    // Another library verifies it by the published key alone.
    let jwk = serde_json::from_value(jwk(OURS)).expect("a JWK");
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.validate_exp = false;
    let key = DecodingKey::from_jwk(&jwk).expect("a key");
    let verified =
        jsonwebtoken::decode::<Value>(twin(&granted), &key, &validation).expect("signed");
    assert_eq!(verified.claims, expected);
    assert_eq!(serde_json::to_value(verified.header).unwrap(), header());
}

#[tokio::test]
async fn what_the_record_grants_holds_for_the_twin() {
    let gateway = Gateway::open().await;
    let issued = gateway.mint(Grants::default().with_origins(["https://a"])).await;
    assert_eq!(gateway.refusal(twin(&issued)), (Some(RejectionKind::Origin), 1));
    let issued = gateway.mint(Grants::default().with_models(["a", "b"])).await;
    assert_eq!(gateway.refusal(twin(&issued)), (Some(RejectionKind::Model), 1));
}

#[tokio::test]
async fn a_revoked_token_or_parent_leaves_no_twin() {
    for of_parent in [false, true] {
        let gateway = Gateway::open().await;
        let issued = gateway.mint(Grants::default()).await;
        let open = gateway.in_header(twin(&issued)).expect("let in");
        let revoked = if of_parent { gateway.parent.record() } else { issued.record() };
        assert!(open.revoked().now_or_never().is_none());
        gateway.keys.revoke(revoked.id()).await.unwrap();
        assert_eq!(gateway.refusal(twin(&issued)), (Some(RejectionKind::Revoked), 1));
        // Sessions that a twin has opened are told.
        assert!(open.revoked().now_or_never().is_some());
    }
}

#[tokio::test]
async fn a_token_and_its_twin_share_their_uses() {
    for order in [[false, true], [true, false], [true, true]] {
        let gateway = Gateway::open().await;
        let issued = gateway.mint(Grants::default().with_uses(2)).await;
        for signed in order {
            let text = if signed { twin(&issued) } else { issued.key().expose() };
            assert!(gateway.in_header(text).is_ok(), "{order:?}");
        }
        for text in [issued.key().expose(), twin(&issued)] {
            assert_eq!(gateway.in_header(text).err(), Some(RejectionKind::Spent), "{order:?}");
        }
    }
}

/// A twin is found by the digest that it carries, whatever that was made by.
#[tokio::test]
async fn a_new_pepper_leaves_twins_alone() {
    let gateway = Gateway::open().await;
    let issued = gateway.mint(Grants::default()).await;
    let new = KeyHasher::peppered(Pepper::new(1, &[9; 32]).unwrap());
    let keys = gateway.keys.clone().with_hasher(new.with_previous(KeyHasher::plain()));
    let service = RealtimeAuthLayer::new(keys).layer(Inner::default());
    for text in [issued.key().expose(), twin(&issued)] {
        let request = upgrade_with(CredentialSource::Header, text);
        let status = service.clone().oneshot(request).await.unwrap().status();
        assert_eq!(status, StatusCode::SWITCHING_PROTOCOLS);
    }
}

// ---- Time ----

#[tokio::test]
async fn a_twin_expires_with_its_token_to_the_millisecond() {
    let gateway = Gateway::open().await;
    let issued = gateway.mint(Grants::default()).await;
    let expires_at = issued.record().expires_at().unwrap().get();
    assert_eq!(expires_at, START.get() + 60_000);
    // The claim is half a second later, and says no more than what it says.
    for (now, expected) in [
        (expires_at - 1, LET_IN),
        (expires_at, (Some(RejectionKind::Expired), 1)),
        (expires_at + 499, (Some(RejectionKind::Expired), 1)),
        (expires_at + 500, EXPIRED),
        (u64::MAX, EXPIRED),
    ] {
        gateway.clock.set(UnixMillis::new(now));
        assert_eq!(gateway.refusal(twin(&issued)), expected, "{now}");
    }
}

#[tokio::test]
async fn the_claim_holds_to_the_millisecond_too() {
    let gateway = Gateway::open().await;
    let issued = gateway.mint(Grants::default()).await;
    let exp = 1_700_000_030;
    let text = claiming(&with(claims(twin(&issued)), "exp", Some(exp.into())));
    for (now, expected) in
        [(exp * 1_000 - 1, LET_IN), (exp * 1_000, EXPIRED), (exp * 1_000 + 1, EXPIRED)]
    {
        gateway.clock.set(UnixMillis::new(now));
        assert_eq!(gateway.refusal(&text), expected, "{now}");
    }
    // In milliseconds it would be zero, were it not for an end of all numbers.
    let text = claiming(&with(claims(twin(&issued)), "exp", Some((1_u64 << 61).into())));
    gateway.clock.set(START);
    assert_eq!(gateway.refusal(&text), LET_IN);
}

// ---- Forgeries ----

#[tokio::test]
async fn what_was_not_signed_here_is_refused_without_asking_the_store() {
    let gateway = Gateway::open().await;
    let (issued, other) =
        (gateway.mint(Grants::default()).await, gateway.mint(Grants::default()).await);
    let good = twin(&issued);
    assert_eq!(gateway.refusal(good), LET_IN);
    let [head, payload, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let others: Vec<_> = twin(&other).split('.').collect();
    let claims = claims(good).to_string();
    let ours = |header: Value| signed(OURS, &header.to_string(), &claims);
    let by_alg = |alg: &str, signature: &str| {
        let head = with(header(), "alg", Some(alg.into())).to_string();
        format!("{}.{payload}.{signature}", part(head.as_bytes()))
    };
    // The public key, in whatever form it may be had, as the secret of an HMAC.
    let by_hmac = |secret: &[u8]| {
        let head = with(header(), "alg", Some("HS256".into())).to_string();
        let message = format!("{}.{payload}", part(head.as_bytes()));
        let secret = EncodingKey::from_secret(secret);
        let mac = jsonwebtoken::crypto::sign(message.as_bytes(), &secret, Algorithm::HS256);
        format!("{message}.{}", mac.unwrap())
    };
    let x = jwk(OURS)["x"].as_str().unwrap().to_owned();
    let half = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let strange_kid = with(header(), "kid", Some(jwk(STRANGE)["kid"].clone()));
    let head_text = header().to_string();
    let doubled = |name: &str, value: &str| format!(r#"{{"{name}":"{value}",{}"#, &head_text[1..]);
    let forgeries = [
        ("no algorithm, no signature", by_alg("none", "")),
        ("no algorithm", by_alg("none", signature)),
        ("no algorithm, loudly", by_alg("None", "")),
        ("the algorithm in small letters", by_alg("eddsa", signature)),
        ("the algorithm by its curve", by_alg("Ed25519", signature)),
        ("HMAC with the public key", by_hmac(&public_key(OURS))),
        ("HMAC with its text", by_hmac(x.as_bytes())),
        ("HMAC with its PEM", by_hmac(public_pem(OURS).as_bytes())),
        ("signed with another algorithm's name", ours(with(header(), "alg", Some("HS256".into())))),
        ("no algorithm at all, signed", ours(with(header(), "alg", None))),
        ("a list of algorithms", ours(with(header(), "alg", Some(json!(["EdDSA"]))))),
        ("the algorithm twice", signed(OURS, &doubled("alg", "none"), &claims)),
        ("a stranger's key under our name", signed(STRANGE, &head_text, &claims)),
        ("a stranger's key", signed(STRANGE, &strange_kid.to_string(), &claims)),
        ("our key under a stranger's name", ours(strange_kid)),
        ("an unknown kid", ours(with(header(), "kid", Some("x".into())))),
        ("no kid", ours(with(header(), "kid", None))),
        ("a kid that is a number", ours(with(header(), "kid", Some(1.into())))),
        ("the kid twice", signed(OURS, &doubled("kid", "x"), &claims)),
        ("a critical extension", ours(with(header(), "crit", Some(json!(["exp"]))))),
        ("an unknown critical one", ours(with(header(), "crit", Some(json!(["x"]))))),
        ("an empty one", ours(with(header(), "crit", Some(json!([]))))),
        ("a key in the header", ours(with(header(), "jwk", Some(jwk(OURS))))),
        ("a place to find keys", ours(with(header(), "jku", Some("https://evil.example".into())))),
        ("another type", ours(with(header(), "typ", Some("at+jwt".into())))),
        ("another token's claims", format!("{head}.{}.{signature}", others[1])),
        ("another token's signature", format!("{head}.{payload}.{}", others[2])),
        ("no signature", format!("{head}.{payload}.")),
        ("half a signature", format!("{head}.{payload}.{}", part(&half[..32]))),
        ("a byte too few", format!("{head}.{payload}.{}", part(&half[..63]))),
        ("a byte too many", format!("{head}.{payload}.{}", part(&[&half[..], &[0]].concat()))),
        ("a signature of zeros", format!("{head}.{payload}.{}", part(&[0; 64]))),
        ("padding", format!("{good}==")),
        ("no claims", format!("{head}..{signature}")),
        ("claims that are no JSON", signed(OURS, &head_text, "claims")),
        ("claims that are a list", signed(OURS, &head_text, "[]")),
        ("more after the claims", signed(OURS, &head_text, &format!("{claims} {{}}"))),
        ("a header and dots", "eyJ..".to_owned()),
    ];
    for (what, text) in &forgeries {
        assert_eq!(gateway.refusal(text), FORGED, "{what}: {text}");
    }
    // In every place.
    for place in PLACES {
        assert_eq!(gateway.ask(place, &forgeries[0].1).err(), Some(RejectionKind::Unknown));
    }
}

#[tokio::test]
async fn any_single_wrong_character_is_seen() {
    let gateway = Gateway::open().await;
    let issued = gateway.mint(Grants::default()).await;
    let good = twin(&issued);
    for position in 0..good.len() {
        let mut wrong = good.as_bytes().to_vec();
        wrong[position] = if wrong[position] == b'x' { b'y' } else { b'x' };
        let wrong = String::from_utf8(wrong).unwrap();
        let (refusal, asked) = gateway.refusal(&wrong);
        assert_eq!(refusal, Some(RejectionKind::Unknown), "{position}");
        // What has lost the form of a JWT may be a key of any other make.
        let is_jwt = wrong.starts_with("eyJ") && wrong.matches('.').count() == 2;
        assert_eq!(asked, usize::from(!is_jwt), "{position}");
    }
}

/// Signed with our own key, and still not what is signed here.
#[tokio::test]
async fn a_claim_of_another_type_is_not_a_claim_that_is_absent() {
    let gateway = Gateway::open().await;
    let issued = gateway.mint(Grants::default().with_models(["m"]).with_max_session(MINUTE));
    let good = claims(twin(&issued.await));
    assert_eq!(gateway.refusal(&claiming(&good)), LET_IN);
    // What a key may not have is not claimed.
    for name in ["models", "constraints", "parent_api_key_id"] {
        assert_eq!(gateway.refusal(&claiming(&with(good.clone(), name, None))), LET_IN, "{name}");
    }
    let digest = good["digest"].as_str().unwrap();
    let spelled = |digest: String| json!(digest);
    let bad = [
        ("iss", vec![json!("https://else.example"), json!([ISSUER]), json!(1), json!({})]),
        ("aud", vec![json!("https://else.example"), json!([AUDIENCE]), json!([]), json!(true)]),
        ("sub", vec![json!(1), json!(["acme"])]),
        ("iat", vec![json!("1700000000"), json!(1.5), json!(-1)]),
        (
            "exp",
            vec![
                json!("1700000061"),
                json!(1_700_000_061.0),
                json!(1_700_000_061.5),
                json!(-1),
                json!(1e300),
                json!(true),
                json!([1_700_000_061]),
            ],
        ),
        ("jti", vec![json!(1)]),
        (
            "digest",
            vec![
                json!(1),
                json!(""),
                spelled(digest[..42].to_owned()),
                spelled(format!("{digest}=")),
                spelled(part(&[0; 31])),
                spelled(part(&[0; 33])),
                json!([digest]),
            ],
        ),
        ("parent_api_key_id", vec![json!(1)]),
        ("models", vec![json!("m"), json!([1]), json!({})]),
        ("origins", vec![json!("https://a"), json!([null])]),
        (
            "constraints",
            vec![
                json!([]),
                json!({}),
                json!({ "realtime": null }),
                json!({ "realtime": {} }),
                json!({ "realtime": { "maxSessionDuration": "60" } }),
                json!({ "realtime": { "maxSessionDuration": 60, "more": 1 } }),
            ],
        ),
        // Not to be accepted before (RFC 7519 §4.1.5): none is signed here.
        ("nbf", vec![json!(1), json!(1_800_000_000), json!("later")]),
        ("cnf", vec![json!({})]),
    ];
    for (name, values) in bad {
        for value in values.into_iter().chain([Value::Null]) {
            let text = claiming(&with(good.clone(), name, Some(value.clone())));
            assert_eq!(gateway.refusal(&text), FORGED, "{name}: {value}");
        }
    }
    for name in ["iss", "aud", "sub", "iat", "exp", "jti", "digest"] {
        let text = claiming(&with(good.clone(), name, None));
        assert_eq!(gateway.refusal(&text), FORGED, "without {name}");
    }
    // Twice the same claim: who reads the first and who reads the last must not differ.
    for doubled in [r#""exp":1800000000,"#, r#""models":["n"],"#, r#""iss":"x","#] {
        let text = signed(
            OURS,
            &header().to_string(),
            &good.to_string().replacen('{', &format!("{{{doubled}"), 1),
        );
        assert_eq!(gateway.refusal(&text), FORGED, "{doubled}");
    }
    // All in order but the key unknown: this the store must say.
    let unknown = claiming(&with(good, "digest", Some(json!(part(&[7; 32])))));
    assert_eq!(gateway.refusal(&unknown), (Some(RejectionKind::Unknown), 1));
}

#[tokio::test]
async fn a_twin_of_another_gateway_is_a_stranger() {
    let gateway = Gateway::open().await;
    let issued = gateway.mint(Grants::default()).await;
    for (signer, what) in [
        (signer(STRANGE), "key"),
        (TokenSigner::from_pem(&private_pem(OURS), "else", AUDIENCE).unwrap(), "issuer"),
        (TokenSigner::from_pem(&private_pem(OURS), ISSUER, "else").unwrap(), "audience"),
        (TokenSigner::generate(ISSUER, AUDIENCE).unwrap(), "fresh key"),
    ] {
        let before = gateway.store.1.load(Ordering::SeqCst);
        let asked = gateway.ask_signer(signer, CredentialSource::Header, twin(&issued));
        assert_eq!(asked.err(), Some(RejectionKind::Unknown), "another {what}");
        assert_eq!(gateway.store.1.load(Ordering::SeqCst), before, "another {what}");
    }
}

// ---- Keys to sign with ----

#[tokio::test]
async fn a_signing_key_is_replaced_without_a_twin_lost() {
    let gateway = Gateway::open().await;
    let mut twins = Vec::new();
    for seed in [FORMER, OURS, STRANGE] {
        let keys = gateway.keys.clone().with_signer(signer(seed));
        let token = NewToken::lasting(MINUTE);
        twins.push(keys.mint(&gateway.principal(), token).await.unwrap());
    }
    let both = |current, previous: &str| signer(current).with_previous(previous).unwrap();
    for (signer, let_in, published) in [
        (signer(FORMER), [true, false, false], &[FORMER][..]),
        // The new key is published before it signs.
        (both(FORMER, &public_pem(OURS)), [true, true, false], &[FORMER, OURS]),
        (both(OURS, &public_pem(FORMER)), [true, true, false], &[OURS, FORMER]),
        (both(OURS, &private_pem(FORMER)), [true, true, false], &[OURS, FORMER]),
        (both(OURS, &private_pem(OURS)), [false, true, false], &[OURS]),
        (signer(OURS), [false, true, false], &[OURS]),
    ] {
        assert_eq!(jwks(&signer), published.iter().map(|seed| jwk(*seed)).collect::<Vec<_>>());
        for (issued, let_in) in twins.iter().zip(let_in) {
            let asked = gateway.ask_signer(signer.clone(), CredentialSource::Header, twin(issued));
            assert_eq!(asked.is_ok(), let_in, "{signer:?}");
        }
        // The first one signs.
        let keys = gateway.keys.clone().with_signer(signer);
        let issued = keys.mint(&gateway.principal(), NewToken::lasting(MINUTE)).await.unwrap();
        let head = twin(&issued).split('.').next().unwrap();
        let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).unwrap()).unwrap();
        assert_eq!(head["kid"], jwk(published[0])["kid"]);
    }
}

#[test]
fn a_key_set_holds_what_verifiers_need_and_nothing_secret() {
    let key = jwk(OURS);
    let mut names: Vec<_> = key.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x"]);
    assert_eq!(key["kty"], "OKP");
    assert_eq!(key["crv"], "Ed25519");
    assert_eq!(key["alg"], "EdDSA");
    assert_eq!(key["use"], "sig");
    assert_ne!(key["kid"], jwk(FORMER)["kid"]);
    assert_ne!(
        jwks(&TokenSigner::generate("", "").unwrap()),
        jwks(&TokenSigner::generate("", "").unwrap())
    );
}

#[test]
fn only_ed25519_keys_sign() {
    let ours = der(OURS);
    let mut x25519 = ours.clone();
    x25519[11] = 0x6e;
    // What rcgen and ring write: with the public half in it.
    let v2 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_der();
    assert!(TokenSigner::from_pem(&pem("PRIVATE KEY", &v2), ISSUER, AUDIENCE).is_ok());
    let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    for text in [
        String::new(),
        "key".to_owned(),
        STANDARD.encode(&ours),
        pem("PRIVATE KEY", &ours[..47]),
        pem("PRIVATE KEY", &[]),
        pem("PRIVATE KEY", &x25519),
        pem("PRIVATE KEY", &p256.serialize_der()),
        pem("EC PRIVATE KEY", &ours),
        pem("PUBLIC KEY", &public_key(OURS)),
        pem("PUBLIC KEY", &p256.serialize_der()),
    ] {
        let refused = TokenSigner::from_pem(&text, ISSUER, AUDIENCE).unwrap_err();
        assert_eq!(refused, ConfigError::SigningKey, "{text}");
        assert_eq!(
            signer(OURS).with_previous(&text).unwrap_err(),
            ConfigError::SigningKey,
            "{text}"
        );
    }
    let public = TokenSigner::from_pem(&public_pem(OURS), ISSUER, AUDIENCE);
    assert_eq!(public.unwrap_err(), ConfigError::SigningKey);
}

#[tokio::test]
async fn a_jwt_of_another_make_is_no_key_beside_a_signer() {
    let text = signed(STRANGE, &header().to_string(), "{}");
    let (jwt, new) = (ApiKey::new(text).unwrap(), NewKey::secret("acme"));
    let gateway = Gateway::open().await;
    let refused = gateway.keys.import(&jwt, new.clone()).await.unwrap_err();
    assert!(matches!(refused, KeyError::Invalid(InvalidKey::Jwt)), "{refused:?}");

    let without = Keys::new(MemoryStore::new());
    without.import(&jwt, new).await.expect("taken in");
    let service = RealtimeAuthLayer::new(without).layer(Inner::default());
    let request = upgrade_with(CredentialSource::Header, jwt.expose());
    let status = service.oneshot(request).await.unwrap().status();
    assert_eq!(status, StatusCode::SWITCHING_PROTOCOLS);
}

// ---- Minting ----

/// What `endpoint` answers a request that carries `key`.
macro_rules! post {
    ($gateway:expr, $endpoint:expr, $key:expr, $body:expr) => {{
        let request = Request::post("/").header("x-api-key", $key);
        let request = request.body(Full::new(Bytes::from($body.to_string()))).unwrap();
        let service = RealtimeAuthLayer::new($gateway.keys.clone()).layer($endpoint);
        let response = service.oneshot(request).await.unwrap();
        (response.status(), support::json(response).await)
    }};
}

#[tokio::test]
async fn client_tokens_answers_both_forms() {
    let gateway = Gateway::open().await;
    let endpoint = ClientTokens::new(gateway.keys.clone());
    let body = json!({ "expiresIn": 60, "allowedModels": ["m"] });
    let (status, answer) = post!(gateway, endpoint.clone(), gateway.parent.key().expose(), body);
    assert_eq!(status, StatusCode::OK);
    let (key, token) = (answer["apiKey"].as_str().unwrap(), answer["token"].as_str().unwrap());
    assert!(key.starts_with("ek_") && token.starts_with("eyJ"), "{answer}");
    for text in [key, token] {
        assert_eq!(gateway.in_header(text).expect("let in").model(), Some("m"));
    }

    // Neither form mints.
    for text in [key, token] {
        let (status, _) = post!(gateway, endpoint.clone(), text, json!({}));
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    // What nobody would be told of is not made.
    let secrets = ClientSecrets::new(gateway.keys.clone());
    assert!(secrets.mint(&gateway.principal(), b"").await.unwrap().twin().is_none());
}

/// Asks for models with names of `len` bytes in all.
fn long(len: usize) -> Value {
    let models: Vec<_> = (0..len / 200).map(|index| format!("{index:0>200}")).collect();
    json!({ "allowedModels": models })
}

#[tokio::test]
async fn a_twin_that_no_place_could_carry_is_not_minted() {
    let gateway = Gateway::open().await;
    let endpoint = ClientTokens::new(gateway.keys.clone());
    let key = gateway.parent.key().expose();
    let (status, answer) = post!(gateway, endpoint.clone(), key, long(2_400));
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(answer["token"].as_str().unwrap().len() <= 4_096);
    let stored = gateway.store.0.list(&KeyFilter::default()).await.unwrap().len();

    let (status, answer) = post!(gateway, endpoint.clone(), key, long(3_000));
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer["detail"][0]["loc"], json!(["body"]), "{answer}");
    assert!(answer["detail"][0]["msg"].as_str().unwrap().contains("4096 bytes"), "{answer}");
    let body = long(3_000).to_string();
    let refused = endpoint.mint(&gateway.principal(), body.as_bytes()).await.unwrap_err();
    assert!(matches!(refused, MintError::TwinTooLong), "{refused:?}");
    assert_eq!(gateway.store.0.list(&KeyFilter::default()).await.unwrap().len(), stored);
}

// ---- Secrets ----

#[tokio::test]
async fn nothing_secret_is_shown() {
    let signer = TokenSigner::from_pem(&private_pem(OURS), ISSUER, AUDIENCE).unwrap();
    let signer = signer.with_previous(&private_pem(FORMER)).unwrap();
    let gateway = Gateway::open().await;
    let issued = gateway.mint(Grants::default()).await;
    let layer = RealtimeAuthLayer::new(gateway.keys.clone());
    let endpoint = ClientTokens::new(gateway.keys.clone());
    let (keys, error) = (&gateway.keys, TokenSigner::from_pem("canary", "", "").unwrap_err());
    let shown = format!(
        "{signer:?} {signer:#?} {keys:?} {issued:?} {layer:?} {endpoint:?} {error} {error:?}"
    );
    assert!(shown.contains(ISSUER), "something is shown");
    for seed in [OURS, FORMER] {
        for secret in [format!("{seed:?}"), part(&seed), STANDARD.encode(der(seed))] {
            assert!(!shown.contains(&secret[..secret.len().min(40)]), "{shown}");
        }
    }
    let signature = twin(&issued).rsplit('.').next().unwrap();
    assert!(!shown.contains(&signature[..8]) && !shown.contains("canary"), "{shown}");
}
