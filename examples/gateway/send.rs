//! `POST /v1/send` and `GET /v1/usage`, in Svara's shape: a message that counts against the plan of
//! its key, and what is left of that plan. The messages of this gateway reach nobody.

use std::time::{Duration, UNIX_EPOCH};

use axum::{
    Extension, Json, Router,
    body::{Body, to_bytes},
    extract::FromRequestParts,
    http::{StatusCode, header::CACHE_CONTROL, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use humantime::format_rfc3339_seconds;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tower_realtime_auth::{
    Clock as _, Counted, Environment, KeyKind, Principal, Standing, SystemClock, UnixMillis, Usage,
};

use crate::{model::fresh, server};

/// How long a body may be, and how long it may take to arrive.
const MAX_BODY: usize = 64 * 1024;
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Addresses that never lead anywhere (RFC 6761 §6.4), to try what becomes of a failure.
const UNDELIVERABLE: &str = ".invalid";

pub fn routes() -> Router {
    Router::new()
        .route(server::SEND, post(send).fallback(wrong_method))
        .route(server::USAGE, get(usage).fallback(wrong_method))
}

/// A secret key. Tokens are for sessions: whoever holds one in a browser sends nothing.
struct Sender(Principal);

impl<S: Send + Sync> FromRequestParts<S> for Sender {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let principal = Principal::from_request_parts(parts, state)
            .await
            .map_err(IntoResponse::into_response)?;
        if principal.kind() == KeyKind::Secret {
            return Ok(Self(principal));
        }
        let message = "A minted token opens sessions alone. Use a secret key, on a server.";
        Err(Fault::new(StatusCode::FORBIDDEN, "insufficient_scope", message).into_response())
    }
}

async fn send(
    Sender(principal): Sender,
    Extension(usage): Extension<Usage>,
    body: Body,
) -> Result<Response, Response> {
    let message = Message::read(body).await?;
    // Before the work, so that nobody gets more done than is left.
    let reserved = usage.reserve(1).await.map_err(|refused| refused.response())?;
    deliver(&message)?;
    // What failed has not got here and is given back.
    reserved.commit();
    let simulated = principal.environment() == Environment::Test;
    Ok(answer(json!({
        "id": fresh("msg"),
        "status": if simulated { "simulated" } else { "sent" },
        "simulated": simulated,
        "to": message.to,
        "channel": message.channel,
    })))
}

async fn usage(_: Sender, Extension(usage): Extension<Usage>) -> Response {
    let now = SystemClock.now();
    // Without a limit nobody counts.
    let (usage, requests) = (usage.standing(), usage.requests());
    let reset = requests.and_then(|requests| requests.resets_at());
    let end = Counted::Usage.until(now).unwrap_or(now);
    let last_day = UnixMillis::new(end.get().saturating_sub(1));
    let start = format!("{:.7}-01T00:00:00Z", iso8601(last_day));
    answer(json!({
        "usage": {
            "limit": usage.map(|usage| usage.limit()),
            "used": usage.map(used),
            "remaining": usage.map(|usage| usage.remaining()),
            "period": { "start": start, "end": iso8601(end) },
        },
        "requests": {
            "limit": requests.map(|requests| requests.limit()),
            "used": requests.map(used),
            "remaining": requests.map(|requests| requests.remaining()),
            "reset": reset.map(UnixMillis::as_secs_rounded_up),
        },
    }))
}

fn used(standing: Standing) -> u64 {
    standing.limit().saturating_sub(standing.remaining())
}

fn iso8601(time: UnixMillis) -> String {
    format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(time.get())).to_string()
}

fn answer(value: Value) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(value)).into_response()
}

/// Where a real gateway hands the message over.
fn deliver(message: &Message) -> Result<(), Fault> {
    if message.to.ends_with(UNDELIVERABLE) {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let fault = Fault::new(status, "undeliverable", "Nobody can be reached there.");
        return Err(fault.of("to"));
    }
    Ok(())
}

/// What is to be sent, and to whom.
struct Message {
    to: String,
    channel: Option<String>,
}

impl Message {
    async fn read(body: Body) -> Result<Self, Fault> {
        let Ok(read) = timeout(BODY_DEADLINE, to_bytes(body, MAX_BODY)).await else {
            let message = "The body did not arrive in time.";
            return Err(Fault::new(StatusCode::REQUEST_TIMEOUT, "body_incomplete", message));
        };
        let bytes = read.map_err(|_| {
            let message = format!("The body is longer than {MAX_BODY} bytes, or incomplete.");
            Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        })?;
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(&bytes) else {
            let message = "The body must be one JSON object.";
            return Err(Fault::new(StatusCode::BAD_REQUEST, "invalid_json", message));
        };
        let to = text(&mut fields, "to")?.ok_or_else(|| missing("to"))?;
        let channel = text(&mut fields, "channel")?;
        match (text(&mut fields, "text")?, text(&mut fields, "message")?) {
            (Some(_), None) | (None, Some(_)) => Ok(Self { to, channel }),
            (None, None) => Err(missing("text")),
            (Some(_), Some(_)) => Err(invalid("message", "cannot be sent beside 'text'")),
        }
    }
}

/// The text in this field, if it is there.
fn text(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, Fault> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text)),
        Some(_) => Err(invalid(name, "must be a text that is not empty")),
    }
}

fn missing(field: &'static str) -> Fault {
    let message = format!("'{field}' is missing.");
    Fault::new(StatusCode::BAD_REQUEST, "missing_field", message).of(field)
}

fn invalid(field: &'static str, why: &str) -> Fault {
    let message = format!("'{field}' {why}.");
    Fault::new(StatusCode::BAD_REQUEST, "invalid_value", message).of(field)
}

/// The routes add what is allowed.
async fn wrong_method() -> Fault {
    let message = "Not by this method; 'Allow' names those that are.";
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// Why nothing was sent, in the words of the layer's own refusals.
struct Fault {
    status: StatusCode,
    code: &'static str,
    message: String,
    field: Option<&'static str>,
}

impl Fault {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), field: None }
    }

    fn of(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let error = json!({
            "type": "invalid_request_error",
            "code": self.code,
            "message": self.message,
            "param": self.field,
        });
        (self.status, [(CACHE_CONTROL, "no-store")], Json(json!({ "error": error })))
            .into_response()
    }
}

impl From<Fault> for Response {
    fn from(fault: Fault) -> Self {
        fault.into_response()
    }
}
