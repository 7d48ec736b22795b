//! What `axum::serve` 0.8 lacks: an end for requests whose head never arrives whole.

use std::{convert::Infallible, io, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{Service, ServiceExt as _};

/// How long a request head may take to arrive.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Serves `app` over HTTP/1.1, WebSockets included.
pub async fn serve<S>(listener: TcpListener, app: S) -> io::Result<()>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let app = app.map_request(|request: axum::http::Request<Incoming>| request.map(Body::new));
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app.clone()))
            .with_upgrades();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection failed");
            }
        });
    }
}
