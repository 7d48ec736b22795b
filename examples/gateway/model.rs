//! The voice model: a simulation that answers in OpenAI's events and says what it was told.
//!
//! Every response names the instructions, the voice, the tools and the model that it was made
//! with, so that a lock that did not hold would show on the wire.

mod events;
mod items;
mod response;

use serde_json::{Map, Value, json};
use tower_realtime_auth::Settings;

pub use self::events::fresh;
use self::{
    events::{error_event, event},
    items::Items,
};

const DEFAULT_MODEL: &str = "demo-voice";

/// One session's state: its settings and what was said.
pub struct Conversation {
    id: String,
    settings: Map<String, Value>,
    items: Items,
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
        Self { id: fresh("sess"), settings, items: Items::default(), hears_speech: false }
    }

    /// What the session is called.
    pub fn id(&self) -> &str {
        &self.id
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
            "conversation.item.create" => self.items.create(&sent),
            "conversation.item.delete" => vec![self.items.delete(&sent)],
            "conversation.item.retrieve" => vec![self.items.retrieve(&sent)],
            "conversation.item.truncate" => vec![self.items.truncate(&sent)],
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
        let previous = self.items.last_id();
        let item = json!({
            "id": fresh("item"), "object": "realtime.item", "type": "message", "role": "user",
            "status": "completed", "content": [{ "type": "input_audio", "transcript": null }],
        });
        let mut events = vec![event(
            "input_audio_buffer.committed",
            json!({ "item_id": item["id"], "previous_item_id": previous }),
        )];
        events.extend(self.items.add(&item));
        events
    }

    /// One response, made with the session's settings and those that it names for itself.
    fn respond(&mut self, sent: &Value) -> Vec<Value> {
        let settings = match &sent["response"] {
            Value::Null => Some(self.settings.clone()),
            own => self.settings_after(own),
        };
        let Some(settings) = settings else {
            let message = "'response' must be an object of settings.";
            return vec![error_event("invalid_value", message, Some("response"), Some(sent))];
        };
        let (item, events) = response::respond(&settings.into());
        self.items.remember(&item);
        events
    }
}
