//! Splitting text at a separator, many bytes in one step.

use std::iter;

use memchr::memchr;

/// The pieces of `text` between the separators: one more than there are separators.
pub(crate) fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    iter::from_fn(move || {
        let (piece, behind) = split_once(rest?, separator);
        rest = behind;
        Some(piece)
    })
}

/// What stands before the first separator, and what stands behind it if there is one.
pub(crate) fn split_once(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match memchr(separator, text).and_then(|at| text.split_at_checked(at)) {
        Some((before, behind)) => (before, behind.get(1..)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_std_does() {
        for text in ["", ",", "a", "a,", ",a", "a,b", ",,", "a,,b,", "long enough for a vector, so"]
        {
            let text = text.as_bytes();
            assert!(split(text, b',').eq(text.split(|byte| *byte == b',')), "{text:?}");
        }
        assert_eq!(split_once(b"a=b=c", b'='), (&b"a"[..], Some(&b"b=c"[..])));
        assert_eq!(split_once(b"a", b'='), (&b"a"[..], None));
    }
}
