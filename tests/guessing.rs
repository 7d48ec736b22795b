//! Guessing: wrong keys are limited by where they come from, and valid ones never.

mod support;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroUsize,
    thread,
    time::Duration,
};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use support::{
    Body, Inner, PLACES, Raw, handshake_with, plain_with, serve, upgrade_with, upgraded,
};
use tower::{Layer, ServiceExt as _};
use tower_realtime_auth::{
    ClientAddress, ConfigError, Conflicts, CredentialSource, FailureLimit, Grants, Keys,
    ManualClock, MemoryStore, NewKey, Outcome, Profile, RealtimeAuth, RealtimeAuthLayer,
    RefusalMode, Rejection, RejectionKind, UnixMillis,
    http::{HeaderName, HeaderValue, Request, Response},
};

/// The first millisecond of a minute.
const NOON: UnixMillis = UnixMillis::new(1_782_907_200_000);
const MINUTE: Duration = Duration::from_secs(60);
const WRONG: &str = "sk_live_wrong";
const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// Where a request of these tests comes from, as a server would note it.
#[derive(Clone, Copy)]
struct Peer(IpAddr);

fn connection() -> ClientAddress {
    ClientAddress::connection(|extensions| extensions.get().map(|Peer(address)| *address))
}

fn forwarded(nth: usize) -> ClientAddress {
    ClientAddress::forwarded_for(NonZeroUsize::new(nth).expect("not zero"))
}

fn by_connection(per_minute: u32) -> FailureLimit {
    FailureLimit::new(per_minute).with_address(connection())
}

/// A guarded service, its clock, and its one key.
struct Guarded {
    layer: RealtimeAuthLayer<MemoryStore>,
    service: RealtimeAuth<Inner, MemoryStore>,
    clock: ManualClock,
    keys: Keys<MemoryStore>,
    key: String,
}

fn guarded(limit: &FailureLimit) -> Guarded {
    guarded_as(limit, |layer| layer)
}

fn guarded_as(
    limit: &FailureLimit,
    configure: impl FnOnce(RealtimeAuthLayer<MemoryStore>) -> RealtimeAuthLayer<MemoryStore>,
) -> Guarded {
    let clock = ManualClock::new(NOON);
    let keys = Keys::new(MemoryStore::new()).with_clock(clock.clone());
    let issued = keys.issue(NewKey::secret("acme")).now_or_never().expect("at once");
    let layer = RealtimeAuthLayer::new(keys.clone()).with_failure_limit(limit.clone());
    let layer = configure(layer.expect("an address is said"));
    let service = layer.layer(Inner::default());
    Guarded { layer, service, clock, keys, key: issued.expect("a key").key().expose().to_owned() }
}

impl Guarded {
    fn ask(&self, request: Request<()>) -> Response<Body> {
        let answer = self.service.clone().oneshot(request).now_or_never();
        let Ok(response) = answer.expect("an answer at once");
        response
    }

    /// The status for `key` from there.
    fn status(&self, key: &str, peer: IpAddr) -> u16 {
        self.ask(from(peer, plain_with(CredentialSource::Header, key))).status().as_u16()
    }

    /// The status for a wrong key with these lines of `X-Forwarded-For`.
    fn status_of_forwarded(&self, lines: &[&str]) -> u16 {
        self.ask(forwarded_for(lines)).status().as_u16()
    }
}

fn from(peer: IpAddr, mut request: Request<()>) -> Request<()> {
    request.extensions_mut().insert(Peer(peer));
    request
}

/// A wrong key, forwarded with these lines.
fn forwarded_for(lines: &[&str]) -> Request<()> {
    let mut request = plain_with(CredentialSource::Header, WRONG);
    for line in lines {
        let line = HeaderValue::from_bytes(line.as_bytes()).expect("a line");
        request.headers_mut().append("x-forwarded-for", line);
    }
    request
}

fn kind(response: &Response<Body>) -> Option<RejectionKind> {
    response.extensions().get::<Rejection>().map(Rejection::kind)
}

fn v6(text: &str) -> IpAddr {
    text.parse::<Ipv6Addr>().expect("an address").into()
}

/// T28, over two minutes.
#[test]
fn ten_thousand_wrong_keys_are_limited_and_every_valid_one_passes() {
    const TRIES: usize = 10_000;
    const LIMIT: u32 = 20;
    let guarded = guarded(&by_connection(LIMIT));
    for _ in 0..2 {
        let mut statuses = Vec::new();
        for number in 0..TRIES {
            statuses.push(guarded.status(&format!("sk_live_{number}"), A));
            assert_eq!(
                guarded.status(&guarded.key, A),
                200,
                "the owner, beside the one who guesses"
            );
            assert_eq!(guarded.status(&guarded.key, B), 200);
        }
        let (first, rest) = statuses.split_at(LIMIT as usize);
        assert!(first.iter().all(|status| *status == 401), "{first:?}");
        assert!(rest.iter().all(|status| *status == 429));
        assert_eq!(guarded.status(WRONG, B), 401, "another source is none of this one's business");
        guarded.clock.advance(MINUTE);
    }
}

/// The same over real sockets, where both come from one address.
#[tokio::test]
async fn over_sockets_too() {
    const LIMIT: u32 = 5;
    let limit = FailureLimit::new(LIMIT).with_address(forwarded(1));
    let guarded = guarded(&limit);
    let address = serve(guarded.layer.layer(Inner::default())).await;
    let ask = async |key: &str, peer: &str| {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\nX-Forwarded-For: {peer}\r\n\r\n"
        );
        Raw::send(address, request.as_bytes()).await.1.status
    };
    for tried in 0..50 {
        assert_eq!(ask(WRONG, "192.0.2.1").await, if tried < LIMIT { 401 } else { 429 });
        assert_eq!(ask(&guarded.key, "192.0.2.1").await, 200);
        assert_eq!(ask(&guarded.key, "192.0.2.2").await, 200);
    }
}

/// A refusal says when to come back, in the profile's words, and whoever listens hears of it.
#[tokio::test]
async fn a_limited_source_is_told_when_to_come_back() {
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let guarded = guarded_as(&by_connection(1), |layer| {
        let heard = heard.clone();
        layer.on_decision(move |decision| {
            if let Outcome::Refused(rejection) = decision.outcome() {
                heard.lock().unwrap().push((rejection.kind(), rejection.source()));
            }
        })
    });
    guarded.clock.advance(Duration::from_millis(58_500));
    assert_eq!(guarded.status(WRONG, A), 401);
    let response = guarded.ask(from(A, plain_with(CredentialSource::Header, WRONG)));
    assert_eq!(response.status(), 429);
    assert_eq!(kind(&response), Some(RejectionKind::TooManyFailures));
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(!response.headers().contains_key("www-authenticate"));
    let rejection = response.extensions().get::<Rejection>().expect("why");
    assert_eq!(rejection.retry_after(), Some(Duration::from_secs(2)));
    let body = support::json(response).await;
    assert_eq!(body["error"]["type"], "rate_limit_error");
    assert_eq!(body["error"]["code"], "too_many_failures");
    let source = Some(CredentialSource::Header);
    let kinds = [RejectionKind::Unknown, RejectionKind::TooManyFailures];
    assert_eq!(*heard.lock().unwrap(), kinds.map(|kind| (kind, source)));
}

#[test]
fn the_windows_are_minutes_and_a_clock_that_goes_back_opens_none_again() {
    let guarded = guarded(&by_connection(1));
    let (noon, minute) = (NOON.get(), 60_000);
    for (at, status, wait) in [
        (noon, 401, None),
        (noon, 429, Some("60")),
        (noon + 1, 429, Some("60")),
        (noon + minute - 1_000, 429, Some("1")),
        (noon + minute - 1, 429, Some("1")),
        (noon + minute, 401, None),
        (noon + minute, 429, Some("60")),
        (noon + minute - 1, 429, Some("60")),
        (0, 429, Some("60")),
        (noon + 3 * minute - 1, 401, None),
        (noon + 3 * minute - 1, 429, Some("1")),
    ] {
        guarded.clock.set(UnixMillis::new(at));
        let response = guarded.ask(from(A, plain_with(CredentialSource::Header, WRONG)));
        let told = response.headers().get("retry-after").map(|wait| wait.to_str().expect("text"));
        assert_eq!(
            (response.status().as_u16(), told),
            (status, wait),
            "{}",
            at as i64 - noon as i64
        );
    }
}

/// What two threads see that read the clock and take turns; here, two services.
#[test]
fn services_that_share_a_limit_count_together() {
    let limit = by_connection(2);
    let [early, late] = [guarded(&limit), guarded(&limit.clone())];
    late.clock.advance(MINUTE);
    assert_eq!(early.status(WRONG, A), 401);
    assert_eq!(late.status(WRONG, A), 401);
    assert_eq!(early.status(WRONG, A), 401, "in the later minute");
    assert_eq!(late.status(WRONG, A), 429);
    assert_eq!(early.status(WRONG, A), 429);
    assert!(!limit.is_empty());
    assert_eq!(limit.len(), 1);
    let apart = guarded(&limit.with_max_sources(NonZeroUsize::MIN));
    assert_eq!(apart.status(WRONG, A), 401);
}

#[test]
fn of_eight_threads_as_many_are_told_401_as_may_be() {
    const LIMIT: usize = 100;
    let guarded = guarded(&by_connection(LIMIT as u32));
    for _ in 0..3 {
        let ask = || (0..LIMIT).map(|_| guarded.status(WRONG, A)).collect::<Vec<_>>();
        let statuses: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("an end")).collect()
        });
        let told = |status| statuses.iter().filter(|other| **other == status).count();
        assert_eq!((told(401), told(429)), (LIMIT, 7 * LIMIT));
        guarded.clock.advance(MINUTE);
    }
}

/// Every way to be no key, in every place, fills one bucket: there is no other spelling to turn to.
#[test]
fn variants_of_a_wrong_key_share_a_bucket() {
    let guarded = guarded(&by_connection(100));
    let key = guarded.key.clone();
    let mistyped =
        format!("{}{}", &key[..key.len() - 1], if key.ends_with('0') { '1' } else { '0' });
    let variants = [
        key.to_uppercase(),
        key.to_lowercase(),
        mistyped,
        key.replace("live", "test"),
        key[1..].to_owned(),
        format!("{key}0"),
        format!("{key},{key}"),
        "é".to_owned(),
        "x".repeat(5_000),
        "sk_live_".to_owned(),
        "eyJhbGciOiJFZERTQSJ9.e30.AAAA".to_owned(),
    ];
    let mut presented = 0;
    let mut ask = |request: Request<()>| {
        presented += 1;
        let refused = kind(&guarded.ask(from(A, request))).expect("refused");
        let is_limited = refused == RejectionKind::TooManyFailures;
        assert_eq!(is_limited, presented > 100, "{presented}: {refused:?}");
    };
    for _ in 0..10 {
        for variant in &variants {
            let mut request = Request::new(());
            let value = HeaderValue::from_bytes(variant.as_bytes()).expect("a value");
            request.headers_mut().insert("x-api-key", value);
            ask(request);
        }
        for place in PLACES {
            ask(upgrade_with(place, &key.to_uppercase()));
        }
    }
    assert_eq!(guarded.status(&key, A), 200);
}

/// What was a key once is no guess, whatever it is refused for; and nothing presented is nothing.
#[test]
fn who_has_guessed_nothing_is_not_counted() {
    let guarded = guarded(&by_connection(0));
    let keys = &guarded.keys;
    let issue = |new: NewKey| {
        let issued = keys.issue(new).now_or_never().expect("at once").expect("a key");
        (issued.record().id().clone(), issued.key().expose().to_owned())
    };
    let with = |grants: Grants| issue(NewKey::secret("acme").with_grants(grants)).1;
    let (_, expired) = issue(NewKey::secret("acme").with_lifetime(Duration::from_secs(1)));
    let (revoked_id, revoked) = issue(NewKey::secret("acme"));
    keys.revoke(&revoked_id).now_or_never().expect("at once").expect("revoked");
    guarded.clock.advance(Duration::from_secs(2));
    let elsewhere = with(Grants::default().with_origins(["https://app.example"]));
    let other_model = with(Grants::default().with_models(["other"]));
    let spent = with(Grants::default().with_uses(0));
    let header = |key: &str| plain_with(CredentialSource::Header, key);
    for _ in 0..3 {
        for (request, why) in [
            (header(&expired), RejectionKind::Expired),
            (header(&revoked), RejectionKind::Revoked),
            (header(&elsewhere), RejectionKind::Origin),
            (
                Request::get("/?model=this").header("x-api-key", &other_model).body(()).unwrap(),
                RejectionKind::Model,
            ),
            (upgrade_with(CredentialSource::Header, &spent), RejectionKind::Spent),
            (Request::new(()), RejectionKind::Missing),
            (upgraded(Request::new(())), RejectionKind::Missing),
        ] {
            assert_eq!(kind(&guarded.ask(from(A, request))), Some(why));
        }
        assert_eq!(guarded.status(&guarded.key, A), 200);
    }
    // One more, and it would have been too many all along.
    assert_eq!(guarded.status(WRONG, A), 429);
}

/// A stale token in the first place is no cover for guesses in the next; and one request is one
/// failure, however many it presents.
#[test]
fn several_credentials_are_one_failure() {
    let limit = by_connection(2);
    let guarded = guarded_as(&limit, |layer| layer.with_conflicts(Conflicts::TryNext));
    let new = NewKey::secret("acme").with_lifetime(Duration::from_secs(1));
    let stale = guarded.keys.issue(new).now_or_never().expect("at once").expect("a key");
    guarded.clock.advance(Duration::from_secs(2));
    let both = |first: &str, second: &str| {
        let request = Request::get(format!("/?api_key={second}"));
        let request = request.header("authorization", format!("Bearer {first}"));
        kind(&guarded.ask(from(A, request.body(()).unwrap())))
    };
    let stale = stale.key().expose();
    assert_eq!(both(WRONG, "another"), Some(RejectionKind::Unknown));
    assert_eq!(both(stale, stale), Some(RejectionKind::Expired));
    assert_eq!(both(stale, "another"), Some(RejectionKind::Expired));
    assert_eq!(both(stale, "another"), Some(RejectionKind::TooManyFailures));
    assert_eq!(both(WRONG, "another"), Some(RejectionKind::TooManyFailures));
    assert_eq!(both(WRONG, stale), Some(RejectionKind::TooManyFailures));
    assert_eq!(both(stale, stale), Some(RejectionKind::Expired));
    assert_eq!(both(WRONG, &guarded.key), None);
}

#[test]
fn an_ipv6_network_is_one_source_and_its_neighbours_are_others() {
    let guarded = guarded(&by_connection(1));
    for (peer, status) in [
        ("2001:db8:0:7::1", 401),
        ("2001:db8:0:7:ffff:ffff:ffff:ffff", 429),
        ("2001:db8:0:7::", 429),
        ("2001:db8:0:6:ffff:ffff:ffff:ffff", 401),
        ("2001:db8:0:8::", 401),
        // IPv4's spelling in IPv6 is not a network of all of them.
        ("::ffff:192.0.2.1", 401),
        ("::ffff:192.0.2.2", 401),
        ("::1", 401),
        ("::", 429),
    ] {
        assert_eq!(guarded.status(WRONG, v6(peer)), status, "{peer}");
    }
    assert_eq!(guarded.status(WRONG, A), 429, "an IPv4 address in its own spelling");
}

#[test]
fn what_a_client_forwards_itself_changes_nothing() {
    let guarded = guarded(&FailureLimit::new(1).with_address(forwarded(1)));
    assert_eq!(guarded.status_of_forwarded(&["192.0.2.1"]), 401);
    for forged in 0..1_000 {
        let left = format!("198.51.{}.{}", forged / 250, forged % 250);
        for lines in [
            &[format!("{left}, 192.0.2.1")][..],
            &[left.clone(), "192.0.2.1".to_owned()],
            &[format!("{left}, {left}, [2001:db8::{forged}]:80,,"), " 192.0.2.1:4000 ".to_owned()],
        ] {
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            assert_eq!(guarded.status_of_forwarded(&lines), 429, "{lines:?}");
        }
    }
    assert_eq!(guarded.status_of_forwarded(&["192.0.2.1, 192.0.2.3"]), 401);
}

/// T30: where the connection decides, no header does.
#[test]
fn with_the_connection_no_header_changes_anything() {
    let guarded = guarded(&by_connection(1));
    let hostile = [
        "x-forwarded-for",
        "x_forwarded_for",
        "forwarded",
        "x-real-ip",
        "x-client-ip",
        "cf-connecting-ip",
        "true-client-ip",
        "x-original-forwarded-for",
        "x-cluster-client-ip",
        "fastly-client-ip",
        "x-forwarded",
        "forwarded-for",
        "via",
        "host",
        "x-forwarded-host",
    ];
    assert_eq!(guarded.status(WRONG, A), 401);
    for number in 0..1_000 {
        for (key, status) in [(WRONG, 429), (&guarded.key, 200)] {
            let mut request = from(A, plain_with(CredentialSource::Header, key));
            for name in hostile {
                let value = format!("198.51.{}.{}", number / 250, number % 250);
                let name = HeaderName::from_static(name);
                request.headers_mut().append(name, value.parse().expect("a value"));
            }
            assert_eq!(guarded.ask(request).status(), status);
        }
    }
}

/// And where `X-Forwarded-For` decides, only that does, and not the connection.
#[test]
fn who_is_unknown_shares_a_bucket() {
    let guarded = guarded(&FailureLimit::new(3).with_address(forwarded(2)));
    for (lines, status) in [
        (&[][..], 401),
        (&["192.0.2.1"], 401),
        (&["nobody, 192.0.2.1"], 401),
        (&["", ""], 429),
        (&["unknown", "192.0.2.1"], 429),
        (&["192.0.2.1, 192.0.2.2"], 401),
    ] {
        assert_eq!(guarded.status_of_forwarded(lines), status, "{lines:?}");
    }
    let mut request = from(B, plain_with(CredentialSource::Header, WRONG));
    request.headers_mut().insert("x_forwarded_for", HeaderValue::from_static("192.0.2.9, ::1"));
    assert_eq!(guarded.ask(request).status(), 429);
    assert_eq!(guarded.status(&guarded.key, B), 200);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Counts as a list that is looked through from one end does.
    #[test]
    fn the_table_is_bounded_and_the_oldest_leaves(
        steps in proptest::collection::vec((0_u8..8, 0_u64..40_000), 1..200),
        max in 1_usize..6,
        limit in 0_u32..4,
    ) {
        let failures = by_connection(limit).with_max_sources(NonZeroUsize::new(max).unwrap());
        let guarded = guarded(&failures);
        let mut now = NOON.get();
        // Source, minute, failures: the oldest first.
        let mut model: Vec<(u8, u64, u32)> = Vec::new();
        for (source, later) in steps {
            // Mostly not at all, so that minutes fill up.
            now += later.saturating_sub(30_000);
            guarded.clock.set(UnixMillis::new(now));
            let known = model.iter().position(|(other, ..)| *other == source);
            let known = known.map(|at| model.remove(at)).filter(|(_, minute, _)| *minute == now / 60_000);
            let before = known.map_or(0, |(.., failures)| failures);
            model.push((source, now / 60_000, before + 1));
            if model.len() > max {
                model.remove(0);
            }
            let peer = Ipv4Addr::new(192, 0, 2, source).into();
            let expected = if before < limit { 401 } else { 429 };
            prop_assert_eq!(guarded.status(WRONG, peer), expected);
            prop_assert_eq!(failures.len(), model.len());
        }
    }
}

#[test]
fn the_table_stays_within_its_bound() {
    let limit = by_connection(1).with_max_sources(NonZeroUsize::new(100).unwrap());
    let guarded = guarded(&limit);
    assert!(limit.is_empty());
    for number in 0..10_000_u32 {
        let peer = Ipv4Addr::from(0x0a00_0000 + number).into();
        assert_eq!(guarded.status(WRONG, peer), 401);
        // Whoever goes on guessing is never the oldest.
        assert_eq!(guarded.status(WRONG, A), if number == 0 { 401 } else { 429 });
        assert_eq!(guarded.status(&guarded.key, peer), 200);
        assert_eq!(limit.len(), 100.min(number as usize + 2));
    }
    // Of the other 99, the oldest is the first to go.
    assert_eq!(guarded.status(WRONG, Ipv4Addr::from(0x0a00_0000 + 9_901).into()), 429);
    assert_eq!(guarded.status(WRONG, Ipv4Addr::from(0x0a00_0000 + 9_900).into()), 401);
}

#[test]
fn a_source_takes_less_than_a_hundred_bytes() {
    const SOURCES: u32 = 16_384;
    let limit = by_connection(1).with_max_sources(NonZeroUsize::new(SOURCES as usize).unwrap());
    let guarded = guarded(&limit);
    let fill = |first: u128| {
        for number in 0..SOURCES {
            guarded.status(WRONG, Ipv6Addr::from((first + u128::from(number)) << 64).into());
        }
    };
    let held = allocation_counter::measure(|| fill(0x2001_0db8 << 32)).bytes_current;
    assert_eq!(limit.len(), SOURCES as usize);
    println!("{} bytes a source", held / i64::from(SOURCES));
    assert!(held < 100 * i64::from(SOURCES), "{held}");
    // As many others need no more.
    let more = allocation_counter::measure(|| fill(0x2001_0db9 << 32)).bytes_current;
    assert_eq!(limit.len(), SOURCES as usize);
    assert!(more < 10 * i64::from(SOURCES), "{more}");
}

#[test]
fn where_addresses_stand_must_be_said() {
    let layer = || RealtimeAuthLayer::new(MemoryStore::new());
    let refused = layer().with_failure_limit(FailureLimit::new(5)).expect_err("no address");
    assert_eq!(refused, ConfigError::NoClientAddress);
    assert!(refused.to_string().contains("FailureLimit::with_address"), "{refused}");
    assert!(layer().with_failure_limit(by_connection(5)).is_ok());
}

/// A browser cannot read a status: it gets the event and a Close with 4029.
#[tokio::test]
async fn a_browser_is_told_by_a_close() {
    const BROWSER: CredentialSource = CredentialSource::Subprotocol;
    let limit = FailureLimit::new(0).with_address(forwarded(1));
    for (profile, code, reason) in [
        (Profile::default(), 4029_u16, "Too many invalid API keys: wait for the next minute"),
        (Profile::openai(), 3000, "rate_limit_error.too_many_failures"),
    ] {
        let guarded = guarded_as(&limit, |layer| layer.with_profile(profile));
        let address = serve(guarded.service.clone()).await;
        let (mut raw, head) = Raw::send(address, handshake_with(BROWSER, WRONG).as_bytes()).await;
        assert_eq!(head.status, 101);
        let (first, event) = raw.frame().await.expect("the event");
        assert_eq!(first, 0x81);
        let event = String::from_utf8(event).expect("text");
        assert!(event.contains(r#""code":"too_many_failures""#), "{event}");
        let (first, close) = raw.frame().await.expect("the Close");
        let expected = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
        assert_eq!((first, close), (0x88, expected));
        let (_, head) = Raw::send(address, handshake_with(BROWSER, &guarded.key).as_bytes()).await;
        assert_eq!(head.status, 101);
    }
    let guarded = guarded_as(&limit, |layer| layer.with_refusal(RefusalMode::Never));
    let address = serve(guarded.service.clone()).await;
    let (_, head) = Raw::send(address, handshake_with(BROWSER, WRONG).as_bytes()).await;
    assert_eq!((head.status, head.all("retry-after")), (429, vec!["60"]));
}
