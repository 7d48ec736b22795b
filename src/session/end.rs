//! Why and how a session is ended.

use std::time::Duration;

use serde_json::Value;

use super::{
    SessionRules,
    refused::{Refused, error_text},
};
use crate::CloseFrame;

/// Why and how a session is ended: the last event that the client gets, and the Close.
///
/// ```
/// use tower_realtime_auth::{CloseFrame, End};
///
/// let end = End::new(CloseFrame::new(4009, "quota used up")?)
///     .with_event(r#"{"type": "error", "error": {"code": "insufficient_quota"}}"#);
/// assert_eq!(end.close().code(), 4009);
/// # Ok::<(), tower_realtime_auth::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    event: Option<String>,
    /// Whether the event is an error in words of ours, not one that was given.
    is_ours: bool,
    close: CloseFrame,
}

impl End {
    /// An end with this Close and no event before it.
    #[must_use]
    pub const fn new(close: CloseFrame) -> Self {
        Self { event: None, is_ours: false, close }
    }

    /// The same with this event before the Close: a text message, because several SDKs report that
    /// and not the Close.
    #[must_use]
    pub fn with_event(self, event: impl Into<String>) -> Self {
        Self { event: Some(event.into()), is_ours: false, ..self }
    }

    /// The session has lasted for `max`, as long as it may (1001, as OpenAI has it).
    #[must_use]
    pub fn session_expired(max: Duration) -> Self {
        let message = format!("Your session hit the maximum duration of {}.", spelled(max));
        Self::error(1001, &message, "session_expired", &message)
    }

    /// The key was revoked while the session lasted (4001).
    #[must_use]
    pub fn revoked() -> Self {
        let reason = "Unauthorized: the API key was revoked";
        Self::error(4001, reason, "invalid_api_key", "The API key was revoked.")
    }

    /// The server stops (1001).
    #[must_use]
    pub fn going_away() -> Self {
        Self::new(CloseFrame::fitting(1001, "the server is stopping"))
    }

    /// The client sent a binary message where there are none (1003).
    #[must_use]
    pub fn unsupported() -> Self {
        Self::new(CloseFrame::fitting(1003, "events are text"))
    }

    /// The client sent a message that is too long (1009).
    #[must_use]
    pub fn too_big() -> Self {
        Self::new(CloseFrame::fitting(1009, "the message is too long"))
    }

    /// The text message before the Close. In a [`GuardedSocket`](crate::GuardedSocket), an error in
    /// words of ours is told in the form that the session's rules have for it
    /// ([`SessionRules::with_error_texts`]).
    #[must_use]
    pub fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// The text message before the Close in a session that goes by these rules.
    pub(super) fn event_by(&self, rules: &SessionRules) -> Option<String> {
        if self.is_ours && rules.error_texts() {
            // As of a refusal: what such a client reads is the reason.
            return Some(error_text(self.close.reason()));
        }
        self.event.clone()
    }

    /// The Close.
    #[must_use]
    pub const fn close(&self) -> &CloseFrame {
        &self.close
    }

    /// An end with OpenAI's error event, about no event of the client's.
    fn error(close: u16, reason: &str, code: &'static str, message: &str) -> Self {
        let event = Refused::new(code, message).into_event("event_ended", Value::Null);
        let close = CloseFrame::fitting(close, reason);
        Self { event: Some(event), is_ours: true, close }
    }
}

/// A duration in whole minutes if it is some, else in seconds.
fn spelled(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (number, unit) = if seconds >= 60 && seconds.is_multiple_of(60) {
        (seconds / 60, "minute")
    } else {
        (seconds, "second")
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_session_is_named_in_fitting_units() {
        for (seconds, said) in [
            (3600, "60 minutes"),
            (60, "1 minute"),
            (90, "90 seconds"),
            (10, "10 seconds"),
            (1, "1 second"),
            (0, "0 seconds"),
        ] {
            let end = End::session_expired(Duration::from_secs(seconds));
            let message = format!("Your session hit the maximum duration of {said}.");
            assert_eq!((end.close().code(), end.close().reason()), (1001, &*message));
            let event: serde_json::Value = serde_json::from_str(end.event().unwrap()).unwrap();
            assert_eq!(event["error"]["message"], message);
        }
    }
}
