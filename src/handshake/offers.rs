//! What a client offers as subprotocols, and which of it is answered.

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};

#[cfg(feature = "close")]
use super::is_token;
use crate::{
    profile::{Form, Profile},
    split::split,
};

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
        .flat_map(|value| split(value.as_bytes(), b','))
        .map(<[u8]>::trim_ascii)
        .filter(|entry| !entry.is_empty())
}

/// What is known of the offers after one pass over them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Offered {
    pub(crate) credentials: usize,
    pub(crate) others: usize,
    /// Which of the profile's protocols: the first of them that is offered.
    protocol: Option<usize>,
}

impl Offered {
    /// Whether no more is looked at, of offers of `len` bytes in all.
    pub(crate) const fn is_full(&self, len: usize) -> bool {
        self.credentials + self.others >= MAX_OFFERS || len > MAX_OFFERS_LEN
    }

    pub(crate) fn in_headers(headers: &HeaderMap, profile: &Profile) -> Self {
        let mut offered = Self::default();
        offers(headers, profile).for_each(|offer| offered.take(&offer, profile));
        offered
    }

    pub(crate) fn take(&mut self, offer: &Offer<'_>, profile: &Profile) {
        if offer.is_credential() {
            self.credentials += 1;
            return;
        }
        self.others += 1;
        let better = profile.protocols().iter().take(self.protocol.unwrap_or(usize::MAX));
        let place = better.map(HeaderValue::as_bytes).position(|known| known == offer.entry);
        self.protocol = place.or(self.protocol);
    }

    /// The protocol with which an accepted handshake is answered if the inner service names none.
    pub(crate) fn protocol<'p>(&self, profile: &'p Profile) -> Option<&'p HeaderValue> {
        profile.protocols().get(self.protocol?)
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
    if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Some(None);
    }
    let len: usize = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().map(HeaderValue::len).sum();
    if len > MAX_OFFERS_LEN || entries(headers).nth(MAX_OFFERS).is_some() {
        return None;
    }
    if let Some(protocol) = Offered::in_headers(headers, profile).protocol(profile) {
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
