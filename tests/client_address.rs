//! Where a client's address stands: which entry of `X-Forwarded-For`, or the connection alone.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroUsize,
};

use proptest::prelude::*;
use tower_realtime_auth::{
    ClientAddress,
    http::{HeaderValue, Request},
};

fn forwarded(nth: usize) -> ClientAddress {
    ClientAddress::forwarded_for(NonZeroUsize::new(nth).expect("not zero"))
}

/// A request with these lines of `X-Forwarded-For`.
fn forwarded_for(lines: &[&str]) -> Request<()> {
    let mut request = Request::new(());
    for line in lines {
        let line = HeaderValue::from_bytes(line.as_bytes()).expect("a line");
        request.headers_mut().append("x-forwarded-for", line);
    }
    request
}

#[test]
fn addresses_in_x_forwarded_for() {
    for (nth, lines, address) in [
        (1, &["192.0.2.1"][..], Some("192.0.2.1")),
        (1, &["\t 192.0.2.1 "], Some("192.0.2.1")),
        (1, &["192.0.2.1:4000"], Some("192.0.2.1")),
        (1, &["2001:db8::1"], Some("2001:db8::1")),
        (1, &["2001:DB8:0::1"], Some("2001:db8::1")),
        (1, &["[2001:db8::1]"], Some("2001:db8::1")),
        (1, &["[2001:db8::1]:4000"], Some("2001:db8::1")),
        (1, &["::ffff:192.0.2.1"], Some("192.0.2.1")),
        (1, &["[::ffff:192.0.2.1]:80"], Some("192.0.2.1")),
        (1, &["192.0.2.1,192.0.2.2"], Some("192.0.2.2")),
        (2, &["192.0.2.1,192.0.2.2"], Some("192.0.2.1")),
        (2, &["192.0.2.1", "192.0.2.2"], Some("192.0.2.1")),
        (2, &["192.0.2.1, 192.0.2.2", "192.0.2.3"], Some("192.0.2.2")),
        (3, &["192.0.2.1, 192.0.2.2", "192.0.2.3"], Some("192.0.2.1")),
        (4, &["192.0.2.1, 192.0.2.2", "192.0.2.3"], None),
        (usize::MAX, &["192.0.2.1"], None),
        (1, &["é, 192.0.2.1"], Some("192.0.2.1")),
        (1, &[], None),
        (1, &[""], None),
        // Whoever leaves an entry empty, or without an address, does not lend out the one before.
        (1, &["192.0.2.1,"], None),
        (1, &["192.0.2.1", ""], None),
        (2, &["192.0.2.1, "], Some("192.0.2.1")),
        (1, &["192.0.2.1, unknown"], None),
        (1, &["192.0.2.1, _hidden"], None),
        (1, &["é"], None),
        (1, &["192.0.2.1 192.0.2.2"], None),
        (1, &["192.0.2.1;192.0.2.2"], None),
        (1, &["192.0.2"], None),
        (1, &["192.0.2.256"], None),
        (1, &["192.0.2.01"], None),
        (1, &["3221225985"], None),
        (1, &["0xc0000201"], None),
        (1, &["192.0.2.1:"], None),
        (1, &["192.0.2.1:65536"], None),
        (1, &["192.0.2.1:x"], None),
        (1, &["[192.0.2.1]"], None),
        (1, &["[192.0.2.1]:80"], None),
        (1, &["[2001:db8::1"], None),
        (1, &["2001:db8::1]"], None),
        (1, &["[[2001:db8::1]]"], None),
        (1, &["fe80::1%eth0"], None),
        (1, &["\"192.0.2.1\""], None),
        (1, &["for=192.0.2.1"], None),
        (1, &["localhost"], None),
    ] {
        let address: Option<IpAddr> = address.map(|text| text.parse().expect("an address"));
        assert_eq!(forwarded(nth).of(&forwarded_for(lines)), address, "{nth} of {lines:?}");
    }
}

/// An entry, and the address in it.
fn entries() -> impl Strategy<Value = (String, Option<IpAddr>)> {
    let v4 = any::<u32>().prop_map(Ipv4Addr::from);
    // Those that are an IPv4 address in truth are in the table above.
    let v6 = (0x2000_u16.., any::<[u16; 7]>())
        .prop_map(|(first, [b, c, d, e, f, g, h])| Ipv6Addr::new(first, b, c, d, e, f, g, h));
    let written = prop_oneof![
        v4.clone().prop_map(|v4| (v4.to_string(), Some(v4.into()))),
        (v4, any::<u16>()).prop_map(|(v4, port)| (format!("{v4}:{port}"), Some(v4.into()))),
        v6.clone().prop_map(|v6| (v6.to_string(), Some(v6.into()))),
        v6.clone().prop_map(|v6| (format!("[{v6}]"), Some(v6.into()))),
        (v6, any::<u16>()).prop_map(|(v6, port)| (format!("[{v6}]:{port}"), Some(v6.into()))),
        // Nonsense, without a letter or number of an address.
        "[!#-+/;-@G-Zg-z~]{0,20}".prop_map(|text| (text, None)),
    ];
    (written, "[ \t]{0,2}", "[ \t]{0,2}")
        .prop_map(|((text, address), before, after)| (format!("{before}{text}{after}"), address))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is forwarded, in however many lines: the nth from the right of all of it.
    #[test]
    fn the_nth_entry_from_the_right(
        lines in proptest::collection::vec(proptest::collection::vec(entries(), 1..4), 0..4),
        nth in 1_usize..8,
    ) {
        let written: Vec<String> = lines
            .iter()
            .map(|line| line.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(","))
            .collect();
        let request = forwarded_for(&written.iter().map(String::as_str).collect::<Vec<_>>());
        let all: Vec<_> = lines.iter().flatten().map(|(_, address)| *address).collect();
        let expected = all.len().checked_sub(nth).and_then(|index| all[index]);
        prop_assert_eq!(forwarded(nth).of(&request), expected);
    }
}

/// Who has put an address there, in whichever spelling, decides; nobody else does.
#[test]
fn the_address_of_the_connection() {
    let connection = ClientAddress::connection(|extensions| extensions.get().copied());
    let mut request = forwarded_for(&["192.0.2.9"]);
    assert_eq!(connection.of(&request), None);
    for (told, address) in
        [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("::1", "::1")]
    {
        request.extensions_mut().insert::<IpAddr>(told.parse().expect("an address"));
        assert_eq!(connection.of(&request), address.parse().ok());
        assert_eq!(forwarded(1).of(&request), "192.0.2.9".parse().ok());
    }
}
