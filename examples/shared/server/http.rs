//! Accepts connections within bounds, and ends them in good time.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::ConnectInfo, http::Request, response::Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower::{Service, ServiceExt as _};

use super::{
    Stopping,
    drained::Drained,
    stopped,
    tls::{self, Tls},
};

/// How long a request head may take to arrive.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How many connections may speak HTTP at once; one that HTTP/1.1 made a session of does not count.
const MAX_CONNECTIONS: usize = 10_000;
/// How long everything may take to end; sessions take half of it at most.
const STOP_DEADLINE: Duration = Duration::from_secs(4);

/// The versions of HTTP that a connection may speak.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Http {
    One,
    Two,
}

/// Serves `app` until told to stop, then lets the requests under way end.
pub async fn serve<S>(listener: TcpListener, tls: Option<Tls>, app: S, mut stopping: Stopping)
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = stopped(&mut stopping) => break,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly too many open files: what is open must end before more can come.
                tracing::warn!(%error, "cannot accept");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, watcher) = (tls.clone(), connections.watcher());
        // Clients are told apart by it, if wrong keys are limited.
        let app = app.clone().map_request(move |mut request: Request<Body>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        });
        let mut stopping = stopping.clone();
        tokio::spawn(async move {
            let _place = place;
            let Some(tls) = tls else {
                return serve_connection(stream, Http::One, app, watcher).await;
            };
            let accepted = tokio::select! {
                accepted = tls.accept(stream) => accepted,
                () = stopped(&mut stopping) => return,
            };
            match accepted {
                Ok(stream) => {
                    let http = if tls::is_http2(&stream) { Http::Two } else { Http::One };
                    serve_connection(stream, http, app, watcher).await;
                }
                Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// Speaks HTTP with one peer, as long as it does its part.
async fn serve_connection<I, S>(stream: I, http: Http, app: S, watcher: Watcher)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    builder
        .http2()
        .enable_connect_protocol()
        // Nothing may come between the frames of a head (RFC 9113 §4.3): who dallies with one
        // cannot answer a ping.
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_DEADLINE / 2)
        .keep_alive_timeout(HEAD_DEADLINE / 2);
    // What was agreed on holds; a guess from the first bytes would wait for them without end.
    let builder = match http {
        Http::One => builder.http1_only(),
        Http::Two => builder.http2_only(),
    };

    let asked = Arc::new(Notify::new());
    let app = app.map_request({
        let asked = Arc::clone(&asked);
        move |request: Request<Incoming>| {
            asked.notify_one();
            request.map(|body| Body::new(Drained::new(body)))
        }
    });
    let connection = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(app))
        .into_owned();
    let silence = async {
        if timeout(HEAD_DEADLINE, asked.notified()).await.is_ok() {
            // Once it has asked, HTTP's own deadlines hold.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = watcher.watch(connection) => if let Err(error) = ended {
            tracing::debug!(%error, "a connection failed");
        },
        () = silence => tracing::debug!("a connection without a request"),
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, place))
}

/// Waits, no longer than the deadline, until the server and all sessions have ended.
pub async fn ended(serving: JoinHandle<()>, stop: watch::Sender<bool>) {
    let all = async {
        // Every session holds a receiver while it runs.
        let _ = tokio::join!(serving, stop.closed());
    };
    if timeout(STOP_DEADLINE, all).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
}
