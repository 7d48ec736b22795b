//! The `type` of a flat event, proved without a full parse.
//!
//! Most of what a client sends is audio: one long string in a flat object. Such an event need not
//! be built up as a value to know that it carries no settings; it is enough to be sure that every
//! parser reads the same `type`. Whatever is not plain enough for that is for the full parse.

/// More members than that are not plain.
const MAX_MEMBERS: usize = 8;
/// How many bytes are looked at in one go.
const STRIDE: usize = 64;

/// The `type` of an event that is one JSON object of at most eight members with different names,
/// none of them an object or an array, and no escape anywhere.
pub(super) fn plain_type(text: &str) -> Option<&str> {
    let mut rest = token(text, b'{')?;
    let mut names = [""; MAX_MEMBERS];
    let mut kind = None;
    for count in 0..MAX_MEMBERS {
        let (name, after) = string(rest)?;
        if names.iter().take(count).any(|known| *known == name) {
            return None;
        }
        *names.get_mut(count)? = name;
        rest = skip_space(token(after, b':')?);
        if name == "type" {
            let (value, after) = string(rest)?;
            (kind, rest) = (Some(value), after);
        } else {
            rest = scalar(rest)?;
        }
        match token(rest, b',') {
            Some(after) => rest = after,
            None => return skip_space(token(rest, b'}')?).is_empty().then_some(kind).flatten(),
        }
    }
    None
}

/// What follows the one-byte token that comes next.
fn token(text: &str, token: u8) -> Option<&str> {
    skip_space(text).strip_prefix(char::from(token))
}

fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

/// What follows a string, a whole number of few digits, or a literal.
fn scalar(text: &str) -> Option<&str> {
    match text.as_bytes().first()? {
        b'"' => string(text).map(|(_, rest)| rest),
        b'0'..=b'9' => {
            let rest = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
            let is_plain = match text.len() - rest.len() {
                1 => true,
                2..=15 => !text.starts_with('0'),
                _ => false,
            };
            // A fraction or an exponent is no token that may follow.
            is_plain.then_some(rest)
        }
        _ => ["true", "false", "null"].iter().find_map(|literal| text.strip_prefix(literal)),
    }
}

/// A string without escapes, and what follows it.
fn string(text: &str) -> Option<(&str, &str)> {
    let text = token(text, b'"')?;
    let bytes = text.as_bytes();
    let plain = bytes.chunks_exact(STRIDE).take_while(|stride| is_plain(stride)).count() * STRIDE;
    let end = plain + bytes.get(plain..)?.iter().position(|byte| is_special(*byte))?;
    let (string, rest) = text.split_at_checked(end)?;
    Some((string, rest.strip_prefix('"')?))
}

/// Whether a whole stride belongs to the string. Without a branch a byte, so that the compiler
/// makes vector instructions of it.
fn is_plain(stride: &[u8]) -> bool {
    !stride.iter().fold(false, |special, byte| special | is_special(*byte))
}

/// What ends a string, begins an escape, or may not stand in a string (RFC 8259 §7).
const fn is_special(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || byte < 0x20
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
            assert_eq!(plain_type(text), Some(kind), "{text}");
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
            assert_eq!(plain_type(text), None, "{text}");
        }
    }
}
