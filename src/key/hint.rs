//! As much of a key's text as may be kept, so that people can tell their keys apart.

use std::fmt;

/// Shorter keys show nothing: four characters would be too much of them.
const MIN_LEN: usize = 24;
const MAX_PREFIX_LEN: usize = 13;
const LAST_LEN: usize = 4;

/// The prefix and the last four characters of a key, as in `sk_live_…a1B2`.
///
/// Of a key that was issued here, the four are of its checksum. A key of less than 24 characters,
/// or one that was taken in by its digest, has no hint.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyHint {
    /// One behind the other.
    text: Box<str>,
    prefix_len: usize,
}

impl KeyHint {
    /// A hint read back from a store.
    #[must_use]
    pub fn new(prefix: impl AsRef<str>, last_four: impl AsRef<str>) -> Self {
        let (prefix, last_four) = (prefix.as_ref(), last_four.as_ref());
        Self { text: [prefix, last_four].concat().into(), prefix_len: prefix.len() }
    }

    /// The hint of a key.
    pub(crate) fn of(key: &str) -> Option<Self> {
        let last_four = key.get(key.len().checked_sub(LAST_LEN)?..)?;
        (key.len() >= MIN_LEN).then(|| Self::new(prefix(key), last_four))
    }

    /// What keys of one make have in common, `sk_live_` for instance; empty if that cannot be told
    /// from the secret.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.text.get(..self.prefix_len).unwrap_or_default()
    }

    /// The last four characters.
    #[must_use]
    pub fn last_four(&self) -> &str {
        self.text.get(self.prefix_len..).unwrap_or_default()
    }
}

/// The leading words of lower-case letters, each with the `_` or `-` behind it.
fn prefix(key: &str) -> &str {
    let is_word = |word: &&str| {
        let letters = word.strip_suffix(['_', '-']).unwrap_or_default();
        !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    let words = key.split_inclusive(['_', '-']).take_while(is_word);
    let lens = words.scan(0, |len, word| {
        *len += word.len();
        Some(*len)
    });
    let len = lens.take_while(|len| *len <= MAX_PREFIX_LEN).last().unwrap_or(0);
    key.get(..len).unwrap_or_default()
}

impl fmt::Display for KeyHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…{}", self.prefix(), self.last_four())
    }
}

impl fmt::Debug for KeyHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_shows_no_more_than_it_says() {
        for (key, hint) in [
            ("sk_live_0123456789abcdefghijklmnopqrstuvwABCDEF", Some("sk_live_…CDEF")),
            ("ek_0123456789abcdefghijklmnopqrstuvwABCDEF", Some("ek_…CDEF")),
            ("swaram_ek_0123456789abcdefghijklmnop", Some("swaram_ek_…mnop")),
            ("sk-proj-0123456789abcdefghij", Some("sk-proj-…ghij")),
            ("0123456789abcdefghijklmnop", Some("…mnop")),
            ("abcdefghijklmnopqrstuvwxyz", Some("…wxyz")),
            ("averyveryverylongword_0123456789", Some("…6789")),
            ("Az09-secret-secret-secret-0123", Some("…0123")),
            ("_0123456789abcdefghijklmn", Some("…klmn")),
            ("sk__0123456789abcdefghijk", Some("sk_…hijk")),
            ("sk_test_0123456789abcde", None),
            ("", None),
        ] {
            let shown = KeyHint::of(key).map(|hint| hint.to_string());
            assert_eq!(shown.as_deref(), hint, "{key}");
        }
    }
}
