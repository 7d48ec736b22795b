//! The first door: an HTTP status, a challenge, and JSON that says what to do.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{
        CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
        WWW_AUTHENTICATE,
    },
};

use super::RejectionKind;
use crate::{MakeBody, handshake::Handshake, service::Refused};

/// The response to a refused request that is not closed with a code.
pub(crate) fn respond<M, B>(refused: &Refused, is_http1: bool, make_body: &M) -> Response<B>
where
    M: MakeBody<B>,
{
    let Refused { rejection, handshake, profile, .. } = refused;
    let refusal = profile.refusal(rejection);
    let mut response = Response::new(make_body.make(Bytes::from(refusal.body().to_owned())));
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(challenge) = refusal.challenge() {
        headers.insert(WWW_AUTHENTICATE, challenge.clone());
    }
    if let Some(wait) = rejection.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    if *handshake != Handshake::None && is_http1 {
        refuse_upgrade(headers, rejection.kind());
    }
    response.extensions_mut().insert(*rejection);
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
