//! The `type` of a flat event, proved without a full parse.
//!
//! Most of what a client sends is audio: one long string in a flat object. Such an event need not
//! be built up as a value to know that it carries no settings; it is enough to be sure that every
//! parser reads the same `type`, and that nothing else in it could be one. Whatever is not plain
//! enough for that is for the full parse.

use memchr::memchr2;

/// More members than that are not plain.
const MAX_MEMBERS: usize = 8;

/// The `type` of an event that is one JSON object of at most eight members with different names
/// that all are members, none of them an object or an array, and no escape anywhere. Neither names
/// nor type are proved to be good JSON if nobody knows them.
pub(super) fn plain_type(text: &str, is_member: impl Fn(&[u8]) -> bool) -> Option<&[u8]> {
    let mut rest = token(text.as_bytes(), b'{')?;
    let mut names = [&[][..]; MAX_MEMBERS];
    let mut kind = None;
    for count in 0..MAX_MEMBERS {
        let (name, after) = string(skip_space(rest))?;
        if names.iter().take(count).any(|known| *known == name) {
            return None;
        }
        *names.get_mut(count)? = name;
        rest = skip_space(token(after, b':')?);
        if name == b"type" {
            let (value, after) = string(rest)?;
            (kind, rest) = (Some(value), after);
        } else {
            rest = scalar(rest).filter(|_| is_member(name))?;
        }
        match token(rest, b',') {
            Some(after) => rest = after,
            None => return kind.filter(|_| token(rest, b'}').map(skip_space) == Some(&[])),
        }
    }
    None
}

/// What follows the one-byte token that comes next.
fn token(bytes: &[u8], token: u8) -> Option<&[u8]> {
    let (first, rest) = skip_space(bytes).split_first()?;
    (*first == token).then_some(rest)
}

fn skip_space(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// What follows a string, a whole number of few digits, or a literal.
fn scalar(bytes: &[u8]) -> Option<&[u8]> {
    match bytes.first()? {
        b'"' => string(bytes).filter(|(string, _)| has_no_control(string)).map(|(_, rest)| rest),
        b'0'..=b'9' => {
            let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let is_plain = digits == 1 || (digits <= 15 && !bytes.starts_with(b"0"));
            // A fraction or an exponent is no token that may follow.
            bytes.get(digits..).filter(|_| is_plain)
        }
        _ => [&b"true"[..], b"false", b"null"]
            .iter()
            .find_map(|literal| bytes.strip_prefix(*literal)),
    }
}

/// A string without escapes, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = bytes.strip_prefix(b"\"")?;
    let (string, rest) = bytes.split_at_checked(memchr2(b'"', b'\\', bytes)?)?;
    Some((string, rest.strip_prefix(b"\"")?))
}

/// Whether nothing in it may not stand in a string (RFC 8259 §7). Without a branch a byte, so that
/// the compiler makes vector instructions of it.
fn has_no_control(string: &[u8]) -> bool {
    string.iter().fold(u8::MAX, |least, byte| least.min(*byte)) >= b' '
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_type_of_plain_events() {
        let long = "A".repeat(1_000);
        for (text, kind) in [
            (r#"{"type":"a"}"#, "a"),
            (" {\t\"type\" : \"a\" }\r\n", "a"),
            (r#"{"event_id":"e","type":"a","n":10,"b":true,"c":null,"d":0,"e":false}"#, "a"),
            (r#"{"type":"é"}"#, "é"),
            (&format!(r#"{{"audio":"{long}","type":"a"}}"#), "a"),
        ] {
            assert_eq!(
                plain_type(text, |name| name != b"stranger"),
                Some(kind.as_bytes()),
                "{text}"
            );
        }
    }

    #[test]
    fn leaves_everything_else_to_the_full_parse() {
        let nine: Vec<_> = (0..8).map(|n| format!(r#""{n}":1"#)).collect();
        let nine = format!(r#"{{{},"type":"a"}}"#, nine.join(","));
        let long = "A".repeat(200);
        for text in [
            "",
            "{",
            "{}",
            "[]",
            r#"{"type":"a""#,
            r#"{"type":"a"} x"#,
            r#"{"type":"a"}{"type":"b"}"#,
            r#"{"type":"a",}"#,
            r#"{,"type":"a"}"#,
            r#"{"type" "a"}"#,
            r#"{"type":"a" "b":1}"#,
            r#"{"type":1}"#,
            r#"{"type":null}"#,
            r#"{"kind":"a"}"#,
            r#"{"type":"a","type":"a"}"#,
            r#"{"type":"a","x":1,"x":1}"#,
            r#"{"\u0074ype":"a"}"#,
            r#"{"type":"\u0061"}"#,
            r#"{"type":"a","x":"\""}"#,
            r#"{"type":"a","stranger":1}"#,
            r#"{"type":"a","x":{}}"#,
            r#"{"type":"a","x":[]}"#,
            r#"{"type":"a","x":01}"#,
            r#"{"type":"a","x":-1}"#,
            r#"{"type":"a","x":1.5}"#,
            r#"{"type":"a","x":1e3}"#,
            r#"{"type":"a","x":1234567890123456}"#,
            r#"{"type":"a","x":nul}"#,
            r#"{"type":"a","x":truefalse}"#,
            r#"{'type':'a'}"#,
            "\u{feff}{\"type\":\"a\"}",
            "{\"type\":\"a\",\"x\":\"\n\"}",
            "{\"type\":\"a\",\u{a0}\"x\":1}",
            &nine,
            &format!("{{\"audio\":\"{long}\u{1f}\",\"type\":\"a\"}}"),
            &format!(r#"{{"audio":"{long}\"","type":"a"}}"#),
            &format!(r#"{{"audio":"{long}"#),
        ] {
            assert_eq!(plain_type(text, |name| name != b"stranger"), None, "{text}");
        }
    }
}
