//! Whether a key is good for a request.
//!
//! The steps, each on the answer of the one before:
//! 1. The store's record has a digest that was asked for; all 32 bytes are compared in constant
//!    time, and the same work is done if there is no record.
//! 2. Neither the key nor the one that minted it is revoked.
//! 3. The key has not expired.
//! 4. The key is of the environment that is served.
//! 5. The request comes from an origin that the key grants.
//! 6. The request names a model that the key grants, or leaves no choice.
//! 7. If the request wants another protocol on its connection, it is a proper WebSocket handshake.

use std::sync::Arc;

use http::{HeaderMap, Request, Uri, header::ORIGIN};

use crate::{
    Environment, KeyDigest, KeyRecord, RejectionKind, UnixMillis,
    credential::{Named, find_parameter},
    handshake::Handshake,
    key::Digests,
};

/// What a request asks for, as far as a key may or may not grant it.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    handshake: Handshake,
    uri: &'a Uri,
    headers: &'a HeaderMap,
}

impl<'a> Asked<'a> {
    pub(crate) fn by<B>(request: &'a Request<B>, handshake: Handshake) -> Self {
        Self { handshake, uri: request.uri(), headers: request.headers() }
    }
}

/// A key that is good for a request.
#[derive(Debug)]
pub(crate) struct Good {
    pub(crate) record: Arc<KeyRecord>,
    /// The model that the session is bound to, if the key has a list of models.
    pub(crate) model: Option<Arc<str>>,
}

/// Decides on what the store answered for `presented`.
pub(crate) fn decide(
    presented: &Digests,
    answer: Option<Arc<KeyRecord>>,
    now: UnixMillis,
    environment: Option<Environment>,
    asked: Asked<'_>,
) -> Result<Good, RejectionKind> {
    let record = same(presented, answer).ok_or(RejectionKind::Unknown)?;
    if record.is_revoked() {
        return Err(RejectionKind::Revoked);
    }
    if record.is_expired(now) {
        return Err(RejectionKind::Expired);
    }
    if environment.is_some_and(|served| record.environment() != served) {
        return Err(RejectionKind::Environment);
    }
    if !origin_is_granted(&record, asked.headers) {
        return Err(RejectionKind::Origin);
    }
    let model = model(&record, asked)?;
    if asked.handshake == Handshake::Unrecognised {
        return Err(RejectionKind::Handshake);
    }
    Ok(Good { record, model })
}

/// The record, if it is the one that was asked for.
fn same(presented: &Digests, answer: Option<Arc<KeyRecord>>) -> Option<Arc<KeyRecord>> {
    // Without a record, the presented digest is compared to its own complement: never equal.
    let complement = KeyDigest::from_bytes(presented.current.as_bytes().map(|byte| !byte));
    let stored = answer.as_ref().map_or(&complement, |record| record.digest());
    let is_current = presented.current.ct_eq(stored);
    let is_previous = presented.previous.is_some_and(|previous| previous.ct_eq(stored));
    answer.filter(|_| is_current || is_previous)
}

/// Compares byte for byte: a browser writes an origin in one way only (RFC 6454 §6.2).
fn origin_is_granted(record: &KeyRecord, headers: &HeaderMap) -> bool {
    let Some(granted) = record.grants().origins() else { return true };
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(origin), None) => {
            granted.iter().any(|granted| granted.as_bytes() == origin.as_bytes())
        }
        _ => false,
    }
}

/// The model of the key's list that the request is for.
fn model(record: &KeyRecord, asked: Asked<'_>) -> Result<Option<Arc<str>>, RejectionKind> {
    let Some(granted) = record.grants().models() else { return Ok(None) };
    let chosen = match (find_parameter(asked.uri, b"model"), granted) {
        (Named::One(named), _) => granted.iter().find(|model| model.as_bytes() == &*named),
        (Named::Nothing, [only]) => Some(only),
        // Only a session is bound to a model; a plain request, to mint for instance, need not be.
        (Named::Nothing, _) if !asked.handshake.is_websocket() => return Ok(None),
        (Named::Nothing | Named::Ambiguous, _) => None,
    };
    chosen.map_or(Err(RejectionKind::Model), |model| Ok(Some(Arc::clone(model))))
}
