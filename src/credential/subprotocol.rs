//! A credential as a subprotocol: all that a browser can send (RFC 6455 §4.1).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};
use zeroize::Zeroizing;

use super::{Found, Text, is_no_key};
use crate::{
    MAX_CREDENTIAL_LEN,
    handshake::{Key, Kind, Offer, Offered, is_token, offers},
    profile::Profile,
};

const SEPARATOR: &[u8] = b", ";

/// Looks at the entries of all lines. The caller has made sure that this is a handshake. Answers
/// also what is offered, unless it is more than is looked at.
pub(super) fn find<'a>(
    headers: &'a HeaderMap,
    len: usize,
    profile: &Profile,
) -> (Found<'a>, Option<Offered>) {
    let (mut found, mut offered) = (Found::Nothing, Offered::default());
    for offer in offers(headers, profile) {
        if offered.is_full(len) {
            return (Found::Malformed, None);
        }
        offered.take(&offer, profile);
        found = match offer.kind {
            Kind::Credential(Key::Plain(text)) => found.and(Text::Borrowed(text)),
            Kind::Credential(Key::Base64Url(text)) => match decode(text) {
                Some(text) => found.and(Text::Decoded(text)),
                None => Found::Malformed,
            },
            Kind::Other => found,
        };
    }
    (found, Some(offered))
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

fn carries_key(offer: &Offer<'_>) -> bool {
    match offer.kind {
        Kind::Credential(Key::Plain(text)) => !is_no_key(text),
        Kind::Credential(Key::Base64Url(text)) => decode(text).is_some_and(|key| !is_no_key(&key)),
        Kind::Other => false,
    }
}

/// Removes the credentials and joins the other entries on one line.
///
/// With `echo`, answers the entry that carried the credential, if it may be answered. If it is all
/// that was offered, the header's value itself is that entry and nothing is copied.
pub(super) fn strip(
    headers: &mut HeaderMap,
    profile: &Profile,
    offered: Offered,
    echo: bool,
) -> Option<HeaderValue> {
    if offered.credentials == 0 {
        return None;
    }
    let carrier = echo.then(|| offers(headers, profile).find(carries_key)).flatten();
    let carrier = carrier.map(|offer| offer.entry).filter(|entry| is_token(entry));
    let line = headers.get(SEC_WEBSOCKET_PROTOCOL);
    let is_all = carrier.is_some_and(|entry| line.is_some_and(|line| line.as_bytes() == entry));
    let copy = carrier.filter(|_| !is_all).and_then(|entry| HeaderValue::from_bytes(entry).ok());
    let line = match others(headers, profile, offered) {
        Some(others) => headers.insert(SEC_WEBSOCKET_PROTOCOL, others),
        None => headers.remove(SEC_WEBSOCKET_PROTOCOL),
    };
    let mut consumed = if is_all { line } else { copy }?;
    consumed.set_sensitive(true);
    Some(consumed)
}

/// One line of the entries that are no credentials.
fn others(headers: &HeaderMap, profile: &Profile, offered: Offered) -> Option<HeaderValue> {
    match (offered.others, offered.protocol(profile)) {
        (0, _) => return None,
        // What most clients leave costs nothing to make.
        (1, Some(protocol)) => return Some(protocol.clone()),
        _ => {}
    }
    let others = || offers(headers, profile).filter(|offer| !offer.is_credential());
    // The exact length: what is too large is allocated a second time when it is shared.
    let len: usize = others().map(|offer| SEPARATOR.len() + offer.entry.len()).sum();
    let mut line = BytesMut::with_capacity(len.saturating_sub(SEPARATOR.len()));
    for offer in others() {
        if !line.is_empty() {
            line.put_slice(SEPARATOR);
        }
        line.put_slice(offer.entry);
    }
    HeaderValue::from_maybe_shared(line.freeze()).ok()
}
