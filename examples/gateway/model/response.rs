//! What the model says when it is its turn.

use serde_json::{Value, json};

use super::events::{event, fresh, merge};

const DEFAULT_VOICE: &str = "alloy";

/// A response made with these settings: the item that it adds, and the events that tell of it.
pub fn respond(settings: &Value) -> (Value, Vec<Value>) {
    let voice = [&settings["audio"]["output"]["voice"], &settings["voice"]]
        .into_iter()
        .find(|voice| !voice.is_null())
        .cloned()
        .unwrap_or_else(|| DEFAULT_VOICE.into());
    let tools = settings["tools"].as_array().cloned().unwrap_or_default();
    let text = spoken(settings, &voice, &tools);
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
        (json!({ "type": "output_text", "text": text }), "output_text.delta", "output_text.done")
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
    (whole, events)
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
