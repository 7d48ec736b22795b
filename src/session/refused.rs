//! Events that are not passed on, and what their sender is told.

use serde_json::{Map, Value, json};

use super::{Fault, parse};

/// How deep an event may be nested.
const MAX_DEPTH: usize = 64;

/// Why an event is not passed on, in the words of OpenAI's error object.
pub(super) struct Refused {
    code: &'static str,
    message: String,
    param: Option<String>,
}

impl Refused {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None }
    }

    pub(super) fn locked(message: impl Into<String>) -> Self {
        Self::new("immutable_field_update", message)
    }

    pub(super) fn at(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// Decart's error event.
    pub(super) fn into_text_event(self) -> String {
        error_text(&self.message)
    }

    /// OpenAI's error event, named `id`, about the client's event `about`.
    pub(super) fn into_event(self, id: &str, about: Value) -> String {
        let event = json!({
            "type": "error",
            "event_id": id,
            "error": {
                "type": "invalid_request_error",
                "code": self.code,
                "message": self.message,
                "param": self.param,
                "event_id": about,
            },
        });
        event.to_string()
    }
}

/// Decart's error event, which carries a text alone.
pub(super) fn error_text(text: &str) -> String {
    json!({ "type": "error", "error": text }).to_string()
}

/// Reads an event as every parser would.
pub(super) fn read(text: &str) -> Result<Map<String, Value>, Refused> {
    let message = match parse(text.as_bytes(), MAX_DEPTH) {
        Ok(Value::Object(event)) => return Ok(event),
        Ok(_) | Err(Fault::Syntax) => "The event is not one JSON object.",
        Err(Fault::TooDeep) => "The event is nested deeper than 64.",
        Err(Fault::Duplicate(_)) => "The event names something twice in one object.",
    };
    Err(Refused::new("invalid_json", message))
}
