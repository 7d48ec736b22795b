//! What the mint endpoint answers.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body::{Body, Frame, SizeHint};
use serde_json::{Map, Value, json};

use super::MintError;
use crate::{Issued, UnixMillis};

/// A body that is there as a whole: the JSON of an answer.
#[derive(Debug, Default)]
pub struct JsonBody(Option<Bytes>);

impl From<Bytes> for JsonBody {
    fn from(bytes: Bytes) -> Self {
        Self(Some(bytes))
    }
}

impl Body for JsonBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// `{"value", "expires_at", "session"}`, which OpenAI's, xAI's and Swaram's clients read.
pub(super) fn minted(issued: &Issued) -> Response<JsonBody> {
    let record = issued.record();
    let mut session = record.grants().session().map_or_else(Map::new, |set| set.as_map().clone());
    session.entry("type").or_insert_with(|| "realtime".into());
    session.entry("object").or_insert_with(|| "realtime.session".into());
    let answer = json!({
        "value": issued.key().expose(),
        "expires_at": record.expires_at().map(UnixMillis::as_secs_rounded_up),
        "session": session,
    });
    respond(StatusCode::OK, &answer)
}

/// OpenAI's error object, naming the field.
pub(super) fn refused(error: &MintError) -> Response<JsonBody> {
    let (status, code, param) = match error {
        MintError::NotASecretKey => (StatusCode::FORBIDDEN, "insufficient_scope", None),
        MintError::NotInHeader(_) => (StatusCode::FORBIDDEN, "credential_not_in_header", None),
        MintError::Invalid { field: None, .. } => (StatusCode::BAD_REQUEST, "invalid_json", None),
        MintError::Invalid { field, .. } => {
            (StatusCode::BAD_REQUEST, "invalid_value", field.as_deref())
        }
        MintError::Unknown { field } => {
            (StatusCode::BAD_REQUEST, "unknown_parameter", Some(field.as_str()))
        }
        MintError::ExceedsParent { field, .. } => {
            (StatusCode::BAD_REQUEST, "exceeds_api_key", Some(field.as_str()))
        }
        MintError::BodyTooLong => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", None),
        MintError::TooManyTokens => (StatusCode::TOO_MANY_REQUESTS, "too_many_tokens", None),
        MintError::ParentGone => (StatusCode::UNAUTHORIZED, "invalid_api_key", None),
        MintError::Store(_) | MintError::Random => {
            (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", None)
        }
    };
    let mut response = fault(status, code, param, &error.to_string());
    let headers = response.headers_mut();
    match status {
        StatusCode::FORBIDDEN if matches!(error, MintError::NotASecretKey) => {
            let challenge = r#"Bearer realm="realtime", error="insufficient_scope""#;
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        StatusCode::UNAUTHORIZED => {
            let challenge = r#"Bearer realm="realtime", error="invalid_token""#;
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

pub(super) fn method_not_allowed() -> Response<JsonBody> {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response = fault(status, "method_not_allowed", None, "Use POST.");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

pub(super) fn body_unread() -> Response<JsonBody> {
    let message = "The body did not arrive whole and in time.";
    fault(StatusCode::REQUEST_TIMEOUT, "body_incomplete", None, message)
}

pub(super) fn no_principal() -> Response<JsonBody> {
    let message = "No Principal in the request: put RealtimeAuthLayer round the service that \
                   ClientSecrets is part of.";
    fault(StatusCode::INTERNAL_SERVER_ERROR, "missing_layer", None, message)
}

fn fault(status: StatusCode, code: &str, param: Option<&str>, message: &str) -> Response<JsonBody> {
    let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
    let error = json!({ "type": kind, "code": code, "message": message, "param": param });
    respond(status, &json!({ "error": error }))
}

fn respond(status: StatusCode, json: &Value) -> Response<JsonBody> {
    let mut response = Response::new(JsonBody(Some(Bytes::from(json.to_string()))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
