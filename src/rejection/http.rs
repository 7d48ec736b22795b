//! The first door: an HTTP status, a challenge, and JSON that says what to do.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
        WWW_AUTHENTICATE,
    },
};

use super::{Challenge, Rejection, RejectionKind};
use crate::{MakeBody, handshake::Handshake};

/// The response to a refused request that is not closed with a code.
pub(crate) fn respond<M, B>(
    rejection: Rejection,
    handshake: Handshake,
    is_http1: bool,
    make_body: &M,
) -> Response<B>
where
    M: MakeBody<B>,
{
    let says = rejection.kind.says();
    let json = format!(r#"{{"error":{}}}"#, says.error_json());
    let mut response = Response::new(make_body.make(Bytes::from(json)));
    *response.status_mut() = StatusCode::from_u16(says.status).unwrap_or(StatusCode::UNAUTHORIZED);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(challenge) = says.challenge {
        headers.insert(WWW_AUTHENTICATE, challenge.value());
    }
    if let Some(wait) = rejection.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    if handshake != Handshake::None && is_http1 {
        refuse_upgrade(headers, rejection.kind);
    }
    response.extensions_mut().insert(rejection);
    response
}

/// What follows a refused upgrade on its connection is not to be read as anything, so the
/// connection ends. A handshake done wrong learns what would be right (RFC 6455 §4.4; RFC 9110
/// §15.5.22).
fn refuse_upgrade(headers: &mut HeaderMap, kind: RejectionKind) {
    if kind == RejectionKind::Handshake {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade, close"));
    } else {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

impl Challenge {
    const fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Bare => r#"Bearer realm="realtime""#,
            Self::InvalidRequest => r#"Bearer realm="realtime", error="invalid_request""#,
            Self::InvalidToken => r#"Bearer realm="realtime", error="invalid_token""#,
            Self::InsufficientScope => r#"Bearer realm="realtime", error="insufficient_scope""#,
        })
    }
}
