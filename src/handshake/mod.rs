//! WebSocket handshakes: which requests are one, what they offer, which subprotocol to answer.

mod offers;

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};

#[cfg(feature = "close")]
pub(crate) use self::offers::select_to_refuse;
pub(crate) use self::offers::{
    Amount, Key, Kind, Offer, Selection, amount_of_offers, offers, select,
};

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
            #[cfg(feature = "http2")]
            let extended = extended && names_websocket(request);
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

/// Whether `:protocol` is `websocket` (RFC 8441 §5). Only hyper's feature `http2` can tell.
#[cfg(feature = "http2")]
fn names_websocket<B>(request: &Request<B>) -> bool {
    let protocol = request.extensions().get::<hyper::ext::Protocol>();
    protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// Whether a comma-separated header holds `element`, whatever the case (RFC 9110 §5.6.1).
fn has_element(headers: &HeaderMap, name: &HeaderName, element: &[u8]) -> bool {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).any(|value| {
        // Most clients send nothing else.
        value.eq_ignore_ascii_case(element)
            || value
                .split(|byte| *byte == b',')
                .any(|candidate| candidate.trim_ascii().eq_ignore_ascii_case(element))
    })
}

fn version_is_13(headers: &HeaderMap) -> bool {
    only(headers, &SEC_WEBSOCKET_VERSION).is_some_and(|version| version.as_bytes() == b"13")
}

/// Whether there is one `Sec-WebSocket-Key` of 16 bytes in base64 (RFC 6455 §4.2.1).
fn has_nonce(headers: &HeaderMap) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    // The 22nd digit has two bits of the nonce; its other four are zero (RFC 4648 §3.5).
    only(headers, &SEC_WEBSOCKET_KEY).is_some_and(|key| match key.as_bytes() {
        [digits @ .., b'A' | b'Q' | b'g' | b'w', b'=', b'='] => {
            digits.len() == 21 && digits.iter().fold(true, |legal, digit| legal & is_digit(digit))
        }
        _ => false,
    })
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Whether `text` is a `token` (RFC 9110 §5.6.2), as a subprotocol must be.
pub(crate) fn is_token(text: &[u8]) -> bool {
    let legal = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~'
            )
    };
    !text.is_empty() && text.iter().all(legal)
}
