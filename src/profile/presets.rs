//! How the clients of known providers speak.
//!
//! | | header | query | subprotocol | refused by |
//! |---|---|---|---|---|
//! | `openai` | Bearer | | `openai-insecure-api-key.` | 3000 `invalid_request_error.CODE` |
//! | `xai` | Bearer | | `xai-client-secret.` | 4001 |
//! | `swaram` | Bearer | `api_key` | `openai-insecure-api-key.` | 4001 |
//! | `decart` | `X-API-Key`, Bearer | `api_key` | | event `{"type": "error", "error": TEXT}`, 4001 |
//! | `svara` | Bearer | | | HTTP |

use super::{HeaderForm, Lifetimes, MintFields, Profile, SubprotocolForm};
#[cfg(feature = "limit")]
use crate::LimitHeaders;
#[cfg(feature = "session")]
use crate::SessionRules;
use crate::{CloseFrame, Refusal, Rejection, RejectionKind};

/// OpenAI's session objects, for speech and for transcription.
const OPENAI_SESSION: [&str; 14] = [
    "type",
    "model",
    "instructions",
    "output_modalities",
    "audio",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "max_output_tokens",
    "tracing",
    "truncation",
    "prompt",
    "include",
];

impl Profile {
    /// OpenAI Realtime: closes with 3000 and `type.code` as the reason; tokens live 10 to 7,200
    /// seconds, 600 by default; minting takes the fields of OpenAI's schema alone; answers tell what
    /// is left as OpenAI's do.
    #[must_use]
    pub fn openai() -> Self {
        let profile = Self {
            headers: [HeaderForm::bearer()].into(),
            query_names: [].into(),
            subprotocols: [SubprotocolForm::known_prefix("openai-insecure-api-key.")].into(),
            #[cfg(feature = "limit")]
            limit_headers: LimitHeaders::OpenAi,
            ..Self::default()
        };
        profile
            .with_refusal(openai_refusal)
            .with_lifetimes(Lifetimes::seconds(10, 7_200, 600))
            .with_mint_fields(MintFields::only(["session"]).with_session_fields(OPENAI_SESSION))
    }

    /// xAI: browsers offer the token as their only subprotocol; tokens live 1 to 3,600 seconds, 600
    /// by default; minting takes no `session` and no `anchor`.
    #[must_use]
    pub fn xai() -> Self {
        let profile = Self {
            headers: [HeaderForm::bearer()].into(),
            query_names: [].into(),
            subprotocols: [SubprotocolForm::known_prefix("xai-client-secret.")].into(),
            ..Self::default()
        };
        profile
            .with_lifetimes(Lifetimes::seconds(1, 3_600, 600))
            .with_mint_fields(MintFields::only([]).with_anchor(false))
    }

    /// Swaram: header, query, then subprotocol; closes with 4001; all settings lock when the
    /// conversation begins; tokens live 1 to 3,600 seconds, 60 by default.
    #[must_use]
    pub fn swaram() -> Self {
        let profile = Self {
            headers: [HeaderForm::bearer()].into(),
            subprotocols: [SubprotocolForm::known_prefix("openai-insecure-api-key.")].into(),
            ..Self::default()
        };
        #[cfg(feature = "session")]
        let profile =
            profile.with_session_rules(SessionRules::default().with_lock_when_begun(true));
        profile.with_lifetimes(Lifetimes::seconds(1, 3_600, 60))
    }

    /// Decart: the key in the query of the socket and in `X-API-Key` elsewhere; its SDKs stop
    /// retrying only for an error event that says `unauthorized` or `not allowed`; error events carry
    /// a text alone, in a session too; tokens live 1 to 3,600 seconds, 60 by default.
    #[must_use]
    pub fn decart() -> Self {
        let profile = Self {
            headers: [HeaderForm::known_key("x-api-key"), HeaderForm::bearer()].into(),
            subprotocols: [].into(),
            ..Self::default()
        };
        #[cfg(feature = "session")]
        let profile = profile.with_session_rules(SessionRules::default().with_error_texts(true));
        profile.with_refusal(decart_refusal).with_lifetimes(Lifetimes::seconds(1, 3_600, 60))
    }

    /// Svara: plain HTTP with `Authorization: Bearer`; answers tell what is left of the minute's
    /// requests and the month's usage.
    #[must_use]
    pub fn svara() -> Self {
        Self {
            headers: [HeaderForm::bearer()].into(),
            query_names: [].into(),
            subprotocols: [].into(),
            ..Self::default()
        }
    }
}

/// Seen of the live service: upgrade, error event, then 3000 with `type.code`.
fn openai_refusal(rejection: &Rejection) -> Refusal {
    let reason = match rejection.kind() {
        RejectionKind::Model => "invalid_request_error.invalid_model",
        RejectionKind::RateLimited => "rate_limit_error.rate_limit_exceeded",
        RejectionKind::TooManySessions => "rate_limit_error.session_limit_exceeded",
        RejectionKind::TooManyFailures => "rate_limit_error.too_many_failures",
        RejectionKind::UsageSpent => "rate_limit_error.insufficient_quota",
        RejectionKind::LimitsUnavailable | RejectionKind::StoreUnavailable => {
            "server_error.service_unavailable"
        }
        _ => "invalid_request_error.invalid_api_key",
    };
    Refusal::of(rejection).with_close(CloseFrame::fitting(3000, reason))
}

/// Decart's errors are texts: `{"detail": TEXT}` over HTTP, `{"type": "error", "error": TEXT}` on a
/// socket.
fn decart_refusal(rejection: &Rejection) -> Refusal {
    let refusal = Refusal::of(rejection);
    // The texts are ours and need no escaping.
    let text = match rejection.kind() {
        RejectionKind::Model => "Permission denied: model not allowed",
        RejectionKind::Origin => "Permission denied: origin not allowed",
        RejectionKind::Environment => "Permission denied: environment not allowed",
        _ => refusal.close().reason(),
    };
    let close = CloseFrame::fitting(refusal.close().code(), text);
    let body = format!(r#"{{"detail":"{text}"}}"#);
    let event = format!(r#"{{"type":"error","error":"{text}"}}"#);
    refusal.with_body(body).with_event(Some(event)).with_close(close)
}
