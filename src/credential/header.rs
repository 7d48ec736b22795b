//! A credential in a header: `Authorization: Bearer KEY`, `X-API-Key: KEY` and the like.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Found, Text};
use crate::profile::{Claimed, Profile};

/// Looks at all lines of all headers of the profile; a line of another scheme is not ours.
pub(super) fn find<'a>(headers: &'a HeaderMap, profile: &Profile) -> Found<'a> {
    let mut found = Found::Nothing;
    for form in profile.headers() {
        for value in headers.get_all(form.name()) {
            found = match form.credential_in(value) {
                Some(Claimed::Text(text)) => found.and(Text::Borrowed(text)),
                Some(Claimed::Malformed) => Found::Malformed,
                None => found,
            };
        }
    }
    found
}

/// Removes the lines that are of a form for credentials and leaves those of other schemes.
pub(super) fn strip(headers: &mut HeaderMap, profile: &Profile) {
    for form in profile.headers() {
        strip_lines(headers, form.name(), |line| form.credential_in(line).is_some());
    }
}

fn strip_lines(
    headers: &mut HeaderMap,
    name: &HeaderName,
    is_credential: impl Fn(&HeaderValue) -> bool,
) {
    let (mut some, mut all) = (false, true);
    for line in headers.get_all(name) {
        let is_credential = is_credential(line);
        some |= is_credential;
        all &= is_credential;
    }
    if !some {
        return;
    }
    let is_other = |line: &&HeaderValue| !all && !is_credential(line);
    let others: Vec<_> = headers.get_all(name).iter().filter(is_other).cloned().collect();
    headers.remove(name);
    for other in others {
        headers.append(name, other);
    }
}
