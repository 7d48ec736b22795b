//! Why a request is refused, and what the refused client is told.
//!
//! A refusal leaves by one of two doors: an HTTP status, or, for clients that cannot read one, a
//! completed handshake that is closed with a code. Both say the same.

#[cfg(feature = "close")]
mod close;
mod close_frame;
#[cfg(feature = "close")]
mod frame;
mod http;
#[cfg(feature = "close")]
mod lingering;
mod refusal;

use std::{fmt, time::Duration};

use ::http::{Request, Response, Version};

#[cfg(feature = "close")]
use self::close::try_close;
#[cfg(feature = "close")]
pub use self::close::{Closing, RefusalMode};
pub(crate) use self::http::respond;
pub use self::{close_frame::CloseFrame, refusal::Refusal};
use crate::{CredentialSource, MakeBody, layer::Config, service::Refused};

/// Why a request was refused. In the extensions of every response that the layer makes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    kind: RejectionKind,
    source: Option<CredentialSource>,
    retry_after: Option<Duration>,
}

impl Rejection {
    pub(crate) const fn new(kind: RejectionKind, source: Option<CredentialSource>) -> Self {
        let retry_after = match kind {
            RejectionKind::RateLimited
            | RejectionKind::TooManySessions
            | RejectionKind::TooManyFailures
            | RejectionKind::LimitsUnavailable
            | RejectionKind::StoreUnavailable => Some(Duration::from_secs(1)),
            _ => None,
        };
        Self { kind, source, retry_after }
    }

    /// The same, when it is known better when trying again may help.
    #[cfg(feature = "limit")]
    pub(crate) fn with_retry_after(self, wait: Option<Duration>) -> Self {
        Self { retry_after: wait.or(self.retry_after), ..self }
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

    /// When trying again may help, for refusals that pass: in whole seconds.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// Answers a refused request, by the door that its client can see through. The second one is as a
/// layer with `config` has it; without one, it stays shut.
#[cfg_attr(not(feature = "close"), expect(unused_variables))]
pub(crate) fn answer<B, M, R>(
    request: Request<B>,
    refused: &Refused,
    config: Option<&Config>,
    make_body: &M,
) -> Response<R>
where
    M: MakeBody<R>,
{
    let is_http1 = request.version() <= Version::HTTP_11;
    #[cfg(feature = "close")]
    if let Some(response) = config.and_then(|config| try_close(request, refused, config, make_body))
    {
        return response;
    }
    respond(refused, is_http1, make_body)
}

/// Whether `response` refuses, also if it completes a handshake to do so.
pub(crate) fn is_refused<B>(response: &Response<B>) -> bool {
    response.extensions().get::<Rejection>().is_some()
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.words().message)
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
    /// The key has had as many requests, or begun as many sessions, as it may in this minute.
    RateLimited,
    /// The key, or its account, has as many sessions open as it may.
    TooManySessions,
    /// Its credential is no key's, and too many such have come from its source in this minute
    /// (`FailureLimit`).
    TooManyFailures,
    /// So much of the month's usage is not left.
    UsageSpent,
    /// An upgrade or CONNECT that is not a proper WebSocket handshake.
    Handshake,
    /// The inner service completed a handshake without taking on the guard that the key's session
    /// needs (`Principal::guard`). A fault of the service.
    Unguarded,
    /// The inner service completed a handshake and kept neither the `Principal` nor its guard, so that
    /// a session that is one of few would not be counted. A fault of the service.
    Uncounted,
    /// The store that counts failed, panicked or did not answer in time. Says nothing about the key.
    LimitsUnavailable,
    /// The store failed, panicked or did not answer in time. Says nothing about the key.
    StoreUnavailable,
}

impl RejectionKind {
    /// Whether the credential is no key's, so that it may have been guessed. One that was a key's
    /// has not been; and of two that contradict each other, one may be.
    pub(crate) const fn is_guess(self) -> bool {
        matches!(self, Self::Unknown | Self::Malformed)
    }

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
            Self::RateLimited => "rate_limited",
            Self::TooManySessions => "too_many_sessions",
            Self::TooManyFailures => "too_many_failures",
            Self::UsageSpent => "usage_spent",
            Self::Handshake => "handshake",
            Self::Unguarded => "unguarded",
            Self::Uncounted => "uncounted",
            Self::LimitsUnavailable => "limits_unavailable",
            Self::StoreUnavailable => "store_unavailable",
        }
    }
}
