//! One event per decision, to tracing and to whoever listens, without a byte of any credential.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    Principal, Rejection, StoreError, UnixMillis, inquiry::Inquiry, layer::Config, service::Refused,
};

#[cfg(feature = "tracing")]
const TARGET: &str = "tower_realtime_auth";

/// What was decided about one request, for whoever keeps an audit trail. Holds nothing secret.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'a> {
    outcome: Outcome<'a>,
    presented: u8,
    elapsed: Duration,
}

/// The two ways that a decision can fall.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// The request was let through.
    Accepted(&'a Principal),
    /// It was not.
    Refused(Rejection),
}

impl<'a> Decision<'a> {
    /// Accepted or refused, and whom or why.
    #[must_use]
    pub const fn outcome(&self) -> Outcome<'a> {
        self.outcome
    }

    /// Whether more than one place of the request held a credential.
    #[must_use]
    pub const fn is_ambiguous(&self) -> bool {
        self.presented > 1
    }

    /// How long the decision took, by the clock of the keys: in milliseconds.
    #[must_use]
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

/// Whoever listens to decisions.
#[derive(Clone)]
pub(crate) struct Audit(Arc<dyn Fn(&Decision<'_>) + Send + Sync>);

impl Audit {
    pub(crate) fn new(listener: impl Fn(&Decision<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit(..)")
    }
}

/// A request was let through.
pub(crate) fn accepted(
    principal: &Principal,
    inquiry: &Inquiry,
    config: &Config,
    now: impl FnOnce() -> UnixMillis,
) {
    #[cfg(feature = "tracing")]
    tracing::debug!(
        target: TARGET,
        account = principal.account(),
        key_id = %principal.key_id(),
        kind = principal.kind().as_str(),
        source = principal.source().as_str(),
        ambiguous = inquiry.presented() > 1,
        "accepted"
    );
    tell(config, Outcome::Accepted(principal), inquiry.presented(), inquiry.began, now);
}

/// A request was refused.
pub(crate) fn refused(refused: &Refused, config: &Config, now: impl FnOnce() -> UnixMillis) {
    #[cfg(feature = "tracing")]
    tracing::info!(
        target: TARGET,
        reason = refused.rejection.kind().as_str(),
        source = refused.rejection.source().map(crate::CredentialSource::as_str),
        ambiguous = refused.presented > 1,
        "refused"
    );
    tell(config, Outcome::Refused(refused.rejection), refused.presented, refused.began, now);
}

fn tell(
    config: &Config,
    outcome: Outcome<'_>,
    presented: u8,
    began: Option<UnixMillis>,
    now: impl FnOnce() -> UnixMillis,
) {
    if let (Some(Audit(listener)), Some(began)) = (&config.on_decision, began) {
        listener(&Decision { outcome, presented, elapsed: now().since(began) });
    }
}

/// Why a refusal as `store_unavailable` follows.
#[cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "nobody listens"))]
pub(crate) fn store_failed(error: &StoreError) {
    #[cfg(feature = "tracing")]
    tracing::error!(
        target: TARGET,
        error = error as &(dyn std::error::Error + 'static),
        "the key store could not answer"
    );
}

/// Why a refusal as `limits_unavailable` follows, or a request passes uncounted.
#[cfg(feature = "limit")]
#[cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "nobody listens"))]
pub(crate) fn limits_failed(error: &StoreError) {
    #[cfg(feature = "tracing")]
    tracing::error!(
        target: TARGET,
        error = error as &(dyn std::error::Error + 'static),
        "the store of limits could not answer"
    );
}

/// A request was refused for what it would have taken.
#[cfg(feature = "limit")]
#[cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "nobody listens"))]
pub(crate) fn limited(rejection: Rejection, principal: Option<&Principal>) {
    #[cfg(feature = "tracing")]
    tracing::info!(
        target: TARGET,
        reason = rejection.kind().as_str(),
        account = principal.map(Principal::account),
        key_id = principal.map(|principal| principal.key_id().as_str()),
        "limited"
    );
}

/// The inner service let a session begin whose place among those at once nobody holds.
#[cfg(feature = "limit")]
pub(crate) fn uncounted() {
    #[cfg(feature = "tracing")]
    tracing::error!(
        target: TARGET,
        "the service completed a handshake and kept neither the Principal nor its guard, and the \
         sessions of the key are counted: answered with 500"
    );
}

/// News of revocations no longer come from other processes.
#[cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "nobody listens"))]
pub(crate) fn news_stopped(error: &StoreError) {
    #[cfg(feature = "tracing")]
    tracing::error!(
        target: TARGET,
        error = error as &(dyn std::error::Error + 'static),
        "sessions do not hear of revocations made elsewhere"
    );
}

/// They have not come for so long that no session can be left to it.
pub(crate) fn news_lost() {
    #[cfg(feature = "tracing")]
    tracing::error!(target: TARGET, "every session ends: its key may have been revoked elsewhere");
}

/// They come again.
pub(crate) fn news_resumed() {
    #[cfg(feature = "tracing")]
    tracing::info!(target: TARGET, "sessions hear of revocations made elsewhere again");
}

/// The inner service let a session begin that nobody keeps to its lock.
#[cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "nobody listens"))]
pub(crate) fn unguarded(key_id: &crate::KeyId) {
    #[cfg(feature = "tracing")]
    tracing::error!(
        target: TARGET,
        key_id = %key_id,
        "the service completed a handshake without Principal::guard(), and the key locks settings \
         or limits the session: answered with 500"
    );
}

/// A token was minted.
#[cfg(feature = "mint")]
#[cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "nobody listens"))]
pub(crate) fn minted(record: &crate::KeyRecord) {
    #[cfg(feature = "tracing")]
    tracing::info!(
        target: TARGET,
        account = &**record.account(),
        key_id = %record.id(),
        parent = record.parent().map(|parent| parent.id().as_str()),
        "minted"
    );
}

/// A client wanted to change locked settings, by these paths.
#[cfg(feature = "session")]
#[cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "nobody listens"))]
pub(crate) fn kept(paths: &[String]) {
    #[cfg(feature = "tracing")]
    tracing::info!(
        target: TARGET,
        // The client has spelled them, in as many bytes as it liked.
        paths = ?paths.iter().take(16).map(|path| beginning(path)).collect::<Vec<_>>(),
        "locked settings kept"
    );
}

#[cfg(all(feature = "session", feature = "tracing"))]
fn beginning(text: &str) -> &str {
    let end = text.char_indices().nth(64).map(|(end, _)| end);
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}
