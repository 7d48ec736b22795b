//! A credential in a header: `Authorization: Bearer KEY`, `X-API-Key: KEY` and the like.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Found, Text};
use crate::profile::{Claimed, Profile};

/// Looks at all lines of all headers of the profile; a line of another scheme is not ours. Answers
/// also how many lines are of a form for credentials, whatever is in them.
pub(super) fn find<'a>(headers: &'a HeaderMap, profile: &Profile) -> (Found<'a>, usize) {
    let (mut found, mut lines) = (Found::Nothing, 0);
    for form in profile.headers() {
        for value in headers.get_all(form.name()) {
            let Some(claimed) = form.credential_in(value) else { continue };
            lines += 1;
            found = match claimed {
                Claimed::Text(text) => found.and(Text::Borrowed(text)),
                Claimed::Malformed => Found::Malformed,
            };
        }
    }
    (found, lines)
}

/// Removes the lines that are of a form for credentials and leaves those of other schemes. Ends
/// when it has removed as many as there are.
pub(super) fn strip(headers: &mut HeaderMap, profile: &Profile, mut lines: usize) {
    for form in profile.headers() {
        if lines == 0 {
            return;
        }
        let is_credential = |line: &HeaderValue| form.credential_in(line).is_some();
        lines -= strip_lines(headers, form.name(), is_credential).min(lines);
    }
}

/// Answers how many lines it removed.
fn strip_lines(
    headers: &mut HeaderMap,
    name: &HeaderName,
    is_credential: impl Fn(&HeaderValue) -> bool,
) -> usize {
    let (mut removed, mut others) = (0, Vec::new());
    for line in headers.get_all(name) {
        if is_credential(line) {
            removed += 1;
        } else {
            others.push(line.clone());
        }
    }
    if removed > 0 {
        headers.remove(name);
        for other in others {
            headers.append(name, other);
        }
    }
    removed
}
