//! The voice model: a simulation that answers in OpenAI's events and says what it was told.
//!
//! Every response names the instructions, the voice, the tools and the model that it was made
//! with, so that a lock that did not hold would show on the wire.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use tower_realtime_auth::Settings;

const DEFAULT_MODEL: &str = "demo-voice";
const DEFAULT_VOICE: &str = "alloy";

/// One session's state: its settings and what was said.
pub struct Conversation {
    id: String,
    settings: Map<String, Value>,
    items: Vec<String>,
    hears_speech: bool,
}

impl Conversation {
    /// A conversation that begins with these settings.
    pub fn new(settings: Option<&Settings>, model: Option<String>) -> Self {
        let settings = settings.and_then(|set| serde_json::from_str(&set.as_json()).ok());
        let mut settings: Map<String, Value> = settings.unwrap_or_default();
        settings.entry("type").or_insert_with(|| "realtime".into());
        settings
            .entry("model")
            .or_insert_with(|| model.unwrap_or_else(|| DEFAULT_MODEL.to_owned()).into());
        Self { id: fresh("sess"), settings, items: Vec::new(), hears_speech: false }
    }

    /// The first event of a session.
    pub fn created(&self) -> Value {
        event("session.created", json!({ "session": self.session() }))
    }

    fn session(&self) -> Value {
        let mut session = self.settings.clone();
        session.insert("id".into(), self.id.clone().into());
        session.insert("object".into(), "realtime.session".into());
        session.into()
    }

    /// The events that answer one event of the client.
    pub fn answer(&mut self, text: &str) -> Vec<Value> {
        let sent: Value = match serde_json::from_str(text) {
            Ok(sent @ Value::Object(_)) => sent,
            Ok(_) | Err(_) => {
                let message = "The event is not one JSON object.";
                return vec![error_event("invalid_json", message, None, None)];
            }
        };
        let Some(kind) = sent["type"].as_str() else {
            let message = "The event has no 'type' of text.";
            return vec![error_event("invalid_event", message, Some("type"), Some(&sent))];
        };
        match kind {
            "session.update" => self.update(&sent),
            "input_audio_buffer.append" => self.hear(&sent),
            "input_audio_buffer.commit" => self.commit(),
            "input_audio_buffer.clear" => {
                self.hears_speech = false;
                vec![event("input_audio_buffer.cleared", json!({}))]
            }
            "conversation.item.create" => self.add_item(&sent),
            "conversation.item.delete" => self.delete_item(&sent),
            "response.create" => self.respond(&sent),
            "response.cancel" => {
                let message = "There is no response to cancel.";
                vec![error_event("response_cancel_not_active", message, None, Some(&sent))]
            }
            other => {
                let message = format!("Events of the type '{other}' are not known.");
                vec![error_event("invalid_value", &message, Some("type"), Some(&sent))]
            }
        }
    }

    fn update(&mut self, sent: &Value) -> Vec<Value> {
        let Some(updated) = self.settings_after(&sent["session"]) else {
            let message = "'session' must be an object of settings.";
            return vec![error_event("invalid_value", message, Some("session"), Some(sent))];
        };
        self.settings = updated;
        vec![event("session.updated", json!({ "session": self.session() }))]
    }

    /// The session's settings with those of `update` in their place; `None` if it is no settings.
    fn settings_after(&self, update: &Value) -> Option<Map<String, Value>> {
        let current = Settings::parse(&Value::from(self.settings.clone()).to_string()).ok()?;
        let update = Settings::parse(&update.to_string()).ok()?;
        serde_json::from_str(&current.updated(&update).as_json()).ok()
    }

    fn hear(&mut self, sent: &Value) -> Vec<Value> {
        if !sent["audio"].is_string() {
            let message = "'audio' must be base64 text.";
            return vec![error_event("invalid_value", message, Some("audio"), Some(sent))];
        }
        if std::mem::replace(&mut self.hears_speech, true) {
            return Vec::new();
        }
        let started = json!({ "audio_start_ms": 0, "item_id": fresh("item") });
        vec![event("input_audio_buffer.speech_started", started)]
    }

    fn commit(&mut self) -> Vec<Value> {
        self.hears_speech = false;
        let previous = self.items.last().cloned();
        let item = json!({
            "id": fresh("item"), "object": "realtime.item", "type": "message", "role": "user",
            "status": "completed", "content": [{ "type": "input_audio", "transcript": null }],
        });
        let mut events = vec![event(
            "input_audio_buffer.committed",
            json!({ "item_id": item["id"], "previous_item_id": previous }),
        )];
        events.extend(self.added(item));
        events
    }

    fn add_item(&mut self, sent: &Value) -> Vec<Value> {
        let Value::Object(item) = &sent["item"] else {
            let message = "'item' must be an object.";
            return vec![error_event("invalid_value", message, Some("item"), Some(sent))];
        };
        let mut item = item.clone();
        item.entry("id").or_insert_with(|| fresh("item").into());
        item.insert("object".into(), "realtime.item".into());
        item.entry("status").or_insert_with(|| "completed".into());
        self.added(item.into()).into()
    }

    fn added(&mut self, item: Value) -> [Value; 2] {
        let previous = self.items.last().cloned();
        self.items.push(item["id"].as_str().unwrap_or_default().to_owned());
        ["conversation.item.added", "conversation.item.done"]
            .map(|kind| event(kind, json!({ "item": item, "previous_item_id": previous })))
    }

    fn delete_item(&mut self, sent: &Value) -> Vec<Value> {
        let id = sent["item_id"].as_str().unwrap_or_default();
        let Some(place) = self.items.iter().position(|item| item == id) else {
            let message = format!("There is no item '{id}'.");
            let error =
                error_event("item_delete_invalid_item_id", &message, Some("item_id"), Some(sent));
            return vec![error];
        };
        self.items.remove(place);
        vec![event("conversation.item.deleted", json!({ "item_id": id }))]
    }

    /// One response, made with the session's settings and those that it names for itself.
    fn respond(&mut self, sent: &Value) -> Vec<Value> {
        let settings = match &sent["response"] {
            Value::Null => Some(self.settings.clone()),
            own => self.settings_after(own),
        };
        let Some(settings) = settings.map(Value::from) else {
            let message = "'response' must be an object of settings.";
            return vec![error_event("invalid_value", message, Some("response"), Some(sent))];
        };
        let voice = [&settings["audio"]["output"]["voice"], &settings["voice"]]
            .into_iter()
            .find(|voice| !voice.is_null())
            .cloned()
            .unwrap_or_else(|| DEFAULT_VOICE.into());
        let tools = settings["tools"].as_array().cloned().unwrap_or_default();
        let text = spoken(&settings, &voice, &tools);
        let modalities = match &settings["output_modalities"] {
            Value::Null => json!(["audio"]),
            modalities => modalities.clone(),
        };
        let id = fresh("resp");
        let response = |status: &str, output: Value| {
            json!({
                "id": id, "object": "realtime.response", "status": status, "status_details": null,
                "output": output, "output_modalities": modalities, "metadata": null,
                "model": settings["model"], "instructions": settings["instructions"],
                "voice": voice, "audio": { "output": { "voice": voice } }, "tools": tools,
            })
        };
        let as_text = modalities == json!(["text"]);
        let (part, delta, done) = if as_text {
            (
                json!({ "type": "output_text", "text": text }),
                "output_text.delta",
                "output_text.done",
            )
        } else {
            (
                json!({ "type": "output_audio", "transcript": text }),
                "output_audio_transcript.delta",
                "output_audio_transcript.done",
            )
        };
        let item = |status: &str, content: Value| {
            json!({
                "id": format!("item_of_{id}"), "object": "realtime.item", "type": "message",
                "role": "assistant", "status": status, "content": content,
            })
        };
        let place = |extra: Value| {
            let mut place = json!({
                "response_id": id, "item_id": format!("item_of_{id}"),
                "output_index": 0, "content_index": 0,
            });
            merge(&mut place, extra);
            place
        };
        let whole = item("completed", json!([part]));
        self.items.push(format!("item_of_{id}"));
        let said = if as_text { "text" } else { "transcript" };
        let mut events = vec![
            event("response.created", json!({ "response": response("in_progress", json!([])) })),
            event(
                "response.output_item.added",
                place(json!({ "item": item("in_progress", json!([])) })),
            ),
            event(&format!("response.{delta}"), place(json!({ "delta": text }))),
        ];
        if !as_text {
            events.push(event("response.output_audio.delta", place(json!({ "delta": silence() }))));
            events.push(event("response.output_audio.done", place(json!({}))));
        }
        events.extend([
            event(&format!("response.{done}"), place(json!({ said: text }))),
            event("response.output_item.done", place(json!({ "item": whole }))),
            event("response.done", json!({ "response": response("completed", json!([whole])) })),
        ]);
        events
    }
}

/// What the model says: what it was told.
fn spoken(settings: &Value, voice: &Value, tools: &[Value]) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let names: Vec<_> = tools.iter().map(|tool| text(&tool["name"])).collect();
    format!(
        "I am {} and speak as {}. My instructions: {}. My tools: {}.",
        text(&settings["model"]),
        text(voice),
        if settings["instructions"].is_null() {
            "none".into()
        } else {
            text(&settings["instructions"])
        },
        if names.is_empty() { "none".into() } else { names.join(", ") },
    )
}

/// Twenty milliseconds of nothing: 24 kHz, 16 bit, in base64.
fn silence() -> String {
    "A".repeat(1280)
}

fn event(kind: &str, fields: Value) -> Value {
    let mut event = json!({ "type": kind, "event_id": fresh("event") });
    merge(&mut event, fields);
    event
}

fn merge(object: &mut Value, fields: Value) {
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

fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{prefix}_{:012}", NEXT.fetch_add(1, Ordering::Relaxed))
}
