//! A credential as a subprotocol: all that a browser can send (RFC 6455 §4.1).

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};

use super::{Found, Text};
use crate::{
    handshake::{offers, offers_within_bounds},
    profile::Profile,
};

/// Looks at the entries of all lines. The caller has made sure that this is a handshake.
pub(super) fn find<'a>(headers: &'a HeaderMap, profile: &Profile) -> Found<'a> {
    if !offers_within_bounds(headers) {
        return Found::Malformed;
    }
    offers(headers)
        .filter_map(|entry| profile.credential_in(entry))
        .fold(Found::Nothing, |found, credential| found.and(Text::Borrowed(credential)))
}

/// The entry that carries the credential.
pub(super) fn entry<'a>(headers: &'a HeaderMap, profile: &Profile) -> Option<&'a [u8]> {
    offers(headers).find(|entry| profile.credential_in(entry).is_some_and(|key| !key.is_empty()))
}

/// Removes the credentials and joins the other entries on one line.
///
/// With `keep_entry`, answers the entry that carried the credential, to be echoed. If it is all
/// that was offered, the header's value itself is that entry and nothing is copied.
pub(super) fn strip(
    headers: &mut HeaderMap,
    profile: &Profile,
    keep_entry: bool,
) -> Option<HeaderValue> {
    let is_credential = |entry: &&[u8]| profile.credential_in(entry).is_some();
    if !offers(headers).any(|entry| is_credential(&entry)) {
        return None;
    }
    let kept = join(|| offers(headers).filter(|entry| !is_credential(entry)), profile);
    let is_all = entry(headers, profile).is_some_and(|entry| {
        headers.get(SEC_WEBSOCKET_PROTOCOL).is_some_and(|line| line.as_bytes() == entry)
    });
    let copy = if keep_entry && !is_all {
        entry(headers, profile).and_then(|entry| HeaderValue::from_bytes(entry).ok())
    } else {
        None
    };
    let line = headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Some(kept) = kept {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, kept);
    }
    let mut consumed = if is_all { line } else { copy }.filter(|_| keep_entry)?;
    consumed.set_sensitive(true);
    Some(consumed)
}

/// One line of all entries. The one that most clients leave costs nothing to make.
fn join<'a, E>(entries: impl Fn() -> E, profile: &Profile) -> Option<HeaderValue>
where
    E: Iterator<Item = &'a [u8]>,
{
    let mut all = entries();
    let first = all.next()?;
    if all.next().is_none() {
        let known = profile.protocols().iter().find(|protocol| protocol.as_bytes() == first);
        if let Some(known) = known {
            return Some(known.clone());
        }
    }
    let mut line = BytesMut::with_capacity(entries().map(|entry| entry.len() + 2).sum());
    line.put_slice(first);
    for entry in entries().skip(1) {
        line.put_slice(b", ");
        line.put_slice(entry);
    }
    HeaderValue::from_maybe_shared(line.freeze()).ok()
}
