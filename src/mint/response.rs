//! What mint endpoints answer.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body::{Body, Frame, SizeHint};
use serde_json::json;

use super::MintError;
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

/// Why there is no token, in the terms of HTTP. Each shape has words of its own for it.
#[derive(Debug)]
pub struct Fault {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) field: Option<String>,
    pub(super) message: String,
}

impl Fault {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, field: None, message: message.into() }
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Use POST.")
    }

    pub(super) fn body_unread() -> Self {
        let message = "The body did not arrive whole and in time.";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_incomplete", message)
    }

    /// There is no layer round the service of this name.
    pub(super) fn no_principal(service: &str) -> Self {
        let message = format!(
            "No Principal in the request: put RealtimeAuthLayer round the service that {service} \
             is part of."
        );
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "missing_layer", message)
    }

    /// OpenAI's error object, naming the field.
    pub(super) fn as_openai(&self) -> String {
        let kind =
            if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        let (code, message, param) = (self.code, &self.message, &self.field);
        json!({ "error": { "type": kind, "code": code, "message": message, "param": param } })
            .to_string()
    }

    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        const UNSCOPED: &str = r#"Bearer realm="realtime", error="insufficient_scope""#;
        const INVALID: &str = r#"Bearer realm="realtime", error="invalid_token""#;
        let (name, value) = match self.status {
            StatusCode::FORBIDDEN if self.code == "insufficient_scope" => {
                (WWW_AUTHENTICATE, UNSCOPED)
            }
            StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, INVALID),
            StatusCode::METHOD_NOT_ALLOWED => (ALLOW, "POST"),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => (RETRY_AFTER, "1"),
            _ => return,
        };
        headers.insert(name, HeaderValue::from_static(value));
    }
}

impl From<MintError> for Fault {
    fn from(error: MintError) -> Self {
        let (status, code) = match &error {
            MintError::NotASecretKey => (StatusCode::FORBIDDEN, "insufficient_scope"),
            MintError::NotInHeader(_) => (StatusCode::FORBIDDEN, "credential_not_in_header"),
            MintError::Invalid { field: None, .. } => (StatusCode::BAD_REQUEST, "invalid_json"),
            MintError::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_value"),
            MintError::Unknown { .. } => (StatusCode::BAD_REQUEST, "unknown_parameter"),
            MintError::ExceedsParent { .. } => (StatusCode::BAD_REQUEST, "exceeds_api_key"),
            MintError::TwinTooLong => (StatusCode::BAD_REQUEST, "token_too_long"),
            MintError::BodyTooLong => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            MintError::TooManyTokens => (StatusCode::TOO_MANY_REQUESTS, "too_many_tokens"),
            MintError::ParentGone => (StatusCode::UNAUTHORIZED, "invalid_api_key"),
            MintError::Store(_) | MintError::Random => {
                (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable")
            }
        };
        let message = error.to_string();
        let field = match error {
            MintError::Invalid { field, .. } => field,
            MintError::Unknown { field } | MintError::ExceedsParent { field, .. } => Some(field),
            _ => None,
        };
        Self { field, ..Self::new(status, code, message) }
    }
}

pub(super) fn respond(status: StatusCode, json: String) -> Response<JsonBody> {
    let mut response = Response::new(JsonBody(Some(Bytes::from(json))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
