//! What the layer must decide for a request, written a second time: from the documentation, in
//! plain strings and vectors, sharing no line with the crate. Slow and obvious on purpose.
//!
//! Refusals are told by their kind; by which door they leave is tested elsewhere.
#![allow(dead_code, reason = "each test uses its part")]

pub mod subject;

pub const MAX_CREDENTIAL: usize = 4096;
pub const MAX_OFFERS: usize = 32;
pub const MAX_OFFERED_BYTES: usize = 16 * 1024;

/// A request as far as it matters. Names of headers are in lower case.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: String,
    pub version: HttpVersion,
    pub authority: Option<String>,
    /// Empty only for a CONNECT that names an authority alone.
    pub path: String,
    pub query: Option<String>,
    pub headers: Vec<(String, Bytes)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HttpVersion {
    Http10,
    Http11,
    Http2,
}

/// Bytes that print as text, long ones in short.
#[derive(Clone, PartialEq, PartialOrd, Eq, Ord)]
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let len = self.0.len();
        if len <= 200 {
            write!(f, "b\"{}\"", self.0.escape_ascii())
        } else {
            let (start, end) = (&self.0[..40], &self.0[len - 10..]);
            write!(f, "b\"{}...{}\" ({len} bytes)", start.escape_ascii(), end.escape_ascii())
        }
    }
}

/// What the layer was told about clients and keys.
#[derive(Clone, Debug)]
pub struct Setting {
    pub profile: Profile,
    pub conflicts: Conflicts,
    /// Whether keys of the test environment are refused.
    pub live_only: bool,
    pub keys: Vec<Key>,
}

#[derive(Clone, Debug)]
pub struct Profile {
    pub headers: Vec<HeaderForm>,
    pub query_names: Vec<&'static str>,
    pub offers: Vec<OfferForm>,
    pub protocols: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub enum HeaderForm {
    /// `NAME: SCHEME KEY`
    Scheme(&'static str, &'static str),
    /// `NAME: KEY`
    Key(&'static str),
}

#[derive(Clone, Debug)]
pub enum OfferForm {
    Prefix(&'static str),
    Base64Url(&'static str),
    After(&'static str),
    Beginning(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Conflicts {
    FirstPresent,
    TryNext,
    RejectConflict,
}

/// A key that the store knows. The default is good for everything.
#[derive(Clone, Debug, Default)]
pub struct Key {
    pub text: String,
    /// The store fails when asked for it.
    pub breaks_store: bool,
    pub revoked: bool,
    pub expired: bool,
    pub test: bool,
    /// It has no use left.
    pub spent: bool,
    pub origins: Option<Vec<&'static str>>,
    pub models: Option<Vec<&'static str>>,
}

/// How the inner service answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inner {
    /// It completes a handshake and names no subprotocol.
    Completes,
    /// It completes a handshake and names this subprotocol, offered or not.
    Chooses(&'static str),
    /// It answers 400.
    Declines,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Accepted(Accepted),
    Refused { kind: &'static str, source: Option<&'static str> },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub key: Bytes,
    pub source: &'static str,
    pub model: Option<String>,
    pub protocol: Option<String>,
    /// What the inner service sees.
    pub query: Option<String>,
    /// What the inner service sees, sorted by name.
    pub headers: Vec<(String, Bytes)>,
    /// Every `Sec-WebSocket-Protocol` of the response, and whether it is marked as sensitive.
    pub echo: Vec<(Bytes, bool)>,
}

pub fn judge(request: &Request, inner: Inner, setting: &Setting) -> Answer {
    let profile = &setting.profile;
    let is_websocket = handshake(request) == Handshake::WebSocket;

    let in_offers = if is_websocket { offers_hold(request, profile) } else { Place::Nothing };
    let places = [
        ("header", headers_hold(request, profile)),
        ("query", query_holds(request, profile)),
        ("subprotocol", in_offers),
    ];
    let mut present = places.iter().filter(|(_, place)| *place != Place::Nothing);
    let Some((first_source, first)) = present.next() else { return refused("missing", None) };
    let mut others = present.clone();
    if setting.conflicts == Conflicts::RejectConflict && others.any(|(_, other)| other != first) {
        return refused("conflict", Some(first_source));
    }

    let mut first_refusal = None;
    for (source, place) in &places {
        let refusal = match place {
            Place::Nothing => continue,
            Place::Malformed => "malformed",
            Place::Key(text) => match check_key(text, request, setting) {
                Ok((key, model)) => {
                    let accepted = accept(request, inner, profile, key, source, model);
                    return Answer::Accepted(accepted);
                }
                Err("store_unavailable") => return refused("store_unavailable", Some(source)),
                Err(kind) => kind,
            },
        };
        first_refusal = first_refusal.or(Some(refused(refusal, Some(source))));
        if setting.conflicts != Conflicts::TryNext {
            break;
        }
    }
    first_refusal.unwrap_or(refused("missing", None))
}

fn refused(kind: &'static str, source: Option<&'static str>) -> Answer {
    Answer::Refused { kind, source }
}

// Is it a WebSocket handshake?

#[derive(PartialEq)]
enum Handshake {
    Plain,
    WebSocket,
    /// Another upgrade, or a handshake done wrong.
    Improper,
}

fn handshake(request: &Request) -> Handshake {
    let is_version_13 = values(request, "sec-websocket-version") == [b"13"];
    let is_proper = if request.method == "CONNECT" {
        request.version == HttpVersion::Http2 && !request.path.is_empty() && is_version_13
    } else if values(request, "upgrade").is_empty() {
        return Handshake::Plain;
    } else {
        let nonces = values(request, "sec-websocket-key");
        request.method == "GET"
            && request.version == HttpVersion::Http11
            && elements(request, "connection").iter().any(|e| e.eq_ignore_ascii_case(b"upgrade"))
            && elements(request, "upgrade").iter().any(|e| e.eq_ignore_ascii_case(b"websocket"))
            && is_version_13
            && nonces.len() == 1
            && is_nonce(nonces[0])
    };
    if is_proper { Handshake::WebSocket } else { Handshake::Improper }
}

/// 16 bytes in base64: 22 characters, of which the last carries two bits only, and the padding.
fn is_nonce(text: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    text.len() == 24
        && text[..22].iter().all(is_base64)
        && b"AQgw".contains(&text[21])
        && text.ends_with(b"==")
}

// What the three places hold

#[derive(PartialEq)]
enum Place {
    Nothing,
    Malformed,
    Key(Vec<u8>),
}

/// What stands where a key is expected.
#[derive(Clone)]
enum Claim {
    Text(Vec<u8>),
    Broken,
}

fn place_of(claims: Vec<Claim>) -> Place {
    let mut keys = Vec::new();
    for claim in claims {
        match claim {
            Claim::Text(text) if text.is_empty() || text == b"null" => {}
            Claim::Text(text) if is_key(&text) => keys.push(text),
            _ => return Place::Malformed,
        }
    }
    keys.dedup();
    match keys.len() {
        0 => Place::Nothing,
        1 => Place::Key(keys.remove(0)),
        _ => Place::Malformed,
    }
}

fn is_key(text: &[u8]) -> bool {
    text.len() <= MAX_CREDENTIAL
        && text.iter().all(|byte| (b'!'..=b'~').contains(byte) && *byte != b',')
}

fn headers_hold(request: &Request, profile: &Profile) -> Place {
    let claims =
        request.headers.iter().filter_map(|(name, value)| header_claim(name, value, profile));
    place_of(claims.collect())
}

/// `None`: the line is not about credentials of ours.
fn header_claim(name: &str, value: &Bytes, profile: &Profile) -> Option<Claim> {
    // Blanks round it are not part of a header's value.
    let value = trim(&value.0);
    profile.headers.iter().find_map(|form| match form {
        HeaderForm::Scheme(of, scheme) if *of == name => behind_scheme(scheme, value),
        HeaderForm::Key(of) if *of == name => {
            let has_scheme = name == "authorization" && value.contains(&b' ');
            (!has_scheme).then(|| Claim::Text(value.to_vec()))
        }
        _ => None,
    })
}

fn behind_scheme(scheme: &str, value: &[u8]) -> Option<Claim> {
    if value.len() < scheme.len() || !value[..scheme.len()].eq_ignore_ascii_case(scheme.as_bytes())
    {
        return None;
    }
    let mut rest = &value[scheme.len()..];
    match rest.first() {
        None => return Some(Claim::Text(Vec::new())),
        Some(b' ') => {}
        Some(b'\t') => return Some(Claim::Broken),
        Some(_) => return None,
    }
    // Before the key, only spaces may stand.
    while let [b' ', end @ ..] = rest {
        rest = end;
    }
    Some(Claim::Text(rest.to_vec()))
}

fn query_holds(request: &Request, profile: &Profile) -> Place {
    let pairs = pairs(request).into_iter().filter(|pair| is_credential_pair(pair, profile));
    // A key holds no space: a plus in a query is a plus.
    let claims =
        pairs.map(|pair| percent_decode(value_of(pair), false).map_or(Claim::Broken, Claim::Text));
    place_of(claims.collect())
}

fn pairs(request: &Request) -> Vec<&str> {
    request
        .query
        .iter()
        .filter(|query| !query.is_empty())
        .flat_map(|query| query.split('&'))
        .collect()
}

fn is_credential_pair(pair: &str, profile: &Profile) -> bool {
    profile.query_names.iter().any(|name| is_named(pair, name))
}

fn is_named(pair: &str, name: &str) -> bool {
    let given = pair.split('=').next().unwrap_or_default();
    percent_decode(given, true) == Some(name.as_bytes().to_vec())
}

fn value_of(pair: &str) -> &str {
    pair.split_once('=').map_or("", |(_, value)| value)
}

fn percent_decode(text: &str, plus_is_space: bool) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        match *first {
            b'%' => {
                let [high, low, others @ ..] = rest else { return None };
                let high = (*high as char).to_digit(16)?;
                let low = (*low as char).to_digit(16)?;
                decoded.push((high * 16 + low) as u8);
                rest = others;
            }
            b'+' if plus_is_space => decoded.push(b' '),
            other => decoded.push(other),
        }
    }
    Some(decoded)
}

struct Offer {
    text: Vec<u8>,
    /// What it says if it is there to carry a key.
    claim: Option<Claim>,
}

fn offers_hold(request: &Request, profile: &Profile) -> Place {
    let bytes: usize =
        values(request, "sec-websocket-protocol").iter().map(|line| line.len()).sum();
    let offers = offers(request, profile);
    if bytes > MAX_OFFERED_BYTES || offers.len() > MAX_OFFERS {
        return Place::Malformed;
    }
    place_of(offers.into_iter().filter_map(|offer| offer.claim).collect())
}

fn offers(request: &Request, profile: &Profile) -> Vec<Offer> {
    let mut offers = Vec::new();
    let mut is_after_marker = false;
    for text in elements(request, "sec-websocket-protocol") {
        let claim = if is_after_marker {
            is_after_marker = false;
            Some(Claim::Text(text.clone()))
        } else {
            is_after_marker = profile
                .offers
                .iter()
                .any(|form| matches!(form, OfferForm::After(marker) if marker.as_bytes() == text));
            profile.offers.iter().find_map(|form| offer_claim(&text, form))
        };
        offers.push(Offer { text, claim });
    }
    offers
}

fn offer_claim(text: &[u8], form: &OfferForm) -> Option<Claim> {
    match form {
        OfferForm::Prefix(prefix) => {
            text.strip_prefix(prefix.as_bytes()).map(|key| Claim::Text(key.to_vec()))
        }
        OfferForm::Base64Url(prefix) => {
            let encoded = text.strip_prefix(prefix.as_bytes())?;
            Some(base64url_decode(encoded).map_or(Claim::Broken, Claim::Text))
        }
        OfferForm::Beginning(with) => {
            text.starts_with(with.as_bytes()).then(|| Claim::Text(text.to_vec()))
        }
        OfferForm::After(_) => None,
    }
}

/// Base64url without padding; bits that are left over must be zero.
fn base64url_decode(text: &[u8]) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = Vec::new();
    for digit in text {
        let value = ALPHABET.iter().position(|known| known == digit)?;
        bits.extend((0..6).rev().map(|bit| value >> bit & 1));
    }
    let bytes = bits.chunks_exact(8);
    let left_over = bytes.remainder();
    if left_over.len() > 4 || left_over.contains(&1) {
        return None;
    }
    Some(bytes.map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | *bit as u8)).collect())
}

// Is the key good for the request?

fn check_key<'s>(
    text: &[u8],
    request: &Request,
    setting: &'s Setting,
) -> Result<(&'s Key, Option<String>), &'static str> {
    let mut keys = setting.keys.iter();
    let key = keys.find(|key| key.text.as_bytes() == text).ok_or("unknown")?;
    if key.breaks_store {
        return Err("store_unavailable");
    }
    if key.revoked {
        return Err("revoked");
    }
    if key.expired {
        return Err("expired");
    }
    if key.test && setting.live_only {
        return Err("environment");
    }
    if let Some(granted) = &key.origins {
        let origins = values(request, "origin");
        let is_granted = origins.len() == 1 && granted.iter().any(|o| o.as_bytes() == origins[0]);
        if !is_granted {
            return Err("origin");
        }
    }
    let handshake = handshake(request);
    let model = check_model(key, request, handshake == Handshake::WebSocket)?;
    match handshake {
        Handshake::Improper => Err("handshake"),
        Handshake::WebSocket if key.spent => Err("spent"),
        Handshake::WebSocket | Handshake::Plain => Ok((key, model)),
    }
}

fn check_model(
    key: &Key,
    request: &Request,
    is_session: bool,
) -> Result<Option<String>, &'static str> {
    let Some(granted) = &key.models else { return Ok(None) };
    let mut named: Vec<_> =
        pairs(request).into_iter().filter(|pair| is_named(pair, "model")).collect();
    match (named.pop(), named.len(), &granted[..]) {
        (None, _, [only]) => Ok(Some(only.to_string())),
        // Only a session is for a model.
        (None, ..) if !is_session => Ok(None),
        (Some(pair), 0, _) => {
            let model = percent_decode(value_of(pair), true).ok_or("model")?;
            let model =
                granted.iter().find(|granted| granted.as_bytes() == model).ok_or("model")?;
            Ok(Some(model.to_string()))
        }
        _ => Err("model"),
    }
}

// What becomes of an accepted request

fn accept(
    request: &Request,
    inner: Inner,
    profile: &Profile,
    key: &Key,
    source: &'static str,
    model: Option<String>,
) -> Accepted {
    let is_websocket = handshake(request) == Handshake::WebSocket;
    let offers = offers(request, profile);

    let is_offered =
        |protocol: &str| offers.iter().any(|o| o.claim.is_none() && o.text == protocol.as_bytes());
    let mut protocols = profile.protocols.iter();
    let protocol = protocols.find(|protocol| is_websocket && is_offered(protocol));
    let consumed = offers.iter().find(|offer| {
        let text = Claim::Text(key.text.clone().into_bytes());
        source == "subprotocol" && offer.claim.as_ref().is_some_and(|claim| same(claim, &text))
    });
    let echo = match (inner, protocol, consumed) {
        (Inner::Chooses(protocol), ..) => Some((protocol.as_bytes().to_vec(), false)),
        (Inner::Completes, Some(protocol), _) => Some((protocol.as_bytes().to_vec(), false)),
        (Inner::Completes, None, Some(entry)) if is_token(&entry.text) => {
            Some((entry.text.clone(), true))
        }
        _ => None,
    };

    Accepted {
        key: Bytes(key.text.clone().into()),
        source,
        model,
        protocol: protocol.map(ToString::to_string),
        query: query_left(request, profile),
        headers: headers_left(request, profile, &offers),
        echo: echo.into_iter().map(|(text, sensitive)| (Bytes(text), sensitive)).collect(),
    }
}

fn same(a: &Claim, b: &Claim) -> bool {
    matches!((a, b), (Claim::Text(a), Claim::Text(b)) if a == b)
}

fn query_left(request: &Request, profile: &Profile) -> Option<String> {
    let pairs = pairs(request);
    let left: Vec<_> =
        pairs.iter().copied().filter(|pair| !is_credential_pair(pair, profile)).collect();
    if left.len() == pairs.len() {
        request.query.clone()
    } else {
        (!left.is_empty()).then(|| left.join("&"))
    }
}

fn headers_left(request: &Request, profile: &Profile, offers: &[Offer]) -> Vec<(String, Bytes)> {
    let offers_change = offers.iter().any(|offer| offer.claim.is_some());
    let mut left = request.headers.clone();
    left.retain(|(name, value)| {
        header_claim(name, value, profile).is_none()
            && !(offers_change && name == "sec-websocket-protocol")
    });
    let others: Vec<_> =
        offers.iter().filter(|o| o.claim.is_none()).map(|offer| offer.text.clone()).collect();
    if offers_change && !others.is_empty() {
        left.push(("sec-websocket-protocol".into(), Bytes(others.join(&b", "[..]))));
    }
    left.sort_by(|a, b| a.0.cmp(&b.0));
    left
}

// Headers

fn values<'r>(request: &'r Request, name: &str) -> Vec<&'r [u8]> {
    let named = request.headers.iter().filter(|(other, _)| other == name);
    named.map(|(_, value)| &value.0[..]).collect()
}

/// The elements of a comma-separated header, those of all lines, without empty ones.
fn elements(request: &Request, name: &str) -> Vec<Vec<u8>> {
    let mut elements = Vec::new();
    for line in values(request, name) {
        elements.extend(line.split(|byte| *byte == b',').map(|element| trim(element).to_vec()));
    }
    elements.retain(|element| !element.is_empty());
    elements
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}
