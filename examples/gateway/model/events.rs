//! The form of what the model says.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

pub fn event(kind: &str, fields: Value) -> Value {
    let mut event = json!({ "type": kind, "event_id": fresh("event") });
    merge(&mut event, fields);
    event
}

pub fn merge(object: &mut Value, fields: Value) {
    if let (Value::Object(object), Value::Object(fields)) = (object, fields) {
        object.extend(fields);
    }
}

/// OpenAI's error event, naming the event that it is about.
pub fn error_event(code: &str, message: &str, param: Option<&str>, sent: Option<&Value>) -> Value {
    let error = json!({
        "type": "invalid_request_error",
        "code": code,
        "message": message,
        "param": param,
        "event_id": sent.map(|sent| &sent["event_id"]),
    });
    event("error", json!({ "error": error }))
}

pub fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{prefix}_{:012}", NEXT.fetch_add(1, Ordering::Relaxed))
}
