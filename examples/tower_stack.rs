//! A gate before another server: CORS, auth, trace and timeout, each in its place, then forwarding.
//!
//!     cargo run --example tower_stack -- http://127.0.0.1:8787
//!
//! It prints a key of its own. Who presents it is let through; the server behind the gate is told
//! in `x-account` who that is, and can believe it if it can be reached through the gate alone.
//! With `UPSTREAM_KEY` set, the gate presents that key there. To try it with the gateway behind it:
//!
//!     cargo run --example gateway -- --key sk_test_upstream
//!     UPSTREAM_KEY=sk_test_upstream cargo run --example tower_stack -- http://127.0.0.1:8787
//!
//! What passes through a completed handshake is copied unread, so nothing here would keep settings
//! that a token locks. Hence the gate mints none;
//! the example `proxy` does.

mod shared;

use std::{error::Error, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use hyper::upgrade::OnUpgrade;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};
use tower_http::{
    cors::{Any, CorsLayer},
    timeout::TimeoutLayer,
    trace::{DefaultOnResponse, TraceLayer},
};
use tower_realtime_auth::{
    Keys, MemoryStore, NewKey, Principal, RealtimeAuthLayer,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version,
        header::{
            AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
            WWW_AUTHENTICATE,
        },
        uri::{Authority, Scheme},
    },
    request_span,
};
use tracing::Level;

/// Tells the server behind the gate whose request it is.
const ACCOUNT: HeaderName = HeaderName::from_static("x-account");
/// How long that server may take to begin its answer. Sessions that follow last as they like.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let upstream = Upstream::new(
        &std::env::args().nth(1).ok_or("usage: tower_stack UPSTREAM [ADDRESS]")?,
        std::env::var("UPSTREAM_KEY").ok(),
    )?;
    let keys = Keys::new(MemoryStore::new());
    let issued = keys.issue(NewKey::secret("demo")).await?;

    let app = ServiceBuilder::new()
        // Outermost: a browser's preflight carries no key, and refusals must be readable too.
        .layer(
            CorsLayer::new()
                .allow_origin(Any)
                .allow_methods(Any)
                // A `*` would not stand for Authorization (Fetch §4.9).
                .allow_headers([AUTHORIZATION, CONTENT_TYPE])
                .expose_headers([WWW_AUTHENTICATE]),
        )
        .layer(RealtimeAuthLayer::new(keys))
        // Refusals have axum's body; what stands inside wraps it in others.
        .map_response(|response: Response<_>| response.map(Body::new))
        // What is traced has lost its key already, and has been judged.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(request_span)
                .on_response(DefaultOnResponse::new().level(Level::INFO)),
        )
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, ANSWER_DEADLINE))
        .service(service_fn(move |request| {
            let upstream = upstream.clone();
            async move { Ok(upstream.forward(request).await) }
        }));

    let address = std::env::args().nth(2).unwrap_or_else(|| "127.0.0.1:8790".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("a secret key, shown this once: {}", issued.key().expose());
    shared::serve(listener, app).await?;
    Ok(())
}

/// The server behind the gate.
#[derive(Clone)]
struct Upstream {
    client: Client<HttpConnector, Body>,
    authority: Authority,
    /// What we present there.
    credential: Option<HeaderValue>,
}

impl Upstream {
    fn new(uri: &str, key: Option<String>) -> Result<Self, Box<dyn Error>> {
        let uri: Uri = uri.parse()?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err("the upstream must be http://HOST[:PORT]".into());
        }
        let credential = key.map(|key| HeaderValue::try_from(format!("Bearer {key}")));
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            authority: uri.authority().cloned().ok_or("the upstream has no host")?,
            credential: credential.transpose()?,
        })
    }

    async fn forward(&self, mut request: Request) -> Response {
        if request.method() == Method::CONNECT {
            // A WebSocket over HTTP/2, for which the handshake would have to be made anew.
            return (StatusCode::NOT_IMPLEMENTED, "WebSockets over HTTP/1.1 only\n")
                .into_response();
        }
        if let Err(error) = self.address(&mut request) {
            tracing::warn!(%error, "a request that cannot be forwarded");
            return StatusCode::BAD_REQUEST.into_response();
        }
        // Taken out before the request goes on; there is one for handshakes alone, which the layer
        // has found to be proper ones.
        let downstream = request.extensions_mut().remove::<OnUpgrade>();
        match self.client.request(request).await {
            Ok(mut response) => {
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    let Some(downstream) = downstream else {
                        return StatusCode::BAD_GATEWAY.into_response();
                    };
                    let upstream = hyper::upgrade::on(&mut response);
                    tokio::spawn(copy(downstream, upstream));
                } else {
                    remove_hop_by_hop(response.headers_mut());
                }
                response.map(Body::new)
            }
            Err(error) => {
                tracing::warn!(%error, "the upstream does not answer");
                StatusCode::BAD_GATEWAY.into_response()
            }
        }
    }

    /// Makes a request to us one to the server behind the gate.
    fn address(&self, request: &mut Request) -> Result<(), Box<dyn Error>> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()?;
        *request.version_mut() = Version::HTTP_11;

        let account = request.extensions().get::<Principal>().ok_or("no principal")?.account();
        let account = HeaderValue::from_str(account)?;
        let headers = request.headers_mut();
        let upgrade = headers.get(UPGRADE).cloned();
        // Also because a client could name our header in `Connection`, to have it removed again.
        remove_hop_by_hop(headers);
        if let Some(upgrade) = upgrade {
            headers.insert(UPGRADE, upgrade);
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        headers.remove(HOST);
        // In the place of all that the client may have sent under this name.
        headers.insert(ACCOUNT, account);
        if let Some(credential) = &self.credential {
            headers.insert(AUTHORIZATION, credential.clone());
        }
        Ok(())
    }
}

/// Removes what concerns one connection and not the request (RFC 9110 §7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// Copies both ways between two upgraded connections, until both have ended.
async fn copy(downstream: OnUpgrade, upstream: OnUpgrade) {
    let copied = async {
        let (downstream, upstream) = tokio::try_join!(downstream, upstream)?;
        let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
        tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await?;
        Ok::<_, Box<dyn Error + Send + Sync>>(())
    };
    if let Err(error) = copied.await {
        tracing::debug!(%error, "a session broke off");
    }
}
