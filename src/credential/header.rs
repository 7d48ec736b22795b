//! A credential in a header: `Authorization: Bearer KEY`, `X-API-Key: KEY` and the like.

use std::mem;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Found, Text};
use crate::profile::{Claimed, Profile};

/// What the headers of the profile hold, gathered while somebody goes through all lines.
#[derive(Default)]
pub(crate) struct InHeader<'a> {
    pub(super) found: Found<'a>,
    pub(super) lines: CarryingLines,
}

/// The lines that are of a form for credentials, whatever is in them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CarryingLines {
    /// How many there are at most.
    count: usize,
    /// Whether there may be lines of the same names that are not.
    are_mixed: bool,
}

impl CarryingLines {
    /// Nobody has looked.
    pub(super) const UNKNOWN: Self = Self { count: usize::MAX, are_mixed: true };
}

impl<'a> InHeader<'a> {
    /// Looks at one more line. One of another scheme is not ours.
    #[inline]
    pub(crate) fn take(&mut self, name: &HeaderName, line: &'a HeaderValue, profile: &Profile) {
        for form in profile.headers().iter().filter(|form| form.name() == name) {
            let Some(claimed) = form.credential_in(line) else {
                self.lines.are_mixed = true;
                continue;
            };
            self.lines.count += 1;
            self.found = match claimed {
                Claimed::Text(text) => mem::take(&mut self.found).and(Text::Borrowed(text)),
                Claimed::Malformed => Found::Malformed,
            };
        }
    }
}

/// Removes the lines that are of a form for credentials and leaves those of other schemes. Ends
/// when it has removed as many as there are.
pub(super) fn strip(headers: &mut HeaderMap, profile: &Profile, lines: CarryingLines) {
    let mut count = lines.count;
    for form in profile.headers() {
        if count == 0 {
            return;
        }
        let removed = if lines.are_mixed {
            let is_credential = |line: &HeaderValue| form.credential_in(line).is_some();
            strip_lines(headers, form.name(), is_credential)
        } else {
            usize::from(headers.remove(form.name()).is_some())
        };
        count = count.saturating_sub(removed);
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
