//! Accepts connections within bounds, and ends them in good time.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, http::Request, response::Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower::{Service, ServiceExt as _};

/// How long a request head may take to arrive.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How many connections may be open at once, apart from sessions that run.
const MAX_CONNECTIONS: usize = 10_000;
/// How long everything may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Serves `app` until told to stop, then lets the requests under way end.
pub async fn serve<S>(listener: TcpListener, app: S, mut stopping: watch::Receiver<bool>)
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let app = app.map_request(|request: Request<Incoming>| request.map(Body::new));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = stopped(&mut stopping) => break,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly too many open files: what is open must end before more can come.
                tracing::warn!(%error, "cannot accept");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
        let service = TowerToHyperService::new(app.clone());
        let connection =
            builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection failed");
            }
            drop(place);
        });
    }
    drop(listener);
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

/// Waits until everything is to end.
pub async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Without a sender nobody is left to go on for.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Waits, no longer than the deadline, until the server and all sessions have ended.
pub async fn ended(serving: JoinHandle<()>, stop: watch::Sender<bool>) {
    let all = async {
        // Every session holds a receiver while it runs.
        let _ = tokio::join!(serving, stop.closed());
    };
    if timeout(STOP_DEADLINE, all).await.is_err() {
        tracing::warn!("some sessions did not end in time");
    }
}
