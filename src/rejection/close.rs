//! The second door: complete the handshake, say why, close with a code, wait for the peer.
//!
//! Browsers show nothing of a refused handshake; a code and a reason they show. The wait is there
//! because a connection that is dropped right after the Close often loses it on the way; it is
//! bounded in time, in bytes, and in how many wait at once.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::future::select;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{
        CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        UPGRADE,
    },
};
use hyper::{
    rt::{Read, ReadBuf, Write},
    upgrade::OnUpgrade,
};
use sha1::{Digest, Sha1};

use super::{
    Rejection,
    frame::{CloseFinder, Seen, write_close, write_text},
    lingering::Lingering,
};
use crate::{
    ClientAddress, CredentialSource, MakeBody,
    address::Source,
    handshake::{Handshake, select_to_refuse},
    layer::Config,
    service::Refused,
};

/// By which door a refused handshake leaves.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, ServiceExt, extract::{Request, WebSocketUpgrade}, routing::any};
/// use tokio_tungstenite::{connect_async, tungstenite::{ClientRequestBuilder, Error, http::Uri}};
/// use tower::Layer;
/// use tower_realtime_auth::{Keys, MemoryStore, NewKey, RealtimeAuthLayer, RefusalMode};
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
/// let api = Router::new()
///     .route("/", any(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(async |_| {})));
///
/// for mode in [RefusalMode::Auto, RefusalMode::Never] {
///     let app = RealtimeAuthLayer::new(keys.clone()).with_refusal(mode).layer(api.clone());
///     let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
///     let uri: Uri = format!("ws://{}/", listener.local_addr()?).parse()?;
///     tokio::spawn(async move {
///         axum::serve(listener, ServiceExt::<Request>::into_make_service(app)).await
///     });
///     // A browser's way to send a key.
///     let client = |key: &str| {
///         ClientRequestBuilder::new(uri.clone())
///             .with_sub_protocol(format!("openai-insecure-api-key.{key}"))
///     };
///
///     assert!(connect_async(client(issued.key().expose())).await.is_ok());
///     match connect_async(client("wrong")).await {
///         // The handshake completes; an event and a Close with 4001 follow.
///         Ok(_) => assert_eq!(mode, RefusalMode::Auto),
///         Err(Error::Http(refused)) => {
///             assert_eq!(mode, RefusalMode::Never);
///             assert_eq!(refused.status(), 401);
///         }
///         Err(error) => return Err(error.into()),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalMode {
    /// Closes with a code where the client cannot read a status: its credential came as a
    /// subprotocol or in the query, or it sent an `Origin` and no credential. Else an HTTP status.
    #[default]
    Auto,
    /// Closes with a code wherever there is a handshake to complete.
    Always,
    /// Always an HTTP status.
    Never,
}

/// The bounds within which refused handshakes are closed. What they are told, the profile says.
///
/// ```
/// use std::{net::SocketAddr, time::Duration};
/// use axum::extract::ConnectInfo;
/// use tower_realtime_auth::{ClientAddress, Closing};
///
/// // The address of the connection, as axum's `into_make_service_with_connect_info` tells it.
/// let address = ClientAddress::connection(|extensions| {
///     extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip())
/// });
/// let closing = Closing::default()
///     .with_deadline(Duration::from_secs(1))
///     .with_max_lingering(100)
///     .with_max_per_source(10, address);
/// ```
#[derive(Clone)]
pub struct Closing {
    deadline: Duration,
    max_drained: usize,
    max_lingering: usize,
    per_source: Option<(usize, ClientAddress)>,
    lingering: Arc<Lingering>,
}

impl Default for Closing {
    /// 3 seconds, 256 KiB, 1,024 at once, as many of them from one source as there are.
    fn default() -> Self {
        Self {
            per_source: None,
            deadline: Duration::from_secs(3),
            max_drained: 256 * 1024,
            max_lingering: 1024,
            lingering: Arc::default(),
        }
    }
}

impl Closing {
    /// The longest time from the answer to the end of the connection, whatever the peer does.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The most bytes that are read from a peer while waiting for its Close.
    #[must_use]
    pub fn with_max_drained(self, max_drained: usize) -> Self {
        Self { max_drained, ..self }
    }

    /// How many refused handshakes may wait for their peers at once. Further ones get a status.
    #[must_use]
    pub fn with_max_lingering(self, max_lingering: usize) -> Self {
        Self { max_lingering, ..self }
    }

    /// How many of them may come from one source: an IPv4 address, or an IPv6 network of 64 bits.
    /// A request of unknown source counts for the bound over all alone.
    #[must_use]
    pub fn with_max_per_source(self, max: usize, address: ClientAddress) -> Self {
        Self { per_source: Some((max, address)), ..self }
    }

    pub(crate) fn lingering(&self) -> usize {
        self.lingering.total()
    }

    fn permit<B>(&self, request: &Request<B>) -> Option<Permit> {
        let source = self
            .per_source
            .as_ref()
            .and_then(|(max, address)| Some((address.source_of(request)?, *max)));
        let entered = self.lingering.enter(self.max_lingering, source);
        entered.then(|| Permit {
            lingering: Arc::clone(&self.lingering),
            source: source.map(|(source, _)| source),
        })
    }
}

impl fmt::Debug for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closing")
            .field("deadline", &self.deadline)
            .field("max_drained", &self.max_drained)
            .field("max_lingering", &self.max_lingering)
            .field("max_per_source", &self.per_source.as_ref().map(|(max, _)| max))
            .field("lingering", &self.lingering())
            .finish()
    }
}

/// One place among those that may linger, given back when dropped.
struct Permit {
    lingering: Arc<Lingering>,
    source: Option<Source>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.lingering.leave(self.source);
    }
}

/// Refuses by completing the handshake, if the mode wants it and the handshake allows it.
pub(crate) fn try_close<B, M, R>(
    mut request: Request<B>,
    refused: &Refused,
    config: &Config,
    make_body: &M,
) -> Option<Response<R>>
where
    M: MakeBody<R>,
{
    let Refused { rejection, handshake, profile, .. } = refused;
    let (rejection, handshake) = (*rejection, *handshake);
    let Config { closing, runtime, .. } = config;
    if !handshake.is_websocket() || !wants_code(&request, rejection, config.refusal) {
        return None;
    }
    // Only a server that can upgrade leaves this; it is taken, not cloned, because a second
    // poller would panic and a forgotten clone would keep the socket open.
    let upgrade = request.extensions_mut().remove::<OnUpgrade>()?;
    let protocol = select_to_refuse(request.headers(), profile)?;
    let permit = closing.permit(&request)?;

    let mut response = Response::new(make_body.make(Bytes::new()));
    *response.status_mut() = match handshake {
        Handshake::Http2 => StatusCode::OK,
        _ => StatusCode::SWITCHING_PROTOCOLS,
    };
    let headers = response.headers_mut();
    if handshake == Handshake::Http1 {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept(request.headers())?);
    }
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response.extensions_mut().insert(rejection);

    let refusal = profile.refusal(&rejection);
    let mut wire = Vec::new();
    // Before the Close, because several SDKs report this and not the Close.
    if let Some(event) = refusal.event() {
        write_text(&mut wire, event);
    }
    write_close(&mut wire, refusal.close());

    let max_drained = closing.max_drained;
    let deadline = runtime.sleep(closing.deadline);
    runtime.spawn(Box::pin(async move {
        let _permit = permit;
        // However the talk ends - the peer leaves, sends too much, takes too long - no more is
        // owed to it.
        select(pin!(say_and_drain(upgrade, &wire, max_drained)), deadline).await;
    }));
    Some(response)
}

/// Whether this refusal should be told by a close code.
fn wants_code<B>(request: &Request<B>, rejection: Rejection, mode: RefusalMode) -> bool {
    match mode {
        RefusalMode::Always => true,
        RefusalMode::Never => false,
        RefusalMode::Auto => match rejection.source {
            Some(CredentialSource::Header) => false,
            Some(CredentialSource::Query | CredentialSource::Subprotocol) => true,
            None => request.headers().contains_key(ORIGIN),
        },
    }
}

/// The value that proves the handshake was read (RFC 6455 §4.2.2). SHA-1 guards nothing here.
fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let nonce = headers.get(SEC_WEBSOCKET_KEY)?;
    let digest = Sha1::new()
        .chain_update(nonce.as_bytes())
        .chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .finalize();
    let mut proof = [0; 28];
    let len = STANDARD.encode_slice(digest, &mut proof).ok()?;
    HeaderValue::from_bytes(proof.get(..len)?).ok()
}

/// Writes everything at once, then reads until the peer's Close and shuts down.
async fn say_and_drain(upgrade: OnUpgrade, wire: &[u8], max_drained: usize) -> io::Result<()> {
    let mut io = pin!(upgrade.await.map_err(io::Error::other)?);
    let mut unwritten = wire;
    while !unwritten.is_empty() {
        let written = poll_fn(|cx| io.as_mut().poll_write(cx, unwritten)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        unwritten = unwritten.get(written..).unwrap_or_default();
    }
    poll_fn(|cx| io.as_mut().poll_flush(cx)).await?;

    let mut finder = CloseFinder::default();
    let mut drained = 0;
    while drained < max_drained {
        let (len, seen) = poll_fn(|cx| {
            let mut room = [0; 1024];
            let mut buffer = ReadBuf::new(&mut room);
            ready!(io.as_mut().poll_read(cx, buffer.unfilled()))?;
            let filled = buffer.filled();
            Poll::Ready(io::Result::Ok((filled.len(), finder.feed(filled))))
        })
        .await?;
        drained += len;
        if len == 0 || seen == Seen::Garbage {
            return Ok(());
        }
        if seen == Seen::Close {
            return poll_fn(|cx| io.as_mut().poll_shutdown(cx)).await;
        }
    }
    Ok(())
}
