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
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
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
    CloseFrame, Rejection, RejectionKind, Says,
    frame::{CloseFinder, Seen, write_text},
};
use crate::{
    CredentialSource, MakeBody,
    handshake::{Handshake, select_to_refuse},
    layer::Config,
    service::Refused,
};

/// By which door a refused handshake leaves.
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

/// How refused handshakes are closed: with what code, and within which bounds.
///
/// ```
/// use std::time::Duration;
/// use tower_realtime_auth::{CloseFrame, Closing, RejectionKind};
///
/// let closing = Closing::default()
///     .with_frame(RejectionKind::Expired, CloseFrame::new(4008, "token expired")?)
///     .with_deadline(Duration::from_secs(1))
///     .with_max_lingering(100);
/// # Ok::<(), tower_realtime_auth::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Closing {
    frames: Vec<(RejectionKind, CloseFrame)>,
    deadline: Duration,
    max_drained: usize,
    max_lingering: usize,
    lingering: Arc<AtomicUsize>,
}

impl Default for Closing {
    /// Codes 4001 (bad or no key), 4003 (not allowed) and 1013 (store unavailable); 3 seconds,
    /// 256 KiB, 1,024 at once.
    fn default() -> Self {
        Self {
            frames: Vec::new(),
            deadline: Duration::from_secs(3),
            max_drained: 256 * 1024,
            max_lingering: 1024,
            lingering: Arc::default(),
        }
    }
}

impl Closing {
    /// Closes refusals of this kind with `frame`.
    #[must_use]
    pub fn with_frame(mut self, kind: RejectionKind, frame: CloseFrame) -> Self {
        self.frames.retain(|(other, _)| *other != kind);
        self.frames.push((kind, frame));
        self
    }

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

    pub(crate) fn lingering(&self) -> usize {
        self.lingering.load(Ordering::Acquire)
    }

    fn frame(&self, kind: RejectionKind, says: &Says) -> CloseFrame {
        let own = self.frames.iter().find(|(other, _)| *other == kind);
        let (code, reason) = says.close;
        own.map_or_else(|| CloseFrame::fitting(code, reason), |(_, frame)| frame.clone())
    }

    fn permit(&self) -> Option<Permit> {
        let lingering = Arc::clone(&self.lingering);
        let max = self.max_lingering;
        lingering
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < max).then_some(now + 1))
            .ok()?;
        Some(Permit(lingering))
    }
}

impl fmt::Debug for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closing")
            .field("frames", &self.frames)
            .field("deadline", &self.deadline)
            .field("max_drained", &self.max_drained)
            .field("max_lingering", &self.max_lingering)
            .field("lingering", &self.lingering())
            .finish()
    }
}

/// One place among those that may linger, given back when dropped.
struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
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
    let protocol = select_to_refuse(request.headers(), profile)?;
    // Only a server that can upgrade leaves this; it is taken, not cloned, because a second
    // poller would panic and a forgotten clone would keep the socket open.
    let upgrade = request.extensions_mut().remove::<OnUpgrade>()?;
    let permit = closing.permit()?;

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

    let says = rejection.kind.says();
    let mut wire = Vec::new();
    write_text(&mut wire, &error_event(&says));
    closing.frame(rejection.kind, &says).write_to(&mut wire);

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

/// OpenAI's error event: several SDKs report this and not the Close.
fn error_event(says: &Says) -> String {
    format!(r#"{{"type":"error","event_id":"event_refused","error":{}}}"#, says.error_json())
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
