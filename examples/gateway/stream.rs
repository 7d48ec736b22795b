//! `GET /v1/stream`: a session as Decart's clients hold it. They talk of the video here, and send and
//! get it through LiveKit, where this gateway, which has no video, leads them nowhere.

use std::sync::Arc;

use axum::{
    extract::{State, ws::Message},
    response::Response,
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::{
    Gateway,
    model::fresh,
    server::session::{Client, Ended, Handshake, send},
    transcript::Transcript,
};

/// A name that never leads anywhere (RFC 6761 §6.4).
const LIVEKIT_URL: &str = "wss://simulated.invalid";

/// Completes the handshake. Whether the model may be had, the layer has judged.
pub async fn connect(State(gateway): State<Gateway>, handshake: Handshake) -> Response {
    let Gateway { stopping, transcript } = gateway;
    handshake.complete(stopping, |client| direct(client, transcript))
}

/// Takes directions until the session ends.
async fn direct(mut client: Client, transcript: Option<Arc<Transcript>>) -> Ended {
    let id = fresh("stream");
    while let Some(message) = client.next().await.transpose()? {
        let Message::Text(text) = message else { continue };
        if let Some(transcript) = &transcript {
            transcript.write(&id, &text);
        }
        for event in answer(&id, &text) {
            send(&mut client, event).await?;
        }
    }
    Ok(())
}

/// The events that answer one event of the client in the session `id`.
fn answer(id: &str, text: &str) -> Vec<Value> {
    let Ok(sent @ Value::Object(_)) = serde_json::from_str(text) else {
        return vec![error_event("The event is not one JSON object.")];
    };
    let Some(kind) = sent["type"].as_str() else {
        return vec![error_event("The event has no 'type' of text.")];
    };
    match kind {
        "livekit_join" => vec![
            json!({ "type": "queue_position", "position": 1, "queue_size": 1 }),
            json!({
                "type": "livekit_room_info",
                "livekit_url": LIVEKIT_URL,
                "token": "simulated",
                "room_name": format!("simulated_{id}"),
                "session_id": id,
            }),
        ],
        // Clients know by the prompt which of theirs was taken.
        "prompt" if sent["prompt"].is_string() => {
            vec![json!({ "type": "prompt_ack", "prompt": sent["prompt"], "success": true })]
        }
        "prompt" => vec![error_event("'prompt' must be a text.")],
        "set_image" => vec![json!({ "type": "set_image_ack", "success": true })],
        other => vec![error_event(&format!("Events of the type '{other}' are not known."))],
    }
}

/// Decart's error event, which carries a text alone.
fn error_event(message: &str) -> Value {
    json!({ "type": "error", "error": message })
}
