//! One WebSocket session of an authenticated client.

use std::{error::Error, time::Duration};

use axum::{
    extract::{
        FromRequestParts, Query, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{StatusCode, Version, header::UPGRADE, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::SinkExt as _;
use tokio::time::sleep;
use tower_realtime_auth::{End, GuardedSocket, Principal, SessionGuard, SocketError};
use tracing::Instrument as _;

use super::{Stopping, stopped};

tower_realtime_auth::wire!(pub struct Axum for axum::extract::ws);

/// The longest session, as OpenAI's, unless the key allows less.
const MAX_SESSION: Duration = Duration::from_secs(60 * 60);
/// What is read of one message, a little more than the guard lets pass: it is the guard who answers
/// messages that are too long.
pub const MAX_MESSAGE: usize = 17 * 1024 * 1024;
/// How long a peer may take to read what it is sent, or to answer a Close.
pub const PEER_DEADLINE: Duration = Duration::from_secs(2);

/// What a session's end may be.
pub type Ended = Result<(), SocketError<axum::Error>>;

/// The client of a session, kept to what its key allows.
pub type Client = GuardedSocket<WebSocket, Axum>;

/// A handshake that the layer has judged and that is not answered yet.
pub struct Handshake {
    pub principal: Principal,
    /// The model to talk to: the key's, if it names one, and only then the client's.
    pub model: Option<String>,
    /// Taken before the answer: the layer lets no session begin that nobody guards.
    pub guard: SessionGuard,
    version: Version,
    upgrade: WebSocketUpgrade,
}

#[derive(serde::Deserialize)]
struct Params {
    model: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Handshake {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let principal = Principal::from_request_parts(parts, state)
            .await
            .map_err(IntoResponse::into_response)?;
        let Query(asked): Query<Params> =
            Query::try_from_uri(&parts.uri).map_err(IntoResponse::into_response)?;
        let Ok(upgrade) = WebSocketUpgrade::from_request_parts(parts, state).await else {
            let hint = "This is a WebSocket endpoint.\n";
            let answer = (StatusCode::UPGRADE_REQUIRED, [(UPGRADE, "websocket")], hint);
            return Err(answer.into_response());
        };
        let of_settings = || {
            let settings = principal.grants().session()?.as_json();
            serde_json::from_str::<Params>(&settings).ok()?.model
        };
        Ok(Self {
            model: principal.model().map(str::to_owned).or_else(of_settings).or(asked.model),
            guard: principal.guard(),
            version: parts.version,
            principal,
            upgrade,
        })
    }
}

impl Handshake {
    /// Answers the handshake, and runs the session that follows.
    pub fn complete<F>(
        self,
        stopping: Stopping,
        session: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = Ended> + Send + 'static,
    {
        let Self { principal, guard, version, upgrade, .. } = self;
        upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE).on_upgrade(
            move |socket| {
                // The guard's own words stand in it too.
                let span = tracing::info_span!("session", key_id = %principal.key_id());
                let protocol = principal.protocol().map(str::to_owned);
                let session = session(guarded(socket, guard, &principal, stopping.clone()));
                async move {
                    tracing::info!(protocol, ?version, "session begins");
                    match session.await {
                        Ok(()) | Err(SocketError::Ended) => tracing::info!("session ends"),
                        Err(error) => {
                            tracing::info!(error = &error as &dyn Error, "session fails");
                        }
                    }
                    // The socket is closed: from now on this counts as no session under way.
                    drop(stopping);
                }
                .instrument(span)
            },
        )
    }
}

/// The socket, which ends whenever the session is to.
fn guarded(
    socket: WebSocket,
    guard: SessionGuard,
    principal: &Principal,
    mut stopping: Stopping,
) -> Client {
    GuardedSocket::new(socket, guard)
        .with_write_deadline(PEER_DEADLINE)
        .with_close_deadline(PEER_DEADLINE)
        .end_when(sleep(MAX_SESSION), End::session_expired(MAX_SESSION))
        .end_when(principal.revoked(), End::revoked())
        .end_when(async move { stopped(&mut stopping).await }, End::going_away())
}

/// Sends one event.
pub async fn send(client: &mut Client, event: impl ToString) -> Ended {
    client.send(Message::text(event.to_string())).await
}
