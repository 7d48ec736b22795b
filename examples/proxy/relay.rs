//! `GET /v1/realtime`: a session with the provider, on behalf of a client of ours.

use std::sync::Arc;

use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message},
    },
    response::{IntoResponse as _, Response},
};
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _, stream};
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{
    self,
    protocol::{CloseFrame as UpstreamClose, frame::coding::CloseCode},
};
use tower_realtime_auth::SocketError;

use crate::{
    server::{
        Stopping,
        session::{Client, Ended, Handshake, PEER_DEADLINE, send},
        stopped,
    },
    upstream::{Failure, Opened, Socket, Upstream, error_object},
};

/// What all sessions share.
#[derive(Clone)]
pub struct Proxy {
    pub stopping: Stopping,
    pub upstream: Arc<Upstream>,
}

/// Why a session is over.
enum Over {
    /// The client closed it.
    Client(Option<CloseFrame>),
    /// The client is gone, or was told to go.
    Gone(SocketError<axum::Error>),
    /// The provider closed it.
    Upstream(Option<UpstreamClose>),
    /// The provider does not do its part.
    Broken(&'static str),
}

/// Completes the handshake once there is a session with the provider.
pub async fn connect(State(proxy): State<Proxy>, handshake: Handshake) -> Response {
    let Proxy { mut stopping, upstream } = proxy;
    let opened = tokio::select! {
        opened = upstream.open(handshake.model.as_deref(), handshake.guard.opening()) => opened,
        () = stopped(&mut stopping) => Err(Failure::Stopping),
    };
    match opened {
        Ok(opened) => handshake.complete(stopping, move |client| relay(client, opened)),
        Err(failure) => failure.into_response(),
    }
}

/// Relays until one side ends, then ends the other.
async fn relay(mut client: Client, opened: Opened) -> Ended {
    let Opened { socket: mut upstream, said } = opened;
    match exchange(&mut client, &mut upstream, said).await {
        Over::Client(close) => {
            let close = UpstreamClose {
                code: close.as_ref().map_or(1000, |close| sendable(close.code)).into(),
                reason: close.map_or("".into(), |close| close.reason.as_str().into()),
            };
            hang_up(&mut upstream, Some(close)).await;
            Ok(())
        }
        Over::Gone(error) => {
            let close = UpstreamClose { code: CloseCode::Away, reason: "".into() };
            hang_up(&mut upstream, Some(close)).await;
            Err(error)
        }
        Over::Upstream(close) => {
            let close = CloseFrame {
                code: close.as_ref().map_or(1000, |close| sendable(close.code.into())),
                reason: close.map_or("".into(), |close| close.reason.as_str().into()),
            };
            let closing = client.send(Message::Close(Some(close)));
            tokio::join!(closing, hang_up(&mut upstream, None)).0
        }
        Over::Broken(why) => {
            tracing::warn!(why, "the upstream fails");
            drop(upstream);
            let message = "The upstream broke the session off.";
            // Before the Close, because several SDKs report this alone.
            let error = error_object("upstream_failed", message);
            send(&mut client, json!({ "type": "error", "error": error })).await?;
            let close = CloseFrame { code: 1011, reason: message.into() };
            client.send(Message::Close(Some(close))).await
        }
    }
}

/// Hands messages on, both ways at once, one at a time each way: who does not read is not read
/// from either.
async fn exchange(
    client: &mut Client,
    upstream: &mut Socket,
    said: Vec<tungstenite::Message>,
) -> Over {
    let takes_binary = client.guard().takes_binary();
    let (to_client, from_client) = client.split();
    let (to_upstream, from_upstream) = upstream.split();
    let from_upstream = stream::iter(said.into_iter().map(Ok)).chain(from_upstream);
    tokio::select! {
        over = inward(from_client, to_upstream) => over,
        over = outward(from_upstream, to_client, takes_binary) => over,
    }
}

/// What the guard hands on goes to the provider.
async fn inward(
    mut client: impl Stream<Item = Result<Message, SocketError<axum::Error>>> + Unpin,
    mut upstream: impl Sink<tungstenite::Message, Error = tungstenite::Error> + Unpin,
) -> Over {
    while let Some(message) = client.next().await {
        let message = match message {
            Ok(Message::Text(text)) => tungstenite::Message::text(text.as_str()),
            Ok(Message::Binary(bytes)) => tungstenite::Message::binary(bytes),
            // Each connection has its own.
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            Ok(Message::Close(close)) => return Over::Client(close),
            Err(error) => return Over::Gone(error),
        };
        match timeout(PEER_DEADLINE, upstream.send(message)).await {
            Ok(Ok(())) => {}
            // Perhaps it said why: reading tells how it ended.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return Over::Broken("it does not read what it is sent"),
        }
    }
    Over::Gone(SocketError::Ended)
}

/// What the provider says goes to the client.
async fn outward(
    mut upstream: impl Stream<Item = Result<tungstenite::Message, tungstenite::Error>> + Unpin,
    mut client: impl Sink<Message, Error = SocketError<axum::Error>> + Unpin,
    takes_binary: bool,
) -> Over {
    while let Some(Ok(message)) = upstream.next().await {
        let message = match message {
            tungstenite::Message::Text(text) => Message::text(text.as_str()),
            tungstenite::Message::Binary(bytes) if takes_binary => Message::Binary(bytes),
            tungstenite::Message::Binary(_) => return Over::Broken("it sends what is no text"),
            tungstenite::Message::Close(close) => return Over::Upstream(close),
            _ => continue,
        };
        if let Err(error) = client.send(message).await {
            return Over::Gone(error);
        }
    }
    Over::Broken("it is gone without a Close")
}

/// Says goodbye to the provider, and waits for its answer within bounds.
async fn hang_up(upstream: &mut Socket, close: Option<UpstreamClose>) {
    let closing = async {
        // If it has closed first, this flushes the answer.
        let _ = upstream.close(close).await;
        while let Some(Ok(_)) = upstream.next().await {}
    };
    let _ = timeout(PEER_DEADLINE, closing).await;
}

/// A code as it may be sent on: some only say what one side saw (RFC 6455 §7.4.1).
fn sendable(code: u16) -> u16 {
    tower_realtime_auth::CloseFrame::new(code, "").map_or(1011, |close| close.code())
}
