//! A credential as a subprotocol: all that a browser can send (RFC 6455 §4.1).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};
use zeroize::Zeroizing;

use super::{Found, Text, is_no_key};
use crate::{
    MAX_CREDENTIAL_LEN,
    handshake::{Amount, Key, Kind, Offer, amount_of_offers, offers},
    profile::Profile,
};

const SEPARATOR: &[u8] = b", ";

/// Looks at the entries of all lines. The caller has made sure that this is a handshake.
pub(super) fn find<'a>(headers: &'a HeaderMap, profile: &Profile) -> Found<'a> {
    match amount_of_offers(headers) {
        Amount::Nothing => return Found::Nothing,
        Amount::WithinBounds => {}
        Amount::TooMuch => return Found::Malformed,
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
    if text.len() > (MAX_CREDENTIAL_LEN * 4).div_ceil(3) {
        return None;
    }
    let mut decoded = Zeroizing::new(vec![0; text.len()]);
    let len = URL_SAFE_NO_PAD.decode_slice(text, &mut decoded).ok()?;
    decoded.truncate(len);
    Some(decoded)
}

/// The entry that carries the credential.
pub(super) fn entry<'a>(headers: &'a HeaderMap, profile: &Profile) -> Option<&'a [u8]> {
    offers(headers, profile).find(carries_key).map(|offer| offer.entry)
}

fn carries_key(offer: &Offer<'_>) -> bool {
    match offer.kind {
        Kind::Credential(Key::Plain(text)) => !is_no_key(text),
        Kind::Credential(Key::Base64Url(text)) => decode(text).is_some_and(|key| !is_no_key(&key)),
        Kind::Other => false,
    }
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
    let (mut is_offered, mut carrier, mut others) = (false, None, Others::default());
    for offer in offers(headers, profile) {
        if offer.is_credential() {
            is_offered = true;
            carrier = carrier.or_else(|| carries_key(&offer).then_some(offer.entry));
        } else {
            others.add(offer.entry);
        }
    }
    if !is_offered {
        return None;
    }
    let kept = others.join(headers, profile);
    let carrier = carrier.filter(|_| keep_entry);
    let line = headers.get(SEC_WEBSOCKET_PROTOCOL);
    let is_all = carrier.is_some_and(|entry| line.is_some_and(|line| line.as_bytes() == entry));
    let copy = carrier.filter(|_| !is_all).and_then(|entry| HeaderValue::from_bytes(entry).ok());
    let line = headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Some(kept) = kept {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, kept);
    }
    let mut consumed = if is_all { line } else { copy }?;
    consumed.set_sensitive(true);
    Some(consumed)
}

/// The entries that are no credentials.
#[derive(Default)]
struct Others<'a> {
    first: Option<&'a [u8]>,
    /// The length of all on one line, the first comma included.
    len: usize,
}

impl<'a> Others<'a> {
    fn add(&mut self, entry: &'a [u8]) {
        self.first.get_or_insert(entry);
        self.len += SEPARATOR.len() + entry.len();
    }

    /// One line of all. The one that most clients leave costs nothing to make.
    fn join(&self, headers: &HeaderMap, profile: &Profile) -> Option<HeaderValue> {
        let len = self.len.saturating_sub(SEPARATOR.len());
        let first = self.first?;
        if first.len() == len {
            let known = profile.protocols().iter().find(|protocol| protocol.as_bytes() == first);
            if let Some(known) = known {
                return Some(known.clone());
            }
        }
        // The exact length: what is too large is allocated a second time when it is shared.
        let mut line = BytesMut::with_capacity(len);
        for offer in offers(headers, profile).filter(|offer| !offer.is_credential()) {
            if !line.is_empty() {
                line.put_slice(SEPARATOR);
            }
            line.put_slice(offer.entry);
        }
        HeaderValue::from_maybe_shared(line.freeze()).ok()
    }
}
