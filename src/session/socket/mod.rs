//! The guard over a real socket.

mod halves;
mod poll;

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use self::halves::Halves;
use super::{End, SessionGuard, Wire};
use crate::Runtime;
#[cfg(feature = "tokio")]
use crate::TokioRuntime;

/// A WebSocket whose client is kept to what its key allows: a [`SessionGuard`] judges every message
/// before the handler sees it, and the session is ended when its time has come.
///
/// It is a [`Stream`](futures_util::Stream) and a [`Sink`](futures_util::Sink) of the messages of
/// the socket inside, and takes its place in a handler or in a proxy's relay, also after a split.
/// `W` names the messages: see [`wire!`](crate::wire).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use futures_util::{SinkExt, StreamExt};
/// use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};
/// use tower_realtime_auth::{Grants, GuardedSocket, SessionGuard, Settings};
///
/// tower_realtime_auth::wire!(struct Tungstenite for tokio_tungstenite::tungstenite::protocol);
///
/// // In a handler the guard is the principal's: `Principal::guard`.
/// let settings = Settings::parse(r#"{"voice": "marin"}"#)?;
/// let guard = SessionGuard::new(&Grants::default().with_session(settings), None);
///
/// let (ours, theirs) = tokio::io::duplex(1024);
/// let socket = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
/// let mut socket = GuardedSocket::<_, Tungstenite>::new(socket, guard);
/// tokio::spawn(async move {
///     // An echo in the place of a model.
///     while let Some(Ok(message)) = socket.next().await {
///         if message.is_text() && socket.send(message).await.is_err() {
///             break;
///         }
///     }
/// });
///
/// let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
/// // What the key leaves open goes through ...
/// let update = r#"{"type": "session.update", "session": {"speed": 2}}"#;
/// client.send(update.into()).await?;
/// assert_eq!(client.next().await.ok_or("gone")??.to_text()?, update);
///
/// // ... what it locks is taken out, and what nobody can judge does not reach the handler.
/// let update = r#"{"type": "session.update", "session": {"voice": "cedar"}}"#;
/// client.send(update.into()).await?;
/// let echoed = client.next().await.ok_or("gone")??;
/// assert_eq!(echoed.to_text()?, r#"{"session":{},"type":"session.update"}"#);
/// client.send(r#"{"type": "session.become"}"#.into()).await?;
/// assert!(client.next().await.ok_or("gone")??.to_text()?.contains(r#""type":"error""#));
/// # Ok(())
/// # }
/// ```
///
/// With axum: [the guide](crate::guide::axum#sessions-that-keep-to-their-token).
///
/// # What is judged
/// Text goes through [`SessionGuard::client`]: it is handed on, rewritten, answered in the handler's
/// place, or ends the session. A binary message ends it with 1003 unless the guard
/// [takes binary](SessionGuard::takes_binary), one over
/// [`max_message_len`](SessionGuard::max_message_len) bytes with 1009. The socket inside has bounds
/// of its own, on messages and on frames. Set them a little higher: it buffers that much, and past
/// them it fails without a Close.
///
/// # When it ends
/// After the longest time that the key allows a session ([`Grants::max_session`]), counted from
/// [`new`](Self::new), and by whatever is given to [`end_when`](Self::end_when). That the key
/// expires ends nothing by itself.
///
/// The client is then told why and gets a Close. What it still sends is dropped until it has
/// answered the Close, but no longer than the [close deadline](Self::with_close_deadline): only
/// then does the stream end. (Dropped earlier, a socket over HTTP/2 often loses the code.) A Close
/// that the handler sends, and [`close`], are waited for in the same way. A client that sends the
/// first Close is answered by the socket inside; the stream hands its Close on and ends.
///
/// **All this happens only while the socket is polled**, by reading or by writing. A handler that
/// does neither outlives its session. Nothing is spawned, and nothing outlives the socket.
///
/// [`Grants::max_session`]: crate::Grants::max_session
/// [`close`]: https://docs.rs/futures-util/latest/futures_util/sink/trait.SinkExt.html#method.close
pub struct GuardedSocket<T, W: Wire> {
    socket: T,
    guard: SessionGuard,
    state: State,
    /// Whether it was the handler that wanted the session to end: to it, that is no error.
    by_handler: bool,
    ends: Vec<(BoxFuture<'static, ()>, End)>,
    /// At most one message of the handler, one reply of the guard, and the two of an end.
    unsent: VecDeque<W::Message>,
    /// Whether a reply of the guard is not written yet. No more is read until it is, so that a
    /// client that asks without reading fills nothing.
    replying: bool,
    /// Until when what cannot be written now must be.
    stalled: Option<BoxFuture<'static, ()>>,
    write_deadline: Duration,
    close_deadline: Duration,
    runtime: Box<dyn Runtime>,
    halves: Arc<Halves>,
}

enum State {
    Open,
    /// What is unsent is being said, then the client's Close waited for, until this is ready.
    Ending(BoxFuture<'static, ()>),
    Ended,
}

/// Why nothing more can be read or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum SocketError<E> {
    /// The socket inside failed.
    Socket(E),
    /// The client did not read, within the write deadline, what it was sent.
    PeerTooSlow,
    /// The session has been ended; the client knows why.
    Ended,
}

impl<E> fmt::Display for SocketError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket(_) => "the WebSocket failed",
            Self::PeerTooSlow => "the client does not read what it is sent",
            Self::Ended => "the session has ended",
        })
    }
}

impl<E: std::error::Error + 'static> std::error::Error for SocketError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket(error) => Some(error),
            _ => None,
        }
    }
}

impl<T, W: Wire> GuardedSocket<T, W> {
    /// A guarded session over `socket`, which begins now.
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn new(socket: T, guard: SessionGuard) -> Self {
        Self::new_with_runtime(socket, guard, TokioRuntime)
    }

    /// The same on a runtime other than tokio. Only its timer is used.
    #[must_use]
    pub fn new_with_runtime(socket: T, guard: SessionGuard, runtime: impl Runtime) -> Self {
        let max_session = guard.max_session();
        let socket = Self {
            socket,
            guard,
            state: State::Open,
            by_handler: false,
            ends: Vec::new(),
            unsent: VecDeque::new(),
            replying: false,
            stalled: None,
            write_deadline: Duration::from_secs(10),
            close_deadline: Duration::from_secs(3),
            runtime: Box::new(runtime),
            halves: Arc::default(),
        };
        match max_session {
            Some(max) => {
                let over = socket.runtime.sleep(max);
                socket.end_when(over, End::session_expired(max))
            }
            None => socket,
        }
    }

    /// Ends the session, in this way, once `event` has come: the key's revocation, a shutdown, a
    /// deadline. The first one of several decides.
    ///
    /// ```
    /// # use tower_realtime_auth::{CloseFrame, ConfigError, End, GuardedSocket, Principal, Wire};
    /// // For those who want it: a session that ends when its key expires, at the price of calls
    /// // that are cut in the middle of a sentence.
    /// fn cut_at_expiry<T, W: Wire>(
    ///     socket: GuardedSocket<T, W>,
    ///     principal: &Principal,
    /// ) -> Result<GuardedSocket<T, W>, ConfigError> {
    ///     let Some(left) = principal.record().remaining(principal.accepted_at()) else {
    ///         return Ok(socket);
    ///     };
    ///     let end = End::new(CloseFrame::new(4001, "Unauthorized: the API key has expired")?);
    ///     Ok(socket.end_when(tokio::time::sleep(left), end))
    /// }
    /// ```
    #[must_use]
    pub fn end_when(mut self, event: impl Future<Output = ()> + Send + 'static, end: End) -> Self {
        self.ends.push((Box::pin(event), end));
        self
    }

    /// How long the client may take to read enough that a message can be written as a whole: 10
    /// seconds by default. After that the handler gets [`SocketError::PeerTooSlow`], and the client
    /// no Close, because it would not read that either.
    #[must_use]
    pub fn with_write_deadline(self, write_deadline: Duration) -> Self {
        Self { write_deadline, ..self }
    }

    /// How long an end may take, from the event and the Close to the client's Close: 3 seconds by
    /// default.
    #[must_use]
    pub fn with_close_deadline(self, close_deadline: Duration) -> Self {
        Self { close_deadline, ..self }
    }

    /// The guard.
    #[must_use]
    pub const fn guard(&self) -> &SessionGuard {
        &self.guard
    }

    /// The socket inside.
    #[must_use]
    pub const fn get_ref(&self) -> &T {
        &self.socket
    }
}

impl<T, W: Wire> fmt::Debug for GuardedSocket<T, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Open => "open",
            State::Ending(_) => "ending",
            State::Ended => "ended",
        };
        f.debug_struct("GuardedSocket").field("state", &state).finish_non_exhaustive()
    }
}
