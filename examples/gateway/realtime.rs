//! `GET /v1/realtime`: a session with the model.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{State, ws::Message},
    response::Response,
};
use futures_util::StreamExt as _;
use tower_realtime_auth::Usage;

use crate::{
    Gateway,
    model::Conversation,
    server::session::{Client, Ended, Handshake, send},
    transcript::Transcript,
};

/// Completes the handshake. Whether the model may be had, the layer has judged.
pub async fn connect(
    State(gateway): State<Gateway>,
    Extension(usage): Extension<Usage>,
    handshake: Handshake,
) -> Response {
    let settings = handshake.principal.grants().session();
    let conversation = Conversation::new(settings, handshake.model.clone());
    let Gateway { stopping, transcript } = gateway;
    handshake.complete(stopping, move |client| converse(client, conversation, usage, transcript))
}

/// Talks until the session ends.
async fn converse(
    mut client: Client,
    mut conversation: Conversation,
    usage: Usage,
    transcript: Option<Arc<Transcript>>,
) -> Ended {
    send(&mut client, conversation.created()).await?;
    // What the guard hands on is what the model sees; nothing else is.
    while let Some(message) = client.next().await.transpose()? {
        let Message::Text(text) = message else { continue };
        if let Some(transcript) = &transcript {
            transcript.write(conversation.id(), &text);
        }
        for event in conversation.answer(&text) {
            let begins = event["type"] == "response.created";
            send(&mut client, event).await?;
            if begins && let Some(limits) = usage.rate_limits_updated().await {
                send(&mut client, limits).await?;
            }
        }
    }
    Ok(())
}
