//! What does not pass: why not, and by which door it leaves. The tables' short forms are those of
//! `accepted`.

use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;
use tower_realtime_auth::{
    Conflicts,
    CredentialSource::{self, Header, Query, Subprotocol},
    RefusalMode, Rejection,
    RejectionKind::{self, Conflict, Handshake, Malformed, Missing, Model, Unknown},
    http::{HeaderValue, Request, Version, header},
};

use crate::{
    case::{Case, Named, Setup, handshake, lines, plain, spelled_out},
    support::{self, ACCEPT, Head, Raw, SOON, masked},
};

/// What a refused client is told, at either door.
pub(crate) struct Words {
    pub(crate) status: u16,
    challenge: Option<&'static str>,
    code: &'static str,
    close: (u16, &'static str),
}

impl Words {
    pub(crate) fn of(kind: RejectionKind) -> Self {
        const INVALID_REQUEST: &str = r#"Bearer realm="realtime", error="invalid_request""#;
        match kind {
            Missing => Self {
                status: 401,
                challenge: Some(r#"Bearer realm="realtime""#),
                code: "missing_api_key",
                close: (4001, "Unauthorized: no API key was presented"),
            },
            Unknown => Self {
                status: 401,
                challenge: Some(r#"Bearer realm="realtime", error="invalid_token""#),
                code: "invalid_api_key",
                close: (4001, "Unauthorized: invalid or expired API key"),
            },
            Malformed => Self {
                status: 400,
                challenge: Some(INVALID_REQUEST),
                code: "malformed_api_key",
                close: (4001, "Unauthorized: malformed API key"),
            },
            Conflict => Self {
                status: 400,
                challenge: Some(INVALID_REQUEST),
                code: "conflicting_api_keys",
                close: (4001, "Unauthorized: conflicting API keys"),
            },
            Model => Self {
                status: 403,
                challenge: Some(r#"Bearer realm="realtime", error="insufficient_scope""#),
                code: "model_not_allowed",
                close: (4003, "Forbidden: the API key does not allow this model"),
            },
            Handshake => Self {
                status: 426,
                challenge: None,
                code: "invalid_handshake",
                close: (1002, "Not a WebSocket handshake"),
            },
            other => panic!("no vector is refused as {other:?}"),
        }
    }

    /// The Close frame, byte for byte: FIN and opcode 8, length, code, reason.
    pub(crate) fn close_frame(&self) -> Vec<u8> {
        let (code, reason) = self.close;
        let len = u8::try_from(2 + reason.len()).expect("a short reason");
        [&[0x88, len], &code.to_be_bytes()[..], reason.as_bytes()].concat()
    }

    fn check_error(&self, json: &[u8]) -> serde_json::Value {
        let json: serde_json::Value = serde_json::from_slice(json).expect("JSON");
        assert_eq!(json["error"]["code"], self.code);
        json
    }
}

/// The door by which a refused request leaves a server that can upgrade.
#[derive(Clone, Copy)]
enum Door<'a> {
    /// An HTTP status.
    Status,
    /// A completed handshake, answered with this subprotocol, and a Close.
    Close(Option<&'a str>),
}

/// Asserts that `case` is refused with a status where nothing can upgrade (vector 42), and by
/// `door` where a server can.
async fn refuse(case: Case<'_>, kind: RejectionKind, by: Option<CredentialSource>, door: Door<'_>) {
    let words = Words::of(kind);
    // What cannot be a key is neither hashed nor looked up.
    let lookups = usize::from(!matches!(kind, Missing | Malformed | Conflict));

    let setup = Setup::of(case).await;
    let response = setup.service().oneshot(case.request()).await.unwrap();
    assert_eq!(response.status(), words.status);
    let challenges = lines(response.headers(), header::WWW_AUTHENTICATE);
    assert_eq!(challenges, Vec::from_iter(words.challenge));
    assert!(!response.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL));
    let rejection = response.extensions().get::<Rejection>().expect("a rejection");
    assert_eq!((rejection.kind(), rejection.source()), (kind, by));
    assert_eq!((setup.lookups(), setup.runtime.spawned()), (lookups, 0));
    assert!(setup.seen().is_empty());

    if let Some(request) = case.request_over_http2() {
        let setup = Setup::of(case).await;
        let response = setup.service().oneshot(request).await.unwrap();
        assert_eq!(response.status(), words.status);
        assert!(!response.headers().contains_key(header::CONNECTION), "not in HTTP/2");
        let rejection = response.extensions().get::<Rejection>().expect("a rejection");
        assert_eq!((rejection.kind(), rejection.source()), (kind, by));
        assert_eq!(setup.lookups(), lookups);
        assert!(setup.seen().is_empty());
    }

    let setup = Setup::of(case).await;
    let (mut raw, head) = Raw::send(setup.serve().await, &case.wire()).await;
    match door {
        Door::Status => {
            assert_eq!(head.status, words.status);
            assert_eq!(head.all("www-authenticate"), Vec::from_iter(words.challenge));
            assert!(head.all("sec-websocket-protocol").is_empty());
            // What a client sends after a refused handshake is not to be read as a request.
            if case.is_handshake {
                words.check_error(&raw.rest().await);
            }
            assert_eq!(setup.runtime.spawned(), 0);
        }
        Door::Close(answer) => {
            check_completed(&head, answer);
            check_close(&mut raw, &words).await;
            assert_eq!((setup.layer.lingering(), setup.runtime.running()), (1, 1));
            part_cleanly(&mut raw, &masked(0x88, &4001_u16.to_be_bytes())).await;
        }
    }
    assert_eq!(setup.lookups(), lookups);
    assert!(setup.seen().is_empty());
    setup.settled().await;
}

/// Asserts that the handshake is completed, with this subprotocol and no other.
pub(crate) fn check_completed(head: &Head, answer: Option<&str>) {
    let answer = answer.map(|answer| spelled_out(&format!("P: {answer}")));
    let answer = answer.iter().filter_map(|line| line.trim_end().split(": ").nth(1));
    assert_eq!(head.status, 101, "{head:?}");
    assert_eq!(head.all("connection"), ["upgrade"]);
    assert_eq!(head.all("upgrade"), ["websocket"]);
    assert_eq!(head.all("sec-websocket-accept"), [ACCEPT]);
    assert_eq!(head.all("sec-websocket-protocol"), Vec::from_iter(answer));
    assert!(head.all("sec-websocket-extensions").is_empty());
}

/// Asserts that the error event comes and then the Close, as a server's frames.
pub(crate) async fn check_close(raw: &mut Raw, words: &Words) {
    let (first, event) = raw.frame().await.expect("an error event");
    assert_eq!(first, 0x81);
    assert_eq!(words.check_error(&event)["type"], "error");
    let (first, payload) = raw.frame().await.expect("a Close");
    let close = words.close_frame();
    assert_eq!((first, &*payload), (close[0], &close[2..]));
}

/// Sends `farewell` and asserts that the server ends the connection in good order. One that left
/// bytes unread would have it reset.
pub(crate) async fn part_cleanly(raw: &mut Raw, farewell: &[u8]) {
    raw.stream.write_all(farewell).await.expect("written");
    let mut room = [0; 1];
    let end = tokio::time::timeout(SOON, raw.stream.read(&mut room)).await;
    assert_eq!(end.expect("an end in time").expect("an orderly end"), 0);
}

#[tokio::test]
async fn handshakes_leave_by_the_door_that_their_client_can_see() {
    use Conflicts::{RejectConflict, TryNext};
    use Door::{Close, Status};

    const CLOSE: Door<'_> = Close(None);
    const REALTIME: Door<'_> = Close(Some("realtime"));
    const METADATA: Door<'_> = Close(Some("openai-project.p"));
    let query = |vector, target| handshake(vector, "").at(target);
    let good = "/v1/realtime?api_key=GOOD";
    let bad = "/v1/realtime?api_key=BAD";

    let too_many = format!("P: realtime, OPENAI.GOOD{}", ", p".repeat(31));
    let too_wide = format!("O: https://a\nP: realtime, OPENAI.GOOD, {}", "p".repeat(17 * 1024));
    let long = "k".repeat(5000);
    let long_header = format!("A: Bearer {long}");
    let long_query = format!("/v1/realtime?api_key={long}");
    let long_alone = format!("P: OPENAI.{long}");
    let one_too_long = format!("P: realtime, OPENAI.{}", "k".repeat(4097));

    let table = [
        (handshake(18, "P: OpenAI-Insecure-Api-Key.GOOD, realtime"), Missing, None, Status),
        (
            handshake(18, "O: https://a\nP: OpenAI-Insecure-Api-Key.GOOD, realtime"),
            Missing,
            None,
            REALTIME,
        ),
        (handshake(19, "P: realtime, OPENAI."), Missing, None, Status),
        (handshake(20, "P: realtime, openai-insecure-api-key"), Missing, None, Status),
        (
            handshake(23, "P: realtime, OPENAI.GOOD, OPENAI.BAD"),
            Malformed,
            Some(Subprotocol),
            REALTIME,
        ),
        (
            handshake(23, "P: OPENAI.GOOD\nP: realtime\nP: XAI.BAD"),
            Malformed,
            Some(Subprotocol),
            REALTIME,
        ),
        // What exceeds the bounds is not read, so there is nothing to answer either.
        (handshake(28, &too_many), Malformed, Some(Subprotocol), Status),
        (handshake(28, &too_wide), Malformed, Some(Subprotocol), Status),
        (handshake(29, &one_too_long), Malformed, Some(Subprotocol), REALTIME),
        // Some clients could not read so long a line.
        (handshake(29, &long_alone), Malformed, Some(Subprotocol), Status),
        (handshake(29, &long_header), Malformed, Some(Header), Status),
        (query(29, &long_query), Malformed, Some(Query), CLOSE),
        (handshake(33, "P: realtime, OPENAI.BAD"), Unknown, Some(Subprotocol), REALTIME),
        (handshake(34, "P: XAI.BAD"), Unknown, Some(Subprotocol), Close(Some("XAI.BAD"))),
        // A key that was refused is not repeated where anything else can be answered.
        (handshake(34, "P: XAI.BAD, foo"), Unknown, Some(Subprotocol), Close(Some("foo"))),
        (handshake(34, "P: XAI.BAD, openai-project.p"), Unknown, Some(Subprotocol), METADATA),
        (query(36, bad), Unknown, Some(Query), CLOSE),
        (handshake(37, "A: Bearer BAD"), Unknown, Some(Header), Status),
        (handshake(37, "A: Bearer BAD\nO: https://a"), Unknown, Some(Header), Status),
        (handshake(38, "O: https://a"), Missing, None, CLOSE),
        (handshake(38, "O: https://a\nP: realtime"), Missing, None, REALTIME),
        (handshake(38, ""), Missing, None, Status),
        (handshake(38, "P: realtime"), Missing, None, Status),
        (handshake(52, "P: a b").at(bad), Unknown, Some(Query), Status),
        (handshake(52, "P: a b, c").at(bad), Unknown, Some(Query), Close(Some("c"))),
        (query(58, "/v1/realtime?api_key=a%20b"), Malformed, Some(Query), CLOSE),
        (query(60, "/v1/realtime?API_KEY=GOOD"), Missing, None, Status),
        (query(61, "/v1/realtime?api_key=&api_key"), Missing, None, Status),
        (query(63, "/v1/realtime?api_key=GOOD&api_key=BAD"), Malformed, Some(Query), CLOSE),
        (query(64, "/v1/realtime?api_key=%zz"), Malformed, Some(Query), CLOSE),
        (query(64, "/v1/realtime?api_key=%"), Malformed, Some(Query), CLOSE),
        (query(64, "/v1/realtime?api_key=%00"), Malformed, Some(Query), CLOSE),
        (query(64, "/v1/realtime?api_key=%FF"), Malformed, Some(Query), CLOSE),
        // What is malformed gives way to nothing.
        (
            handshake(64, "P: realtime, OPENAI.GOOD").at("/v1/realtime?api_key=%"),
            Malformed,
            Some(Query),
            REALTIME,
        ),
        (handshake(69, "A: Bearer\tGOOD"), Malformed, Some(Header), Status),
        (handshake(69, "A: Bearer GOOD x"), Malformed, Some(Header), Status),
        (handshake(69, "A: Bearer GOOD,y"), Malformed, Some(Header), Status),
        (handshake(69, "A: Bearer GOOD,y").at(good), Malformed, Some(Header), Status),
        (handshake(70, "A: Bearer"), Missing, None, Status),
        (handshake(71, "A: Basic dTpw"), Missing, None, Status),
        (handshake(73, "A: Bearer GOOD\nA: Bearer BAD"), Malformed, Some(Header), Status),
        (handshake(73, "A: Bearer BAD\nA: Bearer GOOD"), Malformed, Some(Header), Status),
        (handshake(74, "A: Bearer BAD").at(good), Unknown, Some(Header), Status),
        (
            handshake(74, "A: Bearer BAD").at(good).under(RejectConflict),
            Conflict,
            Some(Header),
            Status,
        ),
        (
            handshake(74, "A: Bearer GOOD").at(bad).under(RejectConflict),
            Conflict,
            Some(Header),
            Status,
        ),
        (handshake(75, "P: realtime, OPENAI.GOOD").at(bad), Unknown, Some(Query), REALTIME),
        (
            handshake(75, "P: realtime, OPENAI.BAD").under(TryNext),
            Unknown,
            Some(Subprotocol),
            REALTIME,
        ),
        (handshake(76, "A: Bearer \u{ff}\u{fe}"), Malformed, Some(Header), Status),
        (handshake(78, "A: Bearer SMALL").at("/?model=large"), Model, Some(Header), Status),
        (
            handshake(78, "P: realtime, XAI.SMALL").at("/?model=large"),
            Model,
            Some(Subprotocol),
            REALTIME,
        ),
    ];
    for (case, kind, by, door) in table {
        let _named = Named::of(case);
        refuse(case, kind, by, door).await;
    }
}

#[tokio::test]
async fn a_refused_key_that_is_answered_is_marked_for_those_who_log_responses() {
    for (offers, is_key) in [("P: XAI.BAD", true), ("P: XAI.BAD, foo", false)] {
        let case = handshake(34, offers);
        let _named = Named::of(case);
        let setup = Setup::of(case).await;
        let marked = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&marked);
        let service = setup.service();
        let service = ServiceExt::<Request<Incoming>>::map_response(service, move |response| {
            let answer = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
            *noted.lock().unwrap() = answer.map(HeaderValue::is_sensitive);
            response
        });
        let (_raw, head) = Raw::send(support::serve(service).await, &case.wire()).await;
        assert_eq!(head.status, 101);
        assert_eq!(*marked.lock().unwrap(), Some(is_key));
    }
}

#[tokio::test]
async fn other_requests_are_refused_with_a_status() {
    const PREFLIGHT: &str = "O: https://a\nAccess-Control-Request-Method: GET";
    let table = [
        (plain(30, "POST", "P: realtime, OPENAI.GOOD"), Missing, None),
        (plain(30, "GET", "O: https://a\nP: realtime, OPENAI.GOOD"), Missing, None),
        (plain(77, "OPTIONS", ""), Missing, None),
        (plain(77, "OPTIONS", PREFLIGHT), Missing, None),
        (plain(77, "OPTIONS", "A: Bearer BAD"), Unknown, Some(Header)),
        (plain(78, "GET", ""), Missing, None),
        (plain(78, "GET", "A: Bearer BAD"), Unknown, Some(Header)),
        (plain(78, "GET", "A: Bearer a b"), Malformed, Some(Header)),
        (plain(78, "GET", "A: Bearer SMALL").at("/?model=large"), Model, Some(Header)),
        (plain(78, "GET", "").at("/?api_key=BAD"), Unknown, Some(Query)),
    ];
    for (case, kind, by) in table {
        let _named = Named::of(case);
        refuse(case, kind, by, Door::Status).await;
    }
}

#[tokio::test]
async fn the_mode_overrules_the_choice_of_door() {
    let by_subprotocol = handshake(39, "P: realtime, OPENAI.BAD");
    let by_header = handshake(39, "A: Bearer BAD");
    for (case, mode, answer) in [
        (by_subprotocol, RefusalMode::Never, None),
        (by_header, RefusalMode::Always, None),
        (by_subprotocol, RefusalMode::Always, Some("realtime")),
    ] {
        let _named = Named::of(case);
        let mut setup = Setup::of(case).await;
        setup.layer = setup.layer.with_refusal(mode);
        let (mut raw, head) = Raw::send(setup.serve().await, &case.wire()).await;
        if mode == RefusalMode::Never {
            assert_eq!(head.status, 401);
            assert_eq!(setup.runtime.spawned(), 0);
        } else {
            check_completed(&head, answer);
            check_close(&mut raw, &Words::of(Unknown)).await;
        }
        assert!(setup.seen().is_empty());
    }
}

#[tokio::test]
async fn what_is_no_proper_handshake_is_neither_completed_nor_passed_on() {
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mistakes = [
        ("GET ", "POST "),
        (" HTTP/1.1", " HTTP/1.0"),
        (KEY, ""),
        (KEY, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n"),
        (KEY, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=\r\n"),
        ("Version: 13", "Version: 8"),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: Upgrade", "Connection: keep-alive"),
    ];
    // A subprotocol is no place for a key here, and no client is told by a Close.
    let credentials = [
        ("/", "P: realtime, OPENAI.GOOD\nO: https://a", Missing),
        ("/", "A: Bearer BAD", Unknown),
        ("/?api_key=BAD", "P: realtime", Unknown),
        ("/", "A: Bearer GOOD", Handshake),
        ("/?api_key=GOOD", "P: realtime", Handshake),
    ];
    for (right, wrong) in mistakes {
        for (target, headers, kind) in credentials {
            let case = handshake(40, headers).at(target);
            let _named = Named::of(case);
            let words = Words::of(kind);
            let setup = Setup::of(case).await;
            let proper = String::from_utf8(case.wire()).unwrap();
            let mistaken = proper.replacen(right, wrong, 1);
            assert_ne!(proper, mistaken);

            let (mut raw, head) = Raw::send(setup.serve().await, mistaken.as_bytes()).await;
            assert_eq!(head.status, words.status, "{wrong}");
            let versions = if kind == Handshake { vec!["13"] } else { vec![] };
            assert_eq!(head.all("sec-websocket-version"), versions, "{wrong}");
            words.check_error(&raw.rest().await);
            assert!(setup.seen().is_empty(), "{wrong}");
            assert_eq!(setup.runtime.spawned(), 0, "{wrong}");
        }
    }
}

/// What asks for a tunnel and not for a WebSocket is no proper handshake either.
#[tokio::test]
async fn a_connect_without_a_protocol_is_not_passed_on() {
    for (key, kind) in [("BAD", Unknown), ("GOOD", Handshake)] {
        let setup = Setup::new().await;
        let request = Request::connect("h:443")
            .version(Version::HTTP_2)
            .header("authorization", format!("Bearer {key}"))
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        let response = setup.service().oneshot(request).await.unwrap();
        assert_eq!(response.status(), Words::of(kind).status);
        // HTTP/2 has no headers about a connection (RFC 9113 §8.2.2).
        assert!(!response.headers().contains_key(header::CONNECTION));
        assert!(setup.seen().is_empty());
    }
}
