//! The words of a refusal, the same for both doors.

use std::borrow::Cow;

use http::{HeaderValue, StatusCode};

use super::{CloseFrame, Rejection, RejectionKind};

/// What a refused client is told: by a status and JSON, or by an event and a Close frame.
///
/// [`Refusal::of`] has the words of OpenAI's protocol, with Swaram's close codes. A profile can
/// change all of them ([`Profile::with_refusal`](crate::Profile::with_refusal)).
///
/// ```
/// use tower_realtime_auth::{CloseFrame, Profile, Refusal, RejectionKind};
///
/// let expired = CloseFrame::new(4008, "token expired")?;
/// let profile = Profile::default().with_refusal(move |rejection| match rejection.kind() {
///     RejectionKind::Expired => Refusal::of(rejection).with_close(expired.clone()),
///     _ => Refusal::of(rejection),
/// });
/// # Ok::<(), tower_realtime_auth::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Refusal {
    status: StatusCode,
    challenge: Option<HeaderValue>,
    body: Cow<'static, str>,
    event: Option<Cow<'static, str>>,
    close: CloseFrame,
}

impl Refusal {
    /// The words for this rejection.
    #[must_use]
    pub fn of(rejection: &Rejection) -> Self {
        let words = rejection.kind().words();
        // The words are ours and need no escaping.
        let error = format!(
            r#"{{"type":"{}","code":"{}","message":"{}","param":null}}"#,
            words.error_type(),
            words.code,
            words.message,
        );
        let (code, reason) = words.close;
        Self {
            status: words.status,
            challenge: words.challenge.map(HeaderValue::from_static),
            body: format!(r#"{{"error":{error}}}"#).into(),
            event: Some(
                format!(r#"{{"type":"error","event_id":"event_refused","error":{error}}}"#).into(),
            ),
            close: CloseFrame::fitting(code, reason),
        }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same with another body, which is JSON.
    #[must_use]
    pub fn with_body(self, json: impl Into<Cow<'static, str>>) -> Self {
        Self { body: json.into(), ..self }
    }

    /// The same with another text message before the Close, or with none.
    #[must_use]
    pub fn with_event(self, event: Option<impl Into<Cow<'static, str>>>) -> Self {
        Self { event: event.map(Into::into), ..self }
    }

    /// The same with another Close frame.
    #[must_use]
    pub fn with_close(self, close: CloseFrame) -> Self {
        Self { close, ..self }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The JSON of the HTTP answer.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }

    /// The text message before the Close.
    #[must_use]
    pub fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// The Close frame.
    #[must_use]
    pub const fn close(&self) -> &CloseFrame {
        &self.close
    }

    /// What `WWW-Authenticate` says (RFC 6750 §3).
    pub(super) const fn challenge(&self) -> Option<&HeaderValue> {
        self.challenge.as_ref()
    }
}

/// The words for one kind of rejection.
pub(super) struct Words {
    status: StatusCode,
    challenge: Option<&'static str>,
    code: &'static str,
    pub(super) message: &'static str,
    close: (u16, &'static str),
}

impl Words {
    /// `type` of OpenAI's error object.
    fn error_type(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }
}

/// RFC 6750 §3: no error code where no credential was presented.
const BARE: Option<&str> = Some(r#"Bearer realm="realtime""#);
const INVALID_REQUEST: Option<&str> = Some(r#"Bearer realm="realtime", error="invalid_request""#);
const INVALID_TOKEN: Option<&str> = Some(r#"Bearer realm="realtime", error="invalid_token""#);
const INSUFFICIENT_SCOPE: Option<&str> =
    Some(r#"Bearer realm="realtime", error="insufficient_scope""#);

impl RejectionKind {
    /// Whether a key is unknown, expired, revoked or used up is not the client's business.
    pub(super) const fn words(self) -> Words {
        match self {
            Self::Missing => Words {
                status: StatusCode::UNAUTHORIZED,
                challenge: BARE,
                code: "missing_api_key",
                message: "No API key was presented. Send it as `Authorization: Bearer KEY`, or from \
                          a browser as a WebSocket subprotocol.",
                close: (4001, "Unauthorized: no API key was presented"),
            },
            Self::Malformed => Words {
                status: StatusCode::BAD_REQUEST,
                challenge: INVALID_REQUEST,
                code: "malformed_api_key",
                message: "The API key is malformed: send one, of visible ASCII without commas, at \
                          most 4096 bytes long.",
                close: (4001, "Unauthorized: malformed API key"),
            },
            Self::Conflict => Words {
                status: StatusCode::BAD_REQUEST,
                challenge: INVALID_REQUEST,
                code: "conflicting_api_keys",
                message: "Different API keys were presented in different places. Send one.",
                close: (4001, "Unauthorized: conflicting API keys"),
            },
            Self::Unknown | Self::Expired | Self::Revoked | Self::Spent => Words {
                status: StatusCode::UNAUTHORIZED,
                challenge: INVALID_TOKEN,
                code: "invalid_api_key",
                message: "The API key is unknown, expired, revoked or used up.",
                close: (4001, "Unauthorized: invalid or expired API key"),
            },
            Self::Model => Words {
                status: StatusCode::FORBIDDEN,
                challenge: INSUFFICIENT_SCOPE,
                code: "model_not_allowed",
                message: "The API key does not allow this model. Name, once, one that it allows.",
                close: (4003, "Forbidden: the API key does not allow this model"),
            },
            Self::Origin => Words {
                status: StatusCode::FORBIDDEN,
                challenge: INSUFFICIENT_SCOPE,
                code: "origin_not_allowed",
                message: "The API key does not allow requests from this origin.",
                close: (4003, "Forbidden: the API key does not allow this origin"),
            },
            Self::Environment => Words {
                status: StatusCode::FORBIDDEN,
                challenge: INSUFFICIENT_SCOPE,
                code: "environment_not_allowed",
                message: "The API key is of another environment. Use a live key for the real \
                          service, a test key for the rehearsal.",
                close: (4003, "Forbidden: the API key is of another environment"),
            },
            Self::RateLimited => Words {
                status: StatusCode::TOO_MANY_REQUESTS,
                challenge: None,
                code: "rate_limit_exceeded",
                message: "The API key has been used too often in this minute. Wait for the next.",
                close: (4029, "Too many requests: wait for the next minute"),
            },
            Self::TooManySessions => Words {
                status: StatusCode::TOO_MANY_REQUESTS,
                challenge: None,
                code: "session_limit_exceeded",
                message: "The API key has as many sessions open as it may. Close one.",
                close: (4029, "Too many sessions: close one"),
            },
            Self::TooManyFailures => Words {
                status: StatusCode::TOO_MANY_REQUESTS,
                challenge: None,
                code: "too_many_failures",
                message: "Too many invalid API keys came from your address in this minute. Use a \
                          valid one, or wait for the next minute.",
                close: (4029, "Too many invalid API keys: wait for the next minute"),
            },
            Self::UsageSpent => Words {
                status: StatusCode::TOO_MANY_REQUESTS,
                challenge: None,
                code: "insufficient_quota",
                message: "Less of this month's usage is left to the API key than this takes. Wait \
                          for the next month, or ask for a larger plan.",
                close: (4029, "The month's usage is spent"),
            },
            Self::Handshake => Words {
                status: StatusCode::UPGRADE_REQUIRED,
                challenge: None,
                code: "invalid_handshake",
                message: "This is not a WebSocket handshake of version 13 (RFC 6455, RFC 8441).",
                close: (1002, "Not a WebSocket handshake"),
            },
            Self::Unguarded => Words {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                challenge: None,
                code: "session_not_guarded",
                message: "This API key locks session settings or limits the session, and the \
                          service does not keep sessions to that. To its author: before you \
                          answer the handshake, call Principal::guard() and let all that the \
                          client sends go through it, best in a GuardedSocket; or call \
                          Principal::waive_guard() if something else does its work.",
                close: (1011, "Internal error: the session is not guarded"),
            },
            Self::Uncounted => Words {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                challenge: None,
                code: "session_not_counted",
                message: "The sessions of this API key are counted, and the service lets go of \
                          this one's place. To its author: keep the Principal of the request, or \
                          the guard made from it, for as long as the session lasts.",
                close: (1011, "Internal error: the session is not counted"),
            },
            Self::LimitsUnavailable => Words {
                status: StatusCode::SERVICE_UNAVAILABLE,
                challenge: None,
                code: "service_unavailable",
                message: "The limits of the API key could not be checked. Try again shortly.",
                close: (1013, "Service unavailable: the limits could not be checked"),
            },
            Self::StoreUnavailable => Words {
                status: StatusCode::SERVICE_UNAVAILABLE,
                challenge: None,
                code: "service_unavailable",
                message: "The API key could not be checked. Try again shortly.",
                close: (1013, "Service unavailable: the API key could not be checked"),
            },
        }
    }
}
