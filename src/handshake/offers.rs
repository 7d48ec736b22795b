//! What a client offers as subprotocols, and which of it is answered.

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};

use super::is_token;
use crate::profile::{Form, Profile};

/// The most bytes of `Sec-WebSocket-Protocol` that are looked at, over all lines.
const MAX_OFFERS_LEN: usize = 16 * 1024;
/// The most subprotocols that are looked at.
const MAX_OFFERS: usize = 32;

/// One offered subprotocol.
#[derive(Clone, Copy)]
pub(crate) struct Offer<'a> {
    pub(crate) entry: &'a [u8],
    pub(crate) kind: Kind<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum Kind<'a> {
    /// It carries a key, which may be empty.
    Credential(Key<'a>),
    /// Anything else.
    Other,
}

/// A key as it stands in an entry.
#[derive(Clone, Copy)]
pub(crate) enum Key<'a> {
    Plain(&'a [u8]),
    Base64Url(&'a [u8]),
}

impl Offer<'_> {
    pub(crate) const fn is_credential(&self) -> bool {
        matches!(self.kind, Kind::Credential(_))
    }
}

/// The subprotocols that a client offers: the elements of all lines, in its order.
pub(crate) fn offers<'a>(
    headers: &'a HeaderMap,
    profile: &Profile,
) -> impl Iterator<Item = Offer<'a>> {
    let mut follows_marker = false;
    entries(headers).map(move |entry| {
        let kind = if follows_marker {
            follows_marker = false;
            Kind::Credential(Key::Plain(entry))
        } else {
            follows_marker = is_marker(entry, profile);
            kind(entry, profile)
        };
        Offer { entry, kind }
    })
}

fn is_marker(entry: &[u8], profile: &Profile) -> bool {
    let mut forms = profile.subprotocols().iter();
    forms.any(|form| matches!(&form.0, Form::After(marker) if marker.as_bytes() == entry))
}

fn kind<'a>(entry: &'a [u8], profile: &Profile) -> Kind<'a> {
    let mut keys = profile.subprotocols().iter().filter_map(|form| match &form.0 {
        Form::Prefix(prefix) => entry.strip_prefix(prefix.as_bytes()).map(Key::Plain),
        Form::Base64Url(prefix) => entry.strip_prefix(prefix.as_bytes()).map(Key::Base64Url),
        Form::Beginning(with) => entry.starts_with(with.as_bytes()).then_some(Key::Plain(entry)),
        Form::After(_) => None,
    });
    keys.next().map_or(Kind::Other, Kind::Credential)
}

fn entries(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|entry| !entry.is_empty())
}

/// How much a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    /// There is no such header.
    Nothing,
    /// Few and short enough to be looked at.
    WithinBounds,
    TooMuch,
}

pub(crate) fn amount_of_offers(headers: &HeaderMap) -> Amount {
    let (mut len, mut most) = (0, 0);
    for line in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        len += line.len();
        most += 1 + line.as_bytes().iter().filter(|byte| **byte == b',').count();
    }
    // Commas are quickly counted; entries, of which some may be empty, seldom need to be.
    if most == 0 {
        Amount::Nothing
    } else if len <= MAX_OFFERS_LEN
        && (most <= MAX_OFFERS || entries(headers).nth(MAX_OFFERS).is_none())
    {
        Amount::WithinBounds
    } else {
        Amount::TooMuch
    }
}

/// The subprotocol with which an accepted handshake is answered if the inner service names none.
pub(crate) enum Selection {
    /// One that the service speaks and the client offered.
    Protocol(HeaderValue),
    /// The entry that carried the credential: the client offered nothing else that may be
    /// answered, and browsers insist on an answer (xAI's clients offer only this).
    Credential,
    /// None: nothing was offered that may be answered.
    Nothing,
}

/// Selects for an accepted handshake.
///
/// `consumed` tells the subprotocol entry whose credential was accepted, if it was one.
pub(crate) fn select<'a>(
    headers: &HeaderMap,
    profile: &Profile,
    consumed: impl FnOnce() -> Option<&'a [u8]>,
) -> Selection {
    if let Some(protocol) = configured(headers, profile) {
        Selection::Protocol(protocol.clone())
    } else if consumed().is_some_and(is_token) {
        Selection::Credential
    } else {
        Selection::Nothing
    }
}

/// Selects for a handshake that is completed only to be closed.
///
/// Any offered token will do then, but the client's own credential only if there is no other.
/// `None`: the client offered something of which nothing can be
/// answered, so it would not take a completed handshake. `Some(None)`: it offered nothing.
#[cfg(feature = "close")]
pub(crate) fn select_to_refuse(
    headers: &HeaderMap,
    profile: &Profile,
) -> Option<Option<HeaderValue>> {
    match amount_of_offers(headers) {
        Amount::Nothing => return Some(None),
        Amount::WithinBounds => {}
        Amount::TooMuch => return None,
    }
    if let Some(protocol) = configured(headers, profile) {
        return Some(Some(protocol.clone()));
    }
    let tokens = || offers(headers, profile).filter(|offer| is_token(offer.entry));
    // A credential over the limit would be an answer too long for some clients to read.
    let short = |offer: &Offer<'_>| offer.entry.len() <= crate::MAX_CREDENTIAL_LEN;
    let others = || tokens().filter(|offer| !offer.is_credential());
    let offer = others()
        .find(|offer| !profile.is_metadata(offer.entry))
        .or_else(|| others().next())
        .or_else(|| tokens().find(short))?;
    let mut value = HeaderValue::from_bytes(offer.entry).ok()?;
    value.set_sensitive(offer.is_credential());
    Some(Some(value))
}

fn configured<'p>(headers: &HeaderMap, profile: &'p Profile) -> Option<&'p HeaderValue> {
    profile.protocols().iter().find(|protocol| {
        offers(headers, profile)
            .any(|offer| !offer.is_credential() && offer.entry == protocol.as_bytes())
    })
}
