//! `GET /v1/realtime`: one WebSocket session of an authenticated client.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    extract::{
        Query, State, WebSocketUpgrade,
        ws::{Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    http::{StatusCode, Version, header::UPGRADE},
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{sync::watch, time::sleep};
use tower_realtime_auth::{End, GuardedSocket, Principal, SessionGuard, SocketError};
use tracing::Instrument as _;

use crate::{model::Conversation, server, transcript::Transcript};

tower_realtime_auth::wire!(struct Axum for axum::extract::ws);

/// The longest session, as OpenAI's, unless the key allows less.
const MAX_SESSION: Duration = Duration::from_secs(60 * 60);
/// What is read of one message, a little more than the guard lets pass: it is the guard who answers
/// messages that are too long.
const MAX_MESSAGE: usize = 17 * 1024 * 1024;
/// How long a client may take to read what it is sent, or to answer a Close.
const PEER_DEADLINE: Duration = Duration::from_secs(2);

/// What the sessions of a gateway share.
#[derive(Clone)]
pub struct Gateway {
    pub stopping: watch::Receiver<bool>,
    pub transcript: Option<Arc<Transcript>>,
}

#[derive(serde::Deserialize)]
pub struct Params {
    model: Option<String>,
}

/// Completes the handshake. Whether the model may be had, the layer has judged.
pub async fn connect(
    principal: Principal,
    version: Version,
    State(gateway): State<Gateway>,
    Query(params): Query<Params>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        let hint = "This is a WebSocket endpoint.\n";
        return (StatusCode::UPGRADE_REQUIRED, [(UPGRADE, "websocket")], hint).into_response();
    };
    // Before the handshake is answered: the layer lets no session begin that nobody guards.
    let guard = principal.guard();
    upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE).on_upgrade(move |socket| {
        // The guard's own words stand in it too.
        let span = tracing::info_span!("session", key_id = %principal.key_id());
        session(socket, principal, guard, version, params.model, gateway).instrument(span)
    })
}

async fn session(
    socket: WebSocket,
    principal: Principal,
    guard: SessionGuard,
    version: Version,
    asked_model: Option<String>,
    gateway: Gateway,
) {
    tracing::info!(protocol = principal.protocol(), ?version, "session begins");
    let mut conversation = Conversation::new(
        principal.grants().session(),
        principal.model().map(str::to_owned).or(asked_model),
    );
    // Not this receiver itself: it counts as a session under way until the socket is closed.
    let mut stop = gateway.stopping.clone();
    let mut socket = GuardedSocket::<_, Axum>::new(socket, guard)
        .with_write_deadline(PEER_DEADLINE)
        .with_close_deadline(PEER_DEADLINE)
        .end_when(sleep(MAX_SESSION), End::session_expired(MAX_SESSION))
        .end_when(principal.revoked(), End::revoked())
        .end_when(async move { server::stopped(&mut stop).await }, End::going_away());
    match converse(&mut socket, &mut conversation, gateway.transcript.as_deref()).await {
        Ok(()) | Err(SocketError::Ended) => tracing::info!("session ends"),
        Err(error) => tracing::info!(error = &error as &dyn Error, "session fails"),
    }
}

/// Talks until the session ends.
async fn converse(
    socket: &mut GuardedSocket<WebSocket, Axum>,
    conversation: &mut Conversation,
    transcript: Option<&Transcript>,
) -> Result<(), SocketError<axum::Error>> {
    send(socket, conversation.created()).await?;
    // What the guard hands on is what the model sees; nothing else is.
    while let Some(message) = socket.next().await.transpose()? {
        let Message::Text(text) = message else { continue };
        if let Some(transcript) = transcript
            && let Err(error) = transcript.write(conversation.id(), &text)
        {
            tracing::error!(%error, "cannot write the transcript");
        }
        for event in conversation.answer(&text) {
            send(socket, event).await?;
        }
    }
    Ok(())
}

async fn send(
    socket: &mut GuardedSocket<WebSocket, Axum>,
    event: Value,
) -> Result<(), SocketError<axum::Error>> {
    socket.send(Message::text(event.to_string())).await
}
