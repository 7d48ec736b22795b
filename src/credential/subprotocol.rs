//! A credential as a subprotocol: all that a browser can send (RFC 6455 §4.1).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};
use zeroize::Zeroizing;

use super::{Found, Text, is_no_key};
use crate::{
    MAX_CREDENTIAL_LEN,
    handshake::{Key, Kind, Offer, offers, offers_within_bounds},
    profile::Profile,
};

/// Looks at the entries of all lines. The caller has made sure that this is a handshake.
pub(super) fn find<'a>(headers: &'a HeaderMap, profile: &Profile) -> Found<'a> {
    if !offers_within_bounds(headers) {
        return Found::Malformed;
    }
    offers(headers, profile).fold(Found::Nothing, |found, offer| match offer.kind {
        Kind::Credential(Key::Plain(text)) => found.and(Text::Borrowed(text)),
        Kind::Credential(Key::Base64Url(text)) => match decode(text) {
            Some(text) => found.and(Text::Decoded(text)),
            None => Found::Malformed,
        },
        Kind::Other => found,
    })
}

fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if text.len() > MAX_CREDENTIAL_LEN * 4 / 3 {
        return None;
    }
    let mut decoded = Zeroizing::new(vec![0; text.len()]);
    let len = URL_SAFE_NO_PAD.decode_slice(text, &mut decoded).ok()?;
    decoded.truncate(len);
    Some(decoded)
}

/// The entry that carries the credential.
pub(super) fn entry<'a>(headers: &'a HeaderMap, profile: &Profile) -> Option<&'a [u8]> {
    let carries_key = |offer: &Offer<'_>| match offer.kind {
        Kind::Credential(Key::Plain(text) | Key::Base64Url(text)) => !is_no_key(text),
        Kind::Other => false,
    };
    offers(headers, profile).find(carries_key).map(|offer| offer.entry)
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
    if !offers(headers, profile).any(|offer| offer.is_credential()) {
        return None;
    }
    let others = || offers(headers, profile).filter(|offer| !offer.is_credential());
    let kept = join(|| others().map(|offer| offer.entry), profile);
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
