//! `Authorization: Bearer KEY` (RFC 6750 §2.1; RFC 9110 §11.4).

use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, Entry},
};

use super::{Found, Text};

/// Looks at all lines; a scheme other than Bearer is not ours.
pub(super) fn find(headers: &HeaderMap) -> Found<'_> {
    let values = headers.get_all(AUTHORIZATION).iter();
    values.filter_map(bearer).fold(Found::Nothing, |found, credential| match credential {
        Ok(text) => found.and(Text::Borrowed(text)),
        Err(Malformed) => Found::Malformed,
    })
}

/// A Bearer line that names no key in the way it should.
struct Malformed;

/// What stands behind the scheme if that is Bearer, in whatever case.
fn bearer(value: &HeaderValue) -> Option<Result<&[u8], Malformed>> {
    let (scheme, rest) = value.as_bytes().split_at_checked(b"bearer".len())?;
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return None;
    }
    match rest.first() {
        None => Some(Ok(rest)),
        Some(b' ') => {
            let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
            Some(Ok(rest.get(blanks..).unwrap_or_default().trim_ascii_end()))
        }
        // RFC 9110 §11.4 puts spaces there; a tab is a mistake, not another scheme.
        Some(b'\t') => Some(Err(Malformed)),
        Some(_) => None,
    }
}

/// Removes the Bearer lines and leaves those of other schemes.
pub(super) fn strip(headers: &mut HeaderMap) {
    let Entry::Occupied(entry) = headers.entry(AUTHORIZATION) else { return };
    if entry.iter().all(|value| bearer(value).is_some()) {
        entry.remove_entry_mult();
        return;
    }
    let others: Vec<_> = entry.iter().filter(|value| bearer(value).is_none()).cloned().collect();
    entry.remove_entry_mult();
    for other in others {
        headers.append(AUTHORIZATION, other);
    }
}
