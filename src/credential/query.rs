//! `?api_key=KEY`: finding it, and taking it out without touching the rest.

use std::borrow::Cow;

use bytes::Bytes;
use http::{Uri, uri::PathAndQuery};
use memchr::{memchr, memchr2};
use zeroize::Zeroizing;

use super::{Found, Text};
use crate::{
    MAX_CREDENTIAL_LEN,
    profile::Profile,
    split::{split, split_once},
};

/// Looks at every parameter whose decoded name is one of the profile's.
pub(super) fn find<'a>(uri: &'a Uri, profile: &Profile) -> Found<'a> {
    let credentials = pairs(uri.query().unwrap_or_default()).filter(|pair| pair.is_key(profile));
    credentials.fold(Found::Nothing, |found, pair| match decode_key(pair.value) {
        Some(Cow::Borrowed(text)) => found.and(Text::Borrowed(text)),
        Some(Cow::Owned(text)) => found.and(Text::Decoded(Zeroizing::new(text))),
        None => Found::Malformed,
    })
}

fn decode_key(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    // Every byte escaped: whatever is longer is too long for a key, and is not decoded.
    if raw.len() > 3 * MAX_CREDENTIAL_LEN {
        return None;
    }
    decode(raw, Plus::Kept)
}

/// Removes every credential and keeps the other parameters byte for byte.
pub(super) fn strip(uri: &mut Uri, profile: &Profile) {
    let Some(query) = uri.query() else { return };
    let path = uri.path();
    let mut kept = Vec::with_capacity(path.len() + 1 + query.len());
    kept.extend_from_slice(path.as_bytes());
    let mut separator = b'?';
    for pair in pairs(query).filter(|pair| !pair.is_key(profile)) {
        kept.push(separator);
        kept.extend_from_slice(pair.text);
        separator = b'&';
    }
    if kept.len() == path.len() + 1 + query.len() {
        return;
    }
    let mut parts = std::mem::take(uri).into_parts();
    // What is left of a valid URI is one, with `/` for an empty path.
    parts.path_and_query = PathAndQuery::from_maybe_shared(Bytes::from(kept)).ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// What a query says under one name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    Nothing,
    One(Cow<'a, [u8]>),
    /// More than one value, or one that cannot be decoded.
    Ambiguous,
}

/// The parameter `name`, decoded as forms are (`+` is a space), as inner services decode it.
pub(crate) fn find_parameter<'a>(uri: &'a Uri, name: &[u8]) -> Named<'a> {
    let mut values = pairs(uri.query().unwrap_or_default())
        .filter(|pair| pair.is_named(|decoded| decoded == name))
        .map(|pair| decode(pair.value, Plus::IsSpace));
    match (values.next(), values.next()) {
        (None, _) => Named::Nothing,
        (Some(Some(value)), None) => Named::One(value),
        (Some(_), _) => Named::Ambiguous,
    }
}

struct Pair<'a> {
    text: &'a [u8],
    name: &'a [u8],
    value: &'a [u8],
}

impl Pair<'_> {
    fn is_key(&self, profile: &Profile) -> bool {
        self.is_named(|name| profile.is_query_name(name))
    }

    fn is_named(&self, is_it: impl Fn(&[u8]) -> bool) -> bool {
        decode(self.name, Plus::IsSpace).is_some_and(|name| is_it(&name))
    }
}

fn pairs(query: &str) -> impl Iterator<Item = Pair<'_>> {
    // An empty query has no pair; one that is empty between separators is kept as it is.
    let texts = (!query.is_empty()).then(|| split(query.as_bytes(), b'&'));
    texts.into_iter().flatten().map(|text| {
        let (name, value) = split_once(text, b'=');
        Pair { text, name, value: value.unwrap_or_default() }
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    /// A key may hold a plus and never a space, so `+` and `%2B` are the same there.
    Kept,
    IsSpace,
}

/// Decodes percent escapes (RFC 3986 §2.1). `None` if one is broken.
fn decode(raw: &[u8], plus: Plus) -> Option<Cow<'_, [u8]>> {
    let replaced = match plus {
        Plus::Kept => memchr(b'%', raw),
        Plus::IsSpace => memchr2(b'%', b'+', raw),
    };
    if replaced.is_none() {
        return Some(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.iter().copied();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b'+' if plus == Plus::IsSpace => b' ',
            other => other,
        });
    }
    Some(Cow::Owned(decoded))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}
