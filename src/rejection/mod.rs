//! Why a request is refused, and what the refused client is told.
//!
//! A refusal leaves by one of two doors: an HTTP status, or, for clients that cannot read one, a
//! completed handshake that is closed with a code. Both say the same.

#[cfg(feature = "close")]
mod close;
#[cfg(feature = "close")]
mod frame;
mod http;

use std::{fmt, time::Duration};

#[cfg(feature = "close")]
pub(crate) use self::close::try_close;
pub(crate) use self::http::respond;
#[cfg(feature = "close")]
pub use self::{
    close::{Closing, RefusalMode},
    frame::CloseFrame,
};
use crate::CredentialSource;

/// Why a request was refused. In the extensions of every response that the layer makes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    kind: RejectionKind,
    source: Option<CredentialSource>,
}

impl Rejection {
    pub(crate) const fn new(kind: RejectionKind, source: Option<CredentialSource>) -> Self {
        Self { kind, source }
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> RejectionKind {
        self.kind
    }

    /// Where the refused credential stood. `None` if there was none.
    #[must_use]
    pub const fn source(&self) -> Option<CredentialSource> {
        self.source
    }

    /// When trying again may help, for refusals that are not the client's fault.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            RejectionKind::StoreUnavailable => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.says().message)
    }
}

impl std::error::Error for Rejection {}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// It carries no credential.
    Missing,
    /// Its credential is too long, holds an illegal character, or contradicts another one in the
    /// same place.
    Malformed,
    /// It carries different credentials in different places, and the policy is
    /// [`Conflicts::RejectConflict`](crate::Conflicts::RejectConflict).
    Conflict,
    /// Nobody has this key.
    Unknown,
    /// The key is past its expiry.
    Expired,
    /// The key, or the one that minted it, was taken back.
    Revoked,
    /// The key does not grant the model that was asked for.
    Model,
    /// The key is of another environment than the one that is served.
    Environment,
    /// The key does not grant the origin that the request comes from.
    Origin,
    /// The key has been used as often as it may be.
    Spent,
    /// An upgrade or CONNECT that is not a proper WebSocket handshake.
    Handshake,
    /// The store failed, panicked or did not answer in time. Says nothing about the key.
    StoreUnavailable,
}

impl RejectionKind {
    /// A short name for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Conflict => "conflict",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Model => "model",
            Self::Environment => "environment",
            Self::Origin => "origin",
            Self::Spent => "spent",
            Self::Handshake => "handshake",
            Self::StoreUnavailable => "store_unavailable",
        }
    }

    /// What the client is told. Whether a key is unknown, expired,
    /// revoked or spent is not its business.
    const fn says(self) -> Says {
        match self {
            Self::Missing => Says {
                status: 401,
                challenge: Some(Challenge::Bare),
                code: "missing_api_key",
                message: "No API key was presented. Send it as `Authorization: Bearer KEY`, or from \
                          a browser as a WebSocket subprotocol.",
                close: (4001, "Unauthorized: no API key was presented"),
            },
            Self::Malformed => Says {
                status: 400,
                challenge: Some(Challenge::InvalidRequest),
                code: "malformed_api_key",
                message: "The API key is malformed: send one, of visible ASCII without commas, at \
                          most 4096 bytes long.",
                close: (4001, "Unauthorized: malformed API key"),
            },
            Self::Conflict => Says {
                status: 400,
                challenge: Some(Challenge::InvalidRequest),
                code: "conflicting_api_keys",
                message: "Different API keys were presented in different places. Send one.",
                close: (4001, "Unauthorized: conflicting API keys"),
            },
            Self::Unknown | Self::Expired | Self::Revoked | Self::Spent => Says {
                status: 401,
                challenge: Some(Challenge::InvalidToken),
                code: "invalid_api_key",
                message: "The API key is unknown, expired, revoked or used up.",
                close: (4001, "Unauthorized: invalid or expired API key"),
            },
            Self::Model => Says {
                status: 403,
                challenge: Some(Challenge::InsufficientScope),
                code: "model_not_allowed",
                message: "The API key does not allow this model. Name, once, one that it allows.",
                close: (4003, "Forbidden: the API key does not allow this model"),
            },
            Self::Origin => Says {
                status: 403,
                challenge: Some(Challenge::InsufficientScope),
                code: "origin_not_allowed",
                message: "The API key does not allow requests from this origin.",
                close: (4003, "Forbidden: the API key does not allow this origin"),
            },
            Self::Environment => Says {
                status: 403,
                challenge: Some(Challenge::InsufficientScope),
                code: "environment_not_allowed",
                message: "The API key is of another environment. Use a live key for the real \
                          service, a test key for the rehearsal.",
                close: (4003, "Forbidden: the API key is of another environment"),
            },
            Self::Handshake => Says {
                status: 426,
                challenge: None,
                code: "invalid_handshake",
                message: "This is not a WebSocket handshake of version 13 (RFC 6455, RFC 8441).",
                close: (1002, "Not a WebSocket handshake"),
            },
            Self::StoreUnavailable => Says {
                status: 503,
                challenge: None,
                code: "service_unavailable",
                message: "The API key could not be checked. Try again shortly.",
                close: (1013, "Service unavailable: the API key could not be checked"),
            },
        }
    }
}

/// The words of a refusal, for both doors.
struct Says {
    status: u16,
    challenge: Option<Challenge>,
    code: &'static str,
    message: &'static str,
    #[cfg_attr(not(feature = "close"), allow(dead_code, reason = "the words of the other door"))]
    close: (u16, &'static str),
}

impl Says {
    /// `type` of OpenAI's error object.
    const fn error_type(&self) -> &'static str {
        if self.status >= 500 { "server_error" } else { "invalid_request_error" }
    }

    /// OpenAI's error object. The words are ours and need no escaping.
    fn error_json(&self) -> String {
        format!(
            r#"{{"type":"{}","code":"{}","message":"{}","param":null}}"#,
            self.error_type(),
            self.code,
            self.message,
        )
    }
}

/// What `WWW-Authenticate` says besides scheme and realm (RFC 6750 §3).
#[derive(Clone, Copy)]
enum Challenge {
    /// No error code where no credential was presented.
    Bare,
    InvalidRequest,
    InvalidToken,
    InsufficientScope,
}
