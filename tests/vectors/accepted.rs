//! What passes: what the inner service sees of it, and which subprotocol the client is answered.
//!
//! In the tables, `P` is `Sec-WebSocket-Protocol`, `A` is `Authorization` and `O` is `Origin`;
//! `OPENAI.` is the prefix `openai-insecure-api-key.` and `XAI.` is `xai-client-secret.`.

use tower::ServiceExt;
use tower_realtime_auth::{
    Conflicts,
    CredentialSource::{Header, Query, Subprotocol},
    http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header},
};

use crate::{
    case::{Case, HTTP2_ORIGIN, Named, PATH, Seen, Setup, handshake, lines, plain},
    support::{self, Raw},
};

/// What nobody but the client and the layer may see, in every spelling of the tables.
const SECRETS: [&str; 5] = ["GOOD", "BAD", "a.b-c_~1", "a+b", "a%2Bb"];

/// A case that passed.
struct Accepted {
    seen: Seen,
    /// The headers of the response.
    headers: HeaderMap,
    lookups: usize,
}

/// Asserts that `case` passes, as the inner service answers it, and takes nothing secret along.
async fn accept(case: Case<'_>) -> Accepted {
    let setup = Setup::of(case).await;
    let response = setup.service().oneshot(case.request()).await.unwrap();
    assert_eq!(response.status(), case.inner_status, "{:?}", response.extensions());
    assert_eq!(setup.runtime.spawned(), 0);
    let seen = setup.seen().pop().expect("a call");
    for secret in SECRETS {
        assert!(!seen.debug.contains(secret), "{secret} in {}", seen.debug);
    }
    let headers = response.headers().clone();
    if case.inner_status == 101 {
        same_over_http2(case, &seen, &headers).await;
    }
    Accepted { seen, headers, lookups: setup.lookups() }
}

/// Asserts that the same handshake over HTTP/2 is taken and answered in the same way.
async fn same_over_http2(case: Case<'_>, over_http1: &Seen, answered: &HeaderMap) {
    let Some(request) = case.request_over_http2() else { return };
    let mut setup = Setup::of(case).await;
    setup.inner.status = StatusCode::OK;
    setup.inner.upgrade = None;
    let response = setup.service().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let protocols = |headers| lines(headers, header::SEC_WEBSOCKET_PROTOCOL);
    assert_eq!(protocols(response.headers()), protocols(answered));
    assert!(!response.headers().contains_key(header::UPGRADE));
    let seen = setup.seen().pop().expect("a call");
    assert_eq!(seen.target, format!("{HTTP2_ORIGIN}{}", over_http1.target));
    assert_eq!(protocols(&seen.headers), protocols(&over_http1.headers));
    assert_eq!(seen.principal.source(), over_http1.principal.source());
    for secret in SECRETS {
        assert!(!seen.debug.contains(secret), "{secret} in {}", seen.debug);
    }
}

#[tokio::test]
async fn offers_are_stripped_and_one_is_answered() {
    const REALTIME: Option<&str> = Some("realtime");
    let fullest = format!("P: OPENAI.GOOD{}", ", p".repeat(31));
    let fullest_left = ["p"; 31].join(", ");
    let wide = "p".repeat(16 * 1024 - "openai-insecure-api-key.GOOD, ".len());
    let widest = format!("P: OPENAI.GOOD, {wide}");
    let longest = format!("P: OPENAI.{}", "k".repeat(4096));
    let longest_answer = longest.trim_start_matches("P: ");

    // The case, the deciding place, the offers that are left, the answer.
    let table = [
        (handshake(1, "P: realtime, OPENAI.GOOD"), Subprotocol, REALTIME, REALTIME),
        (handshake(2, "P: OPENAI.GOOD,realtime"), Subprotocol, REALTIME, REALTIME),
        (handshake(3, "P: XAI.GOOD"), Subprotocol, None, Some("XAI.GOOD")),
        (handshake(4, "P: realtime\nP: OPENAI.GOOD"), Subprotocol, REALTIME, REALTIME),
        (
            handshake(5, "P: realtime, OPENAI.GOOD, openai-beta.realtime-v1"),
            Subprotocol,
            Some("realtime, openai-beta.realtime-v1"),
            REALTIME,
        ),
        (
            handshake(6, "P: realtime, OPENAI.GOOD, openai-organization.o, openai-project.p"),
            Subprotocol,
            Some("realtime, openai-organization.o, openai-project.p"),
            REALTIME,
        ),
        (
            handshake(7, "P: OPENAI.GOOD, openai-agents-sdk.0.20.0"),
            Subprotocol,
            Some("openai-agents-sdk.0.20.0"),
            Some("OPENAI.GOOD"),
        ),
        (handshake(8, "P: foo, OPENAI.GOOD"), Subprotocol, Some("foo"), Some("OPENAI.GOOD")),
        (
            handshake(9, "P: foo, OPENAI.GOOD").inner_selects("foo"),
            Subprotocol,
            Some("foo"),
            Some("foo"),
        ),
        (
            handshake(10, "P: realtime, OPENAI.GOOD").inner_selects("realtime"),
            Subprotocol,
            REALTIME,
            REALTIME,
        ),
        (
            handshake(11, "P: realtime, OPENAI.GOOD").inner_selects("forced"),
            Subprotocol,
            REALTIME,
            Some("forced"),
        ),
        (handshake(12, "A: Bearer GOOD"), Header, None, None),
        (handshake(13, "A: Bearer GOOD\nP: realtime"), Header, REALTIME, REALTIME),
        (handshake(14, "A: Bearer GOOD\nP: foo"), Header, Some("foo"), None),
        (handshake(15, "A: Bearer GOOD\nP: realtime, OPENAI.BAD"), Header, REALTIME, REALTIME),
        // Only the entry that was consumed may be answered.
        (handshake(15, "A: Bearer GOOD\nP: OPENAI.BAD"), Header, None, None),
        (handshake(16, "P:   realtime ,\t OPENAI.GOOD ,, "), Subprotocol, REALTIME, REALTIME),
        (
            handshake(17, "P: REALTIME, OPENAI.GOOD"),
            Subprotocol,
            Some("REALTIME"),
            Some("OPENAI.GOOD"),
        ),
        (handshake(21, "P: OPENAI.a.b-c_~1"), Subprotocol, None, Some("OPENAI.a.b-c_~1")),
        (handshake(22, "P: OPENAI.GOOD, OPENAI.GOOD"), Subprotocol, None, Some("OPENAI.GOOD")),
        (handshake(22, "P: XAI.GOOD\nP: OPENAI.GOOD"), Subprotocol, None, Some("XAI.GOOD")),
        // An empty credential is none, and is stripped like one.
        (handshake(19, "P: OPENAI., XAI.GOOD"), Subprotocol, None, Some("XAI.GOOD")),
        (handshake(24, "P: realtime, OPENAI.GOOD=="), Subprotocol, REALTIME, REALTIME),
        (handshake(25, "P: OPENAI.GOOD=="), Subprotocol, None, None),
        (
            handshake(26, "P: \u{ff}\u{fe}, realtime, OPENAI.GOOD"),
            Subprotocol,
            Some("\u{ff}\u{fe}, realtime"),
            REALTIME,
        ),
        (
            handshake(27, "P: \"a,b\", realtime, OPENAI.GOOD"),
            Subprotocol,
            Some("\"a, b\", realtime"),
            REALTIME,
        ),
        // What is just within the bounds of 28 and 29.
        (handshake(28, &fullest), Subprotocol, Some(&fullest_left), Some("OPENAI.GOOD")),
        (handshake(28, &widest), Subprotocol, Some(&wide), Some("OPENAI.GOOD")),
        (handshake(29, &longest), Subprotocol, None, Some(longest_answer)),
    ];
    for (case, by, left, answer) in table {
        let _named = Named::of(case);
        let Accepted { seen, headers, lookups } = accept(case).await;
        assert_eq!((seen.principal.source(), lookups), (by, 1));
        assert_eq!(lines(&seen.headers, header::SEC_WEBSOCKET_PROTOCOL), Vec::from_iter(left));
        assert_eq!(lines(&headers, header::SEC_WEBSOCKET_PROTOCOL), Vec::from_iter(answer));

        let answered = headers.get(header::SEC_WEBSOCKET_PROTOCOL);
        let is_key = answer.is_some_and(|text| text.starts_with(['O', 'X']));
        assert_eq!(answered.is_some_and(HeaderValue::is_sensitive), is_key);
        // The principal knows what the layer selects, not what the inner service will.
        if case.inner_selects.is_none() {
            assert_eq!(seen.principal.protocol(), answer.filter(|_| !is_key));
        }
    }
}

#[tokio::test]
async fn what_the_inner_service_does_not_complete_is_answered_with_no_subprotocol() {
    for status in [200, 400, 401, 426, 500] {
        let case = handshake(31, "P: realtime, OPENAI.GOOD").inner_answers(status);
        let _named = Named::of(case);
        let Accepted { headers, .. } = accept(case).await;
        assert!(!headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL));
    }
    // A 101 that does not switch to a WebSocket completes nothing that we judged.
    for upgrade in [None, Some("h2c")] {
        let case = handshake(32, "P: realtime, OPENAI.GOOD");
        let _named = Named::of(case);
        let mut setup = Setup::of(case).await;
        setup.inner.upgrade = upgrade.map(HeaderValue::from_static);
        let response = setup.service().oneshot(case.request()).await.unwrap();
        assert_eq!(response.status(), 101);
        assert!(!response.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL));
    }
}

#[tokio::test]
async fn a_handshake_is_one_in_every_way_of_writing_it() {
    let usual = support::handshake(
        PATH,
        &[("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.GOOD")],
    );
    let unusual = usual
        .replace("Upgrade: websocket", "uPGRADE: h2c, WebSocket")
        .replace("Connection: Upgrade", "connection: keep-alive, Upgrade");
    let in_lines = usual
        .replace("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: WEBSOCKET")
        .replace("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade");
    for text in [usual, unusual, in_lines] {
        let _named = Named::vector(41);
        let setup = Setup::new().await;
        let (_raw, head) = Raw::send(setup.serve().await, text.as_bytes()).await;
        assert_eq!(head.status, 101, "{text}");
        assert_eq!(head.all("sec-websocket-protocol"), ["realtime"]);
        assert_eq!(setup.seen().len(), 1);
    }
}

#[tokio::test]
async fn keys_are_found_in_the_query_and_stripped_from_it() {
    const OFFER: &str = "P: OPENAI.GOOD";
    // Vector, target, headers, the deciding place, the target that is left.
    let table = [
        (54, "/v1/realtime?model=m&api_key=GOOD", "", Query, "/v1/realtime?model=m"),
        (54, "/v1/realtime?api_key=GOOD&model=m", "", Query, "/v1/realtime?model=m"),
        (55, "/v1/realtime?api_key=GOOD", "", Query, PATH),
        (56, "/v1/realtime?a=1&&api_key=GOOD&", "", Query, "/v1/realtime?a=1&&"),
        (57, "/v1/realtime?api_key=a%2Bb", "", Query, PATH),
        (57, "/v1/realtime?api_key=a+b", "", Query, PATH),
        (59, "/v1/realtime?api%5Fkey=GOOD", "", Query, PATH),
        (60, "/v1/realtime?API_KEY=x", "A: Bearer GOOD", Header, "/v1/realtime?API_KEY=x"),
        (61, "/v1/realtime?api_key=", OFFER, Subprotocol, PATH),
        (61, "/v1/realtime?api_key", OFFER, Subprotocol, PATH),
        (62, "/v1/realtime?api_key=GOOD&api_key=GOOD", "", Query, PATH),
        (65, "/v1/realtime?b=%2&api_key=GOOD", "", Query, "/v1/realtime?b=%2"),
        (65, "/v1/realtime?%zz=+&api_key=GOOD&c", "", Query, "/v1/realtime?%zz=+&c"),
    ];
    for (vector, target, headers, by, left) in table {
        let upgrade = handshake(vector, headers).at(target);
        let fetch = plain(vector, "GET", headers).at(target);
        // As a subprotocol, a key counts in a handshake alone: vector 30.
        let cases = if by == Subprotocol { vec![upgrade] } else { vec![upgrade, fetch] };
        for case in cases {
            let _named = Named::of(case);
            let Accepted { seen, lookups, .. } = accept(case).await;
            assert_eq!((seen.principal.source(), &*seen.target, lookups), (by, left, 1));
        }
    }
}

#[tokio::test]
async fn over_http2_scheme_and_authority_stay() {
    let _named = Named::vector(66);
    let mut setup = Setup::new().await;
    setup.inner.status = 200.try_into().unwrap();
    setup.inner.upgrade = None;
    let request = Request::connect("https://h:1/x?api_key=GOOD&b=1")
        .version(Version::HTTP_2)
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "realtime")
        .body(())
        .unwrap();
    let response = setup.service().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(lines(response.headers(), header::SEC_WEBSOCKET_PROTOCOL), ["realtime"]);
    assert_eq!(setup.seen()[0].target, "https://h:1/x?b=1");
}

#[tokio::test]
async fn the_header_comes_first_and_other_schemes_are_left_alone() {
    use Conflicts::{FirstPresent, RejectConflict, TryNext};

    const EVERYWHERE: &str = "A: Bearer GOOD\nP: OPENAI.GOOD";
    let query = "/v1/realtime?api_key=GOOD";

    // The case, the deciding place, the `Authorization` that is left, lookups.
    let table = [
        (handshake(68, "A: Bearer GOOD"), Header, None, 1),
        (handshake(68, "A: bearer GOOD"), Header, None, 1),
        (handshake(68, "A: BEARER   GOOD"), Header, None, 1),
        (handshake(70, "A: Bearer\nP: OPENAI.GOOD"), Subprotocol, None, 1),
        (handshake(71, "A: Basic dTpw\nP: OPENAI.GOOD"), Subprotocol, Some("Basic dTpw"), 1),
        (handshake(72, "A: Basic dTpw\nA: Bearer GOOD"), Header, Some("Basic dTpw"), 1),
        (handshake(73, "A: Bearer GOOD\nA: Bearer GOOD"), Header, None, 1),
        (handshake(74, "A: Bearer GOOD").at("/v1/realtime?api_key=BAD"), Header, None, 1),
        (handshake(74, "A: Bearer BAD").at(query).under(TryNext), Query, None, 2),
        (handshake(75, EVERYWHERE).at(query).under(FirstPresent), Header, None, 1),
        (handshake(75, EVERYWHERE).at(query).under(TryNext), Header, None, 1),
        (handshake(75, EVERYWHERE).at(query).under(RejectConflict), Header, None, 1),
    ];
    for (case, by, left, asked) in table {
        let _named = Named::of(case);
        let Accepted { seen, lookups, .. } = accept(case).await;
        assert_eq!((seen.principal.source(), lookups), (by, asked));
        assert_eq!(lines(&seen.headers, header::AUTHORIZATION), Vec::from_iter(left));
        assert!(!seen.headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL));
        assert_eq!(seen.target, PATH);
    }
}
