//! One event per decision, without a byte of any credential.

use crate::{Principal, Rejection, StoreError};

#[cfg(feature = "tracing")]
const TARGET: &str = "tower_realtime_auth";

/// A request was let through. `presented` counts the places that held a credential.
#[cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "nobody listens"))]
pub(crate) fn accepted(principal: &Principal, presented: u8) {
    #[cfg(feature = "tracing")]
    tracing::debug!(
        target: TARGET,
        account = principal.account(),
        key_id = %principal.key_id(),
        kind = principal.kind().as_str(),
        source = principal.source().as_str(),
        ambiguous = presented > 1,
        "accepted"
    );
}

/// A request was refused.
#[cfg_attr(not(feature = "tracing"), allow(unused_variables, reason = "nobody listens"))]
pub(crate) fn refused(rejection: Rejection) {
    #[cfg(feature = "tracing")]
    tracing::info!(
        target: TARGET,
        reason = rejection.kind().as_str(),
        source = rejection.source().map(crate::CredentialSource::as_str),
        "refused"
    );
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
