//! Credentials: where a request may carry one, which of them decides, and taking them out.
//!
//! 1. Places are looked at in a fixed order: header, query, subprotocol.
//! 2. Two different credentials in one place are malformed; equal repeats are one; an empty one
//!    and the word `null` are none.
//! 3. What is too long or holds an illegal byte is malformed and is neither hashed nor looked up.
//! 4. Which place decides if several hold a credential is the [`Conflicts`] policy.
//! 5. An accepted request loses the credentials of all places, also those that did not decide.

mod header;
mod query;
mod subprotocol;

use std::fmt;

use http::{HeaderMap, HeaderValue, Request};
use zeroize::Zeroizing;

use self::header::CarryingLines;
pub(crate) use self::{
    header::InHeader,
    query::{Named, find_parameter},
};
use crate::{
    KeyStore, Keys, MAX_CREDENTIAL_LEN, RejectionKind,
    handshake::Offered,
    key::{Digests, is_key_byte},
    look::Look,
    profile::Profile,
};

/// The place in a request where a credential stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialSource {
    /// A header, such as `Authorization`.
    Header,
    /// A query parameter.
    Query,
    /// An entry of `Sec-WebSocket-Protocol` in a WebSocket handshake.
    Subprotocol,
}

impl CredentialSource {
    /// `header`, `query` or `subprotocol`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Query => "query",
            Self::Subprotocol => "subprotocol",
        }
    }
}

impl fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which credential decides if a request carries several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Conflicts {
    /// The first place that holds one, in order. A bad one there is refused even if a later place
    /// holds a good one.
    #[default]
    FirstPresent,
    /// The first place that holds a good one, for instance because a proxy adds an
    /// `Authorization` of its own. If none is good, the first one's refusal stands.
    TryNext,
    /// None: different credentials in different places are refused (RFC 6750 §2).
    RejectConflict,
}

/// What a place holds.
#[derive(Default)]
enum Found<'a> {
    #[default]
    Nothing,
    /// A form for a credential without one in it.
    Empty,
    Malformed,
    One(Text<'a>),
}

impl<'a> Found<'a> {
    /// Takes in one more text from the same place.
    fn and(self, text: Text<'a>) -> Self {
        match self {
            Self::Malformed => Self::Malformed,
            kept if is_no_key(text.bytes()) => kept.or_empty(),
            _ if !is_key(text.bytes()) => Self::Malformed,
            Self::Nothing | Self::Empty => Self::One(text),
            Self::One(first) if first.bytes() == text.bytes() => Self::One(first),
            Self::One(_) => Self::Malformed,
        }
    }

    /// The same, or an empty form where there was nothing.
    fn or_empty(self) -> Self {
        match self {
            Self::Nothing => Self::Empty,
            found => found,
        }
    }

    /// Whether there is a credential, good or malformed.
    const fn is_presented(&self) -> bool {
        matches!(self, Self::Malformed | Self::One(_))
    }
}

/// Whether a text stands for the absence of a key. `null` is what JavaScript makes of one that it
/// does not have: openai-realtime-api-beta offers it in relay mode.
fn is_no_key(text: &[u8]) -> bool {
    text.is_empty() || text == b"null"
}

fn is_key(text: &[u8]) -> bool {
    // Without an early end, so that many bytes are looked at in one step.
    text.len() <= MAX_CREDENTIAL_LEN
        && text.iter().fold(true, |legal, byte| legal & is_key_byte(*byte))
}

/// The text of a credential: part of the request, or decoded from it and wiped when dropped.
enum Text<'a> {
    Borrowed(&'a [u8]),
    Decoded(Zeroizing<Vec<u8>>),
}

impl Text<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Decoded(bytes) => bytes,
        }
    }
}

/// A credential that may decide: where it stood, and what to look up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) source: CredentialSource,
    /// Why there is nothing to look up, if no key can have this text.
    pub(crate) digests: Result<Digests, RejectionKind>,
}

/// Why no credential of a request may decide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unusable {
    pub(crate) kind: RejectionKind,
    pub(crate) source: Option<CredentialSource>,
    /// How many places held a credential, good or malformed.
    pub(crate) presented: u8,
}

/// The places of a request that may have to be stripped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    header: CarryingLines,
    query: bool,
    /// `None`: nobody has looked there.
    offers: Option<Offered>,
}

impl Places {
    /// For a request at which nobody has looked.
    pub(crate) const ALL: Self = Self { header: CarryingLines::UNKNOWN, query: true, offers: None };

    /// What is offered in `headers`.
    pub(crate) fn offered(&self, headers: &HeaderMap, profile: &Profile) -> Offered {
        self.offers.unwrap_or_else(|| Offered::in_headers(headers, profile))
    }
}

/// The credentials of a request that may decide, in the order in which they are tried.
#[derive(Debug)]
pub(crate) struct Candidates {
    first: Candidate,
    /// Seldom any, so that they lie elsewhere and this is moved quickly.
    others: Vec<Candidate>,
    /// How many places held a credential, good or malformed.
    pub(crate) presented: u8,
    /// Where there was a form for a credential, whatever was in it.
    pub(crate) to_strip: Places,
}

impl Candidates {
    /// Finds the credentials of `request` and hashes those that may decide.
    pub(crate) fn of<B, S: KeyStore>(
        request: &Request<B>,
        look: Look<'_>,
        profile: &Profile,
        conflicts: Conflicts,
        keys: &Keys<S>,
    ) -> Result<Self, Unusable> {
        use CredentialSource::{Header, Query, Subprotocol};

        let Look { handshake, offers_len, in_header } = look;
        let (in_offers, offers) = match offers_len {
            None => (Found::Nothing, Some(Offered::default())),
            Some(len) if handshake.is_websocket() => {
                subprotocol::find(request.headers(), len, profile)
            }
            Some(_) => (Found::Nothing, None),
        };
        let in_query = query::find(request.uri(), profile);
        let to_strip =
            Places { header: in_header.lines, query: !matches!(in_query, Found::Nothing), offers };
        let places = [(Header, in_header.found), (Query, in_query), (Subprotocol, in_offers)];
        let presented = places.iter().filter(|(_, found)| found.is_presented());
        let presented = presented.count().try_into().unwrap_or(u8::MAX);
        let unusable = |kind, source| Unusable { kind, source, presented };
        if conflicts == Conflicts::RejectConflict
            && let Some(source) = first_of_differing(&places)
        {
            return Err(unusable(RejectionKind::Conflict, Some(source)));
        }
        let mut candidates = places.iter().filter_map(|(source, found)| {
            let digests = match found {
                Found::Nothing | Found::Empty => return None,
                Found::Malformed => Err(RejectionKind::Malformed),
                Found::One(text) => keys.digests(text.bytes()),
            };
            Some(Candidate { source: *source, digests })
        });
        let first = candidates.next().ok_or(unusable(RejectionKind::Missing, None))?;
        let tried = if conflicts == Conflicts::TryNext { usize::MAX } else { 0 };
        let others = candidates.take(tried).collect();
        Ok(Self { first, others, presented, to_strip })
    }

    /// The candidate that is tried after `passed_over` others.
    pub(crate) fn get(&self, passed_over: usize) -> Option<&Candidate> {
        match passed_over.checked_sub(1) {
            None => Some(&self.first),
            Some(index) => self.others.get(index),
        }
    }
}

/// The first place that holds a credential, if another one holds a different one.
fn first_of_differing(places: &[(CredentialSource, Found<'_>)]) -> Option<CredentialSource> {
    let mut texts = places.iter().filter_map(|(source, found)| match found {
        Found::Nothing | Found::Empty => None,
        Found::Malformed => Some((source, None)),
        Found::One(text) => Some((source, Some(text.bytes()))),
    });
    let (source, first) = texts.next()?;
    texts.any(|(_, text)| text != first).then_some(*source)
}

/// Takes every credential out of the request: of all places, good or not.
///
/// With `echo`, answers the subprotocol entry that carried the credential, if it may be answered.
pub(crate) fn strip<B>(
    request: &mut Request<B>,
    profile: &Profile,
    places: &Places,
    offered: Offered,
    echo: bool,
) -> Option<HeaderValue> {
    header::strip(request.headers_mut(), profile, places.header);
    if places.query {
        query::strip(request.uri_mut(), profile);
    }
    subprotocol::strip(request.headers_mut(), profile, offered, echo)
}
