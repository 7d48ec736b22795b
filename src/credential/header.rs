//! A credential in a header: `Authorization: Bearer KEY`, `X-API-Key: KEY` and the like.

use std::mem;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Found, Text};
use crate::profile::{Claimed, Profile};

/// What the headers of the profile hold, gathered while somebody goes through all lines.
#[derive(Default)]
pub(crate) struct InHeader<'a> {
    pub(super) found: Found<'a>,
    /// How many lines are of a form for credentials, whatever is in them.
    pub(super) lines: usize,
}

impl<'a> InHeader<'a> {
    /// Looks at one more line. One of another scheme is not ours.
    #[inline]
    pub(crate) fn take(&mut self, name: &HeaderName, line: &'a HeaderValue, profile: &Profile) {
        for form in profile.headers().iter().filter(|form| form.name() == name) {
            let Some(claimed) = form.credential_in(line) else { continue };
            self.lines += 1;
            self.found = match claimed {
                Claimed::Text(text) => mem::take(&mut self.found).and(Text::Borrowed(text)),
                Claimed::Malformed => Found::Malformed,
            };
        }
    }
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
