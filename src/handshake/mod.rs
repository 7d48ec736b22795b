//! WebSocket handshakes: which requests are one, what they offer, which subprotocol to answer.

mod offers;

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};

#[cfg(feature = "close")]
pub(crate) use self::offers::select_to_refuse;
pub(crate) use self::offers::{Key, Kind, Offer, Offered, offers};

/// The header lines by which a handshake is known, gathered while somebody goes through all.
#[derive(Default)]
pub(crate) struct Lines<'a> {
    /// Whether a `Connection` has the element `upgrade`.
    connection_upgrades: bool,
    /// Whether an `Upgrade` has the element `websocket`, if there is any `Upgrade`.
    upgrades_to_websocket: Option<bool>,
    version: Once<'a>,
    nonce: Once<'a>,
    /// How many bytes of subprotocols are offered, if any are.
    pub(crate) offers_len: Option<usize>,
}

impl<'a> Lines<'a> {
    #[inline]
    pub(crate) fn take(&mut self, name: &HeaderName, line: &'a HeaderValue) {
        match *name {
            CONNECTION => self.connection_upgrades |= has_element(line, b"upgrade"),
            UPGRADE => {
                *self.upgrades_to_websocket.get_or_insert(false) |= has_element(line, b"websocket");
            }
            SEC_WEBSOCKET_VERSION => self.version.take(line),
            SEC_WEBSOCKET_KEY => self.nonce.take(line),
            SEC_WEBSOCKET_PROTOCOL => *self.offers_len.get_or_insert(0) += line.len(),
            _ => {}
        }
    }
}

/// A line that counts only if there is no second one.
#[derive(Default)]
struct Once<'a> {
    first: Option<&'a [u8]>,
    is_repeated: bool,
}

impl<'a> Once<'a> {
    fn take(&mut self, line: &'a HeaderValue) {
        self.is_repeated = self.first.is_some();
        self.first = Some(line.as_bytes());
    }

    fn is(&self, good: impl FnOnce(&[u8]) -> bool) -> bool {
        !self.is_repeated && self.first.is_some_and(good)
    }
}

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
    /// What `request` asks for.
    #[cfg(feature = "limit")]
    pub(crate) fn at<B>(request: &Request<B>) -> Self {
        let mut lines = Lines::default();
        for (name, line) in request.headers() {
            lines.take(name, line);
        }
        Self::of(request, &lines)
    }

    /// What `request` asks for, whose headers are `lines`.
    pub(crate) fn of<B>(request: &Request<B>, lines: &Lines<'_>) -> Self {
        if request.method() == Method::CONNECT {
            // A CONNECT without `:protocol` names an authority and has no path.
            let extended = request.version() == Version::HTTP_2 && !request.uri().path().is_empty();
            #[cfg(feature = "http2")]
            let extended = extended && names_websocket(request);
            let proper = extended && lines.version.is(is_13);
            return if proper { Self::Http2 } else { Self::Unrecognised };
        }
        let Some(to_websocket) = lines.upgrades_to_websocket else { return Self::None };
        let proper = to_websocket
            && request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && lines.connection_upgrades
            && lines.version.is(is_13)
            && lines.nonce.is(is_nonce);
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
                    && response
                        .headers()
                        .get_all(UPGRADE)
                        .iter()
                        .any(|line| has_element(line, b"websocket"))
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

/// Whether a line of a comma-separated header holds `element`, whatever the case (RFC 9110 §5.6.1).
#[inline]
fn has_element(line: &HeaderValue, element: &[u8]) -> bool {
    let line = line.as_bytes();
    // Most clients send nothing else.
    line == element
        || line.eq_ignore_ascii_case(element)
        || line
            .split(|byte| *byte == b',')
            .any(|candidate| candidate.trim_ascii().eq_ignore_ascii_case(element))
}

fn is_13(version: &[u8]) -> bool {
    version == b"13"
}

/// Whether a `Sec-WebSocket-Key` is 16 bytes in base64 (RFC 6455 §4.2.1).
fn is_nonce(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() | (*byte == b'+') | (*byte == b'/');
    // The 22nd digit has two bits of the nonce; its other four are zero (RFC 4648 §3.5). Without
    // an early end, many digits are looked at in one step.
    match key.split_first_chunk::<21>() {
        Some((digits, [b'A' | b'Q' | b'g' | b'w', b'=', b'='])) => {
            digits.iter().fold(true, |legal, digit| legal & is_digit(digit))
        }
        _ => false,
    }
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
