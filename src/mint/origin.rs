//! How browsers write an origin. What they never send would never match.

use std::net::Ipv6Addr;

/// Whether browsers write an origin like this: `scheme://host`, and `:port` where it is not the
/// scheme's own (RFC 6454 §6.2, WHATWG HTML "serialization of an origin").
pub(super) fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let of_web = matches!(scheme, "http" | "https");
    let (host, port) = match rest.rsplit_once(':') {
        // The last colon may be one of an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    is_scheme(scheme) && is_host(host, of_web) && port.is_none_or(|port| is_port(port, scheme))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'))
}

/// A name in ASCII, or an address. Browsers write those of the web in lower case, and the others,
/// such as the id of an extension, as they are.
fn is_host(text: &str, of_web: bool) -> bool {
    if of_web && text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return false;
    }
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return !address.contains('.') && address.parse::<Ipv6Addr>().is_ok();
    }
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

fn is_port(text: &str, scheme: &str) -> bool {
    let own = match scheme {
        "http" => "80",
        "https" => "443",
        _ => "",
    };
    // `u16` would take a sign.
    text != own
        && (text == "0" || text.starts_with(|first: char| matches!(first, '1'..='9')))
        && text.parse::<u16>().is_ok()
}
