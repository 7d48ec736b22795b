//! Whether a key is good for a request.
//!
//! The steps, each on the answer of the one before:
//! 1. The store's record has the digest that was asked for; all 32 bytes are compared in constant
//!    time, and the same work is done if there is no record.
//! 2. Neither the key nor the one that minted it is revoked.
//! 3. The key has not expired.
//! 4. The request names a model that the key grants, or leaves no choice.
//! 5. If the request wants another protocol on its connection, it is a proper WebSocket handshake.

use std::sync::Arc;

use http::Uri;

use crate::{
    KeyDigest, KeyRecord, RejectionKind, UnixMillis,
    credential::{Named, find_parameter},
    handshake::Handshake,
};

/// A key that is good for a request.
#[derive(Debug)]
pub(crate) struct Good {
    pub(crate) record: Arc<KeyRecord>,
    /// The model that the session is bound to, if the key has a list of models.
    pub(crate) model: Option<Arc<str>>,
}

/// Decides on what the store answered for `presented`.
pub(crate) fn decide(
    presented: &KeyDigest,
    answer: Option<Arc<KeyRecord>>,
    now: UnixMillis,
    handshake: Handshake,
    uri: &Uri,
) -> Result<Good, RejectionKind> {
    // Without a record, the presented digest is compared to its own complement: never equal.
    let complement = KeyDigest::from_bytes(presented.as_bytes().map(|byte| !byte));
    let stored = answer.as_ref().map_or(&complement, |record| record.digest());
    let equal = presented.ct_eq(stored);
    let record = answer.filter(|_| equal).ok_or(RejectionKind::Unknown)?;
    if record.is_revoked() {
        return Err(RejectionKind::Revoked);
    }
    if record.is_expired(now) {
        return Err(RejectionKind::Expired);
    }
    let model = model(&record, handshake, uri)?;
    if handshake == Handshake::Unrecognised {
        return Err(RejectionKind::Handshake);
    }
    Ok(Good { record, model })
}

/// The model of the key's list that the request is for.
fn model(
    record: &KeyRecord,
    handshake: Handshake,
    uri: &Uri,
) -> Result<Option<Arc<str>>, RejectionKind> {
    let Some(granted) = record.grants().models() else { return Ok(None) };
    let chosen = match (find_parameter(uri, b"model"), granted) {
        (Named::One(asked), _) => granted.iter().find(|model| model.as_bytes() == &*asked),
        (Named::Nothing, [only]) => Some(only),
        // Only a session is bound to a model; a plain request, to mint for instance, need not be.
        (Named::Nothing, _) if !handshake.is_websocket() => return Ok(None),
        (Named::Nothing | Named::Ambiguous, _) => None,
    };
    chosen.map_or(Err(RejectionKind::Model), |model| Ok(Some(Arc::clone(model))))
}
