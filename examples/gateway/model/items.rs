//! What was said: the items of a conversation.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::events::{error_event, event, fresh};

/// How much a conversation remembers, in bytes. As with a model, the oldest is forgotten first.
const MAX_MEMORY: usize = 4 * 1024 * 1024;

#[derive(Default)]
pub struct Items {
    remembered: VecDeque<Item>,
    /// How long they are together.
    len: usize,
}

struct Item {
    id: String,
    /// As it was created.
    json: String,
}

impl Items {
    /// Answers `conversation.item.create`.
    pub fn create(&mut self, sent: &Value) -> Vec<Value> {
        let Value::Object(item) = &sent["item"] else {
            let message = "'item' must be an object.";
            return vec![error_event("invalid_value", message, Some("item"), Some(sent))];
        };
        let mut item = item.clone();
        item.entry("id").or_insert_with(|| fresh("item").into());
        item.insert("object".into(), "realtime.item".into());
        item.entry("status").or_insert_with(|| "completed".into());
        self.add(&item.into()).into()
    }

    /// Adds an item and says so.
    pub fn add(&mut self, item: &Value) -> [Value; 2] {
        let previous = self.last_id().map(str::to_owned);
        self.remember(item);
        ["conversation.item.added", "conversation.item.done"]
            .map(|kind| event(kind, json!({ "item": item, "previous_item_id": previous })))
    }

    pub fn remember(&mut self, item: &Value) {
        let id = item["id"].as_str().unwrap_or_default().to_owned();
        let json = item.to_string();
        self.len += json.len();
        self.remembered.push_back(Item { id, json });
        while self.len > MAX_MEMORY
            && let Some(oldest) = self.remembered.pop_front()
        {
            self.len -= oldest.json.len();
        }
    }

    pub fn last_id(&self) -> Option<&str> {
        self.remembered.back().map(|item| &*item.id)
    }

    /// Answers `conversation.item.delete`.
    pub fn delete(&mut self, sent: &Value) -> Value {
        let place = match self.find("delete", sent) {
            Ok(place) => place,
            Err(error) => return error,
        };
        if let Some(item) = self.remembered.remove(place) {
            self.len -= item.json.len();
        }
        event("conversation.item.deleted", json!({ "item_id": sent["item_id"] }))
    }

    /// Answers `conversation.item.retrieve`.
    pub fn retrieve(&self, sent: &Value) -> Value {
        let item: Value = match self.find("retrieve", sent).map(|place| &self.remembered[place]) {
            Ok(item) => serde_json::from_str(&item.json).unwrap_or_default(),
            Err(error) => return error,
        };
        event("conversation.item.retrieved", json!({ "item": item }))
    }

    /// Answers `conversation.item.truncate`. What was heard of an item does not change it here:
    /// its audio is silence anyway.
    pub fn truncate(&self, sent: &Value) -> Value {
        if let Err(error) = self.find("truncate", sent) {
            return error;
        }
        for name in ["content_index", "audio_end_ms"] {
            if !sent[name].is_u64() {
                let message = format!("'{name}' must be a whole number.");
                return error_event("invalid_value", &message, Some(name), Some(sent));
            }
        }
        let truncated = json!({
            "item_id": sent["item_id"],
            "content_index": sent["content_index"],
            "audio_end_ms": sent["audio_end_ms"],
        });
        event("conversation.item.truncated", truncated)
    }

    /// Where the item that `sent` names is, or the error that says that it is not.
    fn find(&self, action: &str, sent: &Value) -> Result<usize, Value> {
        let id = sent["item_id"].as_str().unwrap_or_default();
        self.remembered.iter().position(|item| item.id == id).ok_or_else(|| {
            let code = format!("item_{action}_invalid_item_id");
            let message = format!("There is no item '{id}'.");
            error_event(&code, &message, Some("item_id"), Some(sent))
        })
    }
}
