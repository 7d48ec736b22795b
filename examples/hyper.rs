//! The layer with hyper alone: an echo server over WebSocket, and the mint endpoint beside it.
//!
//!     cargo run --example hyper [ADDRESS]

use std::{convert::Infallible, error::Error, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, upgrade::Upgraded};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_realtime_auth::{
    ClientSecrets, GuardedSocket, Keys, MemoryStore, NewKey, Principal, RealtimeAuthLayer,
    SessionGuard,
    bytes::Bytes,
    http::{
        Request, Response, StatusCode,
        header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
    },
};

type Body = BoxBody<Bytes, Infallible>;

tower_realtime_auth::wire!(struct Tungstenite for tokio_tungstenite::tungstenite::protocol);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keys = Keys::new(MemoryStore::new());
    let issued = keys.issue(NewKey::secret("demo")).await?;

    let mint = ClientSecrets::new(keys.clone());
    let api = service_fn(move |request: Request<Incoming>| {
        let mint = mint.clone();
        async move {
            match request.uri().path() {
                "/v1/realtime" => Ok(realtime(request)),
                "/v1/realtime/client_secrets" => {
                    mint.oneshot(request).await.map(|response| response.map(BoxBody::new))
                }
                _ => Ok(status(StatusCode::NOT_FOUND)),
            }
        }
    });
    let app = RealtimeAuthLayer::new(keys).with_body(body).layer(api);

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8788".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("a secret key, shown this once: {}", issued.key().expose());
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                // Without this, neither sessions nor refusals that close could take over.
                .with_upgrades();
            if let Err(error) = connection.await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
}

/// Completes the handshake, which the layer has found to be a proper one, and echoes.
fn realtime(mut request: Request<Incoming>) -> Response<Body> {
    let Some(principal) = request.extensions().get::<Principal>().cloned() else {
        return status(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return status(StatusCode::UPGRADE_REQUIRED);
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    // Before the handshake is answered: the layer lets no session begin that nobody guards.
    let guard = principal.guard();
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => echo(upgraded, guard).await,
            Err(error) => eprintln!("an upgrade failed: {error}"),
        }
    });
    // The layer adds the subprotocol.
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept)
        .body(body(Bytes::new()))
        .unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
}

/// Sends back every event as the guard lets it through.
async fn echo(upgraded: Upgraded, guard: SessionGuard) {
    let io = TokioIo::new(upgraded);
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    let mut socket = GuardedSocket::<_, Tungstenite>::new(socket, guard);
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() && socket.send(message).await.is_err() {
            break;
        }
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(body(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn body(bytes: Bytes) -> Body {
    Full::new(bytes).boxed()
}
