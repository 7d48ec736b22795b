//! `GET /v1/realtime`: one WebSocket session of an authenticated client.

use std::time::Duration;

use axum::{
    extract::{
        Query, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code, rejection::WebSocketUpgradeRejection},
    },
    http::{StatusCode, Version, header::UPGRADE},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tower_realtime_auth::{Principal, Verdict};

use crate::{
    model::{Conversation, error_event},
    server,
};

/// The longest session, as OpenAI's.
const MAX_SESSION: Duration = Duration::from_secs(60 * 60);
/// The longest message: OpenAI's clients send up to 15 MiB of audio in one event.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// How long a client may take to read what it is sent, or to answer a Close.
const PEER_DEADLINE: Duration = Duration::from_secs(2);

#[derive(serde::Deserialize)]
pub struct Params {
    model: Option<String>,
}

/// Completes the handshake. Whether the model may be had, the layer has judged.
pub async fn connect(
    principal: Principal,
    version: Version,
    State(stopping): State<watch::Receiver<bool>>,
    Query(params): Query<Params>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        let hint = "This is a WebSocket endpoint.\n";
        return (StatusCode::UPGRADE_REQUIRED, [(UPGRADE, "websocket")], hint).into_response();
    };
    upgrade
        .max_message_size(MAX_MESSAGE)
        .on_upgrade(move |socket| session(socket, principal, version, params.model, stopping))
}

async fn session(
    mut socket: WebSocket,
    principal: Principal,
    version: Version,
    asked_model: Option<String>,
    mut stopping: watch::Receiver<bool>,
) {
    tracing::info!(
        key_id = %principal.key_id(),
        protocol = principal.protocol(),
        ?version,
        "session begins"
    );
    let end = tokio::select! {
        end = converse(&mut socket, &principal, asked_model) => end,
        () = sleep(MAX_SESSION) => {
            let message = "Your session hit the maximum duration of 60 minutes.";
            let event = error_event("session_expired", message, None, None);
            let _ = send(&mut socket, event).await;
            Some((close_code::AWAY, "session expired"))
        }
        () = server::stopped(&mut stopping) => Some((close_code::AWAY, "the server is stopping")),
    };
    let until_closed = async {
        if let Some((code, reason)) = end {
            let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
            socket.send(close).await?;
        }
        // Whoever sent the first Close, the second one passes here. Dropped before it has, a
        // socket over HTTP/2 is reset, and the client sees 1006 instead of a code.
        while socket.recv().await.transpose()?.is_some() {}
        Ok::<_, axum::Error>(())
    };
    let _ = timeout(PEER_DEADLINE, until_closed).await;
    tracing::info!(key_id = %principal.key_id(), "session ends");
}

/// Talks until the client is gone (`None`) or is to be sent away.
async fn converse(
    socket: &mut WebSocket,
    principal: &Principal,
    asked_model: Option<String>,
) -> Option<(u16, &'static str)> {
    let guard = principal.guard();
    let mut conversation = Conversation::new(
        principal.grants().session(),
        principal.model().map(str::to_owned).or(asked_model),
    );
    send(socket, conversation.created()).await.ok()?;
    loop {
        let text = match socket.recv().await?.ok()? {
            Message::Text(text) => text,
            Message::Binary(_) => return Some((close_code::UNSUPPORTED, "events are text")),
            // Answered by the next `recv`, which for a Close then ends the talk.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => continue,
        };
        // What the guard hands on is what the model sees; nothing else is.
        let answers = match guard.client(&text) {
            Verdict::Forward(event) => conversation.answer(event),
            Verdict::Rewrite { text, kept } => {
                tracing::info!(key_id = %principal.key_id(), ?kept, "locked settings kept");
                conversation.answer(&text)
            }
            Verdict::Reply(event) => {
                send_text(socket, event).await.ok()?;
                continue;
            }
            _ => return Some((close_code::ERROR, "a verdict that this gateway does not know")),
        };
        for event in answers {
            send(socket, event).await.ok()?;
        }
    }
}

async fn send(socket: &mut WebSocket, event: Value) -> Result<(), ()> {
    send_text(socket, event.to_string()).await
}

/// Sends, unless the client takes too long to read.
async fn send_text(socket: &mut WebSocket, text: String) -> Result<(), ()> {
    match timeout(PEER_DEADLINE, socket.send(Message::Text(text.into()))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}
