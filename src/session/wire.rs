//! The messages of a WebSocket library, as far as the guard must know them.

use crate::CloseFrame;

/// What the guard sees of a message (RFC 6455 §5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A Close, with or without a code.
    Close,
    /// Ping, pong, and whatever else is none of the guard's business.
    Other,
}

/// The message type of a WebSocket library.
///
/// [`wire!`](crate::wire) writes it for axum and for tungstenite. It is implemented for a type of
/// yours, not for the library's, so that no version of any library is bound to this crate.
pub trait Wire {
    /// One message.
    type Message;

    /// What the message is.
    fn frame(message: &Self::Message) -> Frame<'_>;

    /// A text message.
    fn text(text: String) -> Self::Message;

    /// A Close.
    fn close(close: &CloseFrame) -> Self::Message;
}

/// Defines a type that is the [`Wire`](crate::Wire) of a module with a `Message` and a
/// `CloseFrame`: axum's, or tungstenite's and those that hand it on.
///
/// ```
/// tower_realtime_auth::wire!(
///     /// The messages of axum.
///     pub struct Axum for axum::extract::ws
/// );
/// tower_realtime_auth::wire!(struct Tungstenite for tokio_tungstenite::tungstenite::protocol);
///
/// use tower_realtime_auth::{CloseFrame, Frame, Wire};
///
/// assert_eq!(Axum::frame(&Axum::text("{}".to_owned())), Frame::Text("{}"));
/// let close = CloseFrame::new(4001, "Unauthorized")?;
/// assert_eq!(Tungstenite::frame(&Tungstenite::close(&close)), Frame::Close);
/// # Ok::<(), tower_realtime_auth::ConfigError>(())
/// ```
#[macro_export]
macro_rules! wire {
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident for $($module:ident)::+ $(;)?) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy)]
        $visibility struct $name;

        impl $crate::Wire for $name {
            type Message = $($module)::+::Message;

            fn frame(message: &Self::Message) -> $crate::Frame<'_> {
                match message {
                    $($module)::+::Message::Text(text) => $crate::Frame::Text(text),
                    $($module)::+::Message::Binary(bytes) => $crate::Frame::Binary(bytes),
                    $($module)::+::Message::Close(_) => $crate::Frame::Close,
                    _ => $crate::Frame::Other,
                }
            }

            fn text(text: ::std::string::String) -> Self::Message {
                $($module)::+::Message::Text(text.into())
            }

            fn close(close: &$crate::CloseFrame) -> Self::Message {
                $($module)::+::Message::Close(::std::option::Option::Some(
                    $($module)::+::CloseFrame {
                        code: close.code().into(),
                        reason: close.reason().into(),
                    },
                ))
            }
        }
    };
}
