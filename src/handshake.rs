//! WebSocket handshakes: which requests are one, what they offer, which subprotocol to answer.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};

use crate::profile::Profile;

/// The most bytes of `Sec-WebSocket-Protocol` that are looked at, over all lines.
pub(crate) const MAX_OFFERS_LEN: usize = 16 * 1024;
/// The most subprotocols that are looked at.
pub(crate) const MAX_OFFERS: usize = 32;

/// What a request asks of the connection that it came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// Nothing: an ordinary request.
    None,
    /// A WebSocket by upgrade of HTTP/1.1 (RFC 6455 §4.1).
    Http1,
    /// A WebSocket by extended CONNECT on HTTP/2 (RFC 8441 §4).
    Http2,
    /// Something else, or a WebSocket handshake done wrong. Must not reach the inner service,
    /// which might complete what was not judged.
    Unrecognised,
}

impl Handshake {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        if request.method() == Method::CONNECT {
            // A CONNECT without `:protocol` names an authority and has no path.
            let extended = request.version() == Version::HTTP_2 && !request.uri().path().is_empty();
            return if extended && version_is_13(headers) {
                Self::Http2
            } else {
                Self::Unrecognised
            };
        }
        if !headers.contains_key(UPGRADE) {
            return Self::None;
        }
        let proper = request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && has_element(headers, &CONNECTION, b"upgrade")
            && has_element(headers, &UPGRADE, b"websocket")
            && version_is_13(headers)
            && has_nonce(headers);
        if proper { Self::Http1 } else { Self::Unrecognised }
    }

    pub(crate) const fn is_websocket(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2)
    }

    /// Whether `response` completes this handshake.
    pub(crate) fn is_completed_by<B>(self, response: &Response<B>) -> bool {
        match self {
            Self::Http1 => {
                response.status() == StatusCode::SWITCHING_PROTOCOLS
                    && has_element(response.headers(), &UPGRADE, b"websocket")
            }
            Self::Http2 => response.status().is_success(),
            Self::None | Self::Unrecognised => false,
        }
    }
}

/// Whether a comma-separated header holds `element`, whatever the case (RFC 9110 §5.6.1).
fn has_element(headers: &HeaderMap, name: &HeaderName, element: &[u8]) -> bool {
    let values = headers.get_all(name).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|candidate| candidate.trim_ascii().eq_ignore_ascii_case(element))
}

fn version_is_13(headers: &HeaderMap) -> bool {
    only(headers, &SEC_WEBSOCKET_VERSION).is_some_and(|version| version.as_bytes() == b"13")
}

/// Whether there is one `Sec-WebSocket-Key` of 16 bytes in base64 (RFC 6455 §4.2.1).
fn has_nonce(headers: &HeaderMap) -> bool {
    let mut nonce = [0; 18];
    only(headers, &SEC_WEBSOCKET_KEY)
        .and_then(|key| STANDARD.decode_slice(key.as_bytes(), &mut nonce).ok())
        .is_some_and(|len| len == 16)
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// The subprotocols that a client offers: the elements of all lines, in its order.
pub(crate) fn offers(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|entry| !entry.is_empty())
}

/// Whether the offers are few and short enough to be looked at.
pub(crate) fn offers_within_bounds(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let len: usize = lines.map(HeaderValue::len).sum();
    len <= MAX_OFFERS_LEN && offers(headers).nth(MAX_OFFERS).is_none()
}

/// Whether `text` is a `token` (RFC 9110 §5.6.2), as a subprotocol must be.
pub(crate) fn is_token(text: &[u8]) -> bool {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(legal)
}

/// The subprotocol with which an accepted handshake is answered if the inner service names none.
pub(crate) enum Selection {
    /// One that the service speaks and the client offered.
    Protocol(HeaderValue),
    /// The entry that carried the credential: the client offered nothing else that may be
    /// answered, and browsers insist on an answer (xAI's clients offer only this).
    Credential,
    /// None: nothing was offered that may be answered.
    Nothing,
}

/// Selects for an accepted handshake.
///
/// `consumed` is the subprotocol entry whose credential was accepted, if it was one.
pub(crate) fn select(headers: &HeaderMap, profile: &Profile, consumed: Option<&[u8]>) -> Selection {
    if let Some(protocol) = configured(headers, profile) {
        Selection::Protocol(protocol.clone())
    } else if consumed.is_some_and(is_token) {
        Selection::Credential
    } else {
        Selection::Nothing
    }
}

/// Selects for a handshake that is completed only to be closed.
///
/// Any offered token will do then, but the client's own credential only if there is no other.
/// `None`: the client offered something of which nothing can be answered, so it would not take a
/// completed handshake. `Some(None)`: it offered nothing.
#[cfg(feature = "close")]
pub(crate) fn select_to_refuse(
    headers: &HeaderMap,
    profile: &Profile,
) -> Option<Option<HeaderValue>> {
    use crate::MAX_CREDENTIAL_LEN;

    if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Some(None);
    }
    if !offers_within_bounds(headers) {
        return None;
    }
    if let Some(protocol) = configured(headers, profile) {
        return Some(Some(protocol.clone()));
    }
    let tokens = || offers(headers).filter(|entry| is_token(entry));
    let credential = tokens().find(|entry| profile.credential_in(entry).is_some());
    let plain = tokens()
        .find(|entry| profile.credential_in(entry).is_none() && !profile.is_metadata(entry));
    let metadata = tokens().find(|entry| profile.is_metadata(entry));
    let credential = credential.filter(|entry| entry.len() <= MAX_CREDENTIAL_LEN);
    let entry = plain.or(metadata).or(credential)?;
    let mut value = HeaderValue::from_bytes(entry).ok()?;
    value.set_sensitive(profile.credential_in(entry).is_some());
    Some(Some(value))
}

fn configured<'a>(headers: &HeaderMap, profile: &'a Profile) -> Option<&'a HeaderValue> {
    let mut protocols = profile.protocols().iter();
    protocols.find(|protocol| offers(headers).any(|entry| entry == protocol.as_bytes()))
}
