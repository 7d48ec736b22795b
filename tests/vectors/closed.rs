//! How a refused handshake ends: after its Close the server waits for the peer's, within bounds.

use std::time::{Duration, Instant};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower_realtime_auth::{
    CloseFrame, Closing, ConfigError, Profile, Refusal,
    RejectionKind::Unknown,
    http::{Request, Version, header},
};

use crate::{
    case::{Named, PATH, Setup, lines},
    refused::{Words, check_close, check_completed, part_cleanly},
    support::{self, Body, Raw, SOON, masked},
};

/// So long that a wait which ends was not ended by it.
const NEVER: Duration = Duration::from_secs(3600);

/// A handshake that is refused with a Close.
fn refused_handshake() -> String {
    let offers = "realtime, openai-insecure-api-key.BAD";
    support::handshake(PATH, &[("Sec-WebSocket-Protocol", offers)])
}

/// A connection over which a handshake was refused up to and including the Close.
async fn refused(setup: &Setup) -> Raw {
    let (mut raw, head) = Raw::send(setup.serve().await, refused_handshake().as_bytes()).await;
    check_completed(&head, Some("realtime"));
    check_close(&mut raw, &Words::of(Unknown)).await;
    raw
}

fn waits_for_ever() -> Closing {
    Closing::default().with_deadline(NEVER)
}

/// By hand, because to the user of a client library all ends of a stream look alike.
#[tokio::test]
async fn over_http2_the_stream_ends_in_good_order_after_the_peers_close() {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;

    let _named = Named::vector(35);
    let setup = Setup::closing(waits_for_ever()).await;
    let mut stream = TcpStream::connect(setup.serve().await).await.unwrap();
    // Every field as a literal that is in no table (RFC 7541 §6.2.2).
    let mut fields = Vec::new();
    for (name, value) in [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "test"),
        (":path", PATH),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "realtime, openai-insecure-api-key.BAD"),
    ] {
        fields.push(0);
        for text in [name, value] {
            fields.push(u8::try_from(text.len()).unwrap());
            fields.extend(text.as_bytes());
        }
    }
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&http2_frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream.write_all(&http2_frame(HEADERS, END_HEADERS, 1, &fields)).await.unwrap();

    let mut told = Vec::new();
    let close = Words::of(Unknown).close_frame();
    while !told.ends_with(&close) {
        let (kind, flags, payload) = read_http2_frame(&mut stream, 1).await;
        assert_eq!(flags & END_STREAM, 0);
        match kind {
            HEADERS => {}
            DATA => told.extend(payload),
            other => panic!("a frame of type {other} before the Close"),
        }
    }
    assert_eq!((setup.layer.lingering(), setup.runtime.running()), (1, 1));
    let farewell = masked(0x88, &4001_u16.to_be_bytes());
    stream.write_all(&http2_frame(DATA, 0, 1, &farewell)).await.unwrap();
    let (kind, flags, payload) = read_http2_frame(&mut stream, 1).await;
    assert_eq!((kind, flags & END_STREAM, &*payload), (DATA, END_STREAM, &b""[..]));
    setup.settled().await;
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Reads the next frame of `stream`: its type, flags and payload.
async fn read_http2_frame(connection: &mut TcpStream, stream: u32) -> (u8, u8, Vec<u8>) {
    let reading = async {
        loop {
            let mut header = [0; 9];
            connection.read_exact(&mut header).await.expect("a frame");
            let [l0, l1, l2, kind, flags, id @ ..] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
            connection.read_exact(&mut payload).await.expect("its payload");
            if u32::from_be_bytes(id) == stream {
                return (kind, flags, payload);
            }
        }
    };
    tokio::time::timeout(SOON, reading).await.expect("a frame in time")
}

#[tokio::test]
async fn over_http2_the_answer_has_what_http2_asks_for() {
    let _named = Named::vector(35);
    let setup = Setup::closing(waits_for_ever()).await;
    let stream = TcpStream::connect(setup.serve().await).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    // With its first answer the server's settings are there, which allow the extended CONNECT.
    let fetch = Request::get("http://test/").body(Body::default()).unwrap();
    assert_eq!(sender.send_request(fetch).await.unwrap().status(), 401);

    let connect = Request::connect("http://test/v1/realtime")
        .version(Version::HTTP_2)
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "realtime, openai-insecure-api-key.BAD")
        .body(Body::default())
        .unwrap();
    let response = sender.send_request(connect).await.unwrap();
    assert_eq!(response.status(), 200);
    let headers = response.headers();
    assert_eq!(lines(headers, header::SEC_WEBSOCKET_PROTOCOL), ["realtime"]);
    for absent in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!headers.contains_key(absent), "{absent}");
    }
    assert_eq!(setup.layer.lingering(), 1);
}

#[tokio::test]
async fn a_silent_peer_is_left_at_the_deadline() {
    let owes_a_body = refused_handshake().replace("\r\n\r\n", "\r\nContent-Length: 10\r\n\r\n");
    for (vector, request) in [(43, refused_handshake()), (53, owes_a_body)] {
        let _named = Named::vector(vector);
        let deadline = Duration::from_millis(100);
        let setup = Setup::closing(Closing::default().with_deadline(deadline)).await;
        let address = setup.serve().await;
        let began = Instant::now();
        let (mut raw, head) = Raw::send(address, request.as_bytes()).await;
        check_completed(&head, Some("realtime"));
        raw.rest().await;
        setup.settled().await;
        // Not before the deadline that was set, and not as late as the default one.
        let took = began.elapsed();
        assert!(took >= deadline && took < Duration::from_secs(3), "{took:?}");
    }
}

#[tokio::test]
async fn a_peer_that_floods_is_left_at_the_cap() {
    let _named = Named::vector(44);
    let setup = Setup::closing(waits_for_ever().with_max_drained(4096)).await;
    let mut raw = refused(&setup).await;
    let frame = masked(0x82, &[0; 1000]);
    // More than the sockets between us can hold; writing fails once the server has left.
    let mut frames = 0;
    while raw.stream.write_all(&frame).await.is_ok() {
        frames += 1;
        assert!(frames < 100_000, "the server reads on and on");
    }
    setup.settled().await;
}

#[tokio::test]
async fn the_peers_close_ends_the_wait_whatever_comes_before_it() {
    let close = masked(0x88, &1000_u16.to_be_bytes());
    let empty_close = masked(0x88, b"");
    // As payload, a Close is none, and neither is what no client may send.
    let misleading = |len: usize| [0x88, 0x82, 0xff, 0x03].repeat(len / 4);
    let short = masked(0x81, &misleading(120));
    let medium = masked(0x82, &misleading(400));
    let pings = [masked(0x89, b"ping"), masked(0x8a, b"")].concat();
    let fragments = [masked(0x01, b"a"), masked(0x00, b"b"), masked(0x80, b"")].concat();
    let long = masked(0x82, &misleading(70_000));
    let at_once = [&*pings, &short, &fragments, &medium, &close].concat();
    // What is sent together, one after the other.
    for (vector, sent) in [
        (45, vec![&*empty_close]),
        (45, vec![&*close]),
        (46, vec![&*short, &*close]),
        (46, vec![&*medium, &*close]),
        (46, vec![&*long, &*close]),
        (46, vec![&*pings, &*close]),
        (46, vec![&*fragments, &*close]),
        (46, vec![&*at_once]),
        (46, at_once.chunks(1).collect()),
    ] {
        let _named = Named::vector(vector);
        let setup = Setup::closing(waits_for_ever()).await;
        let mut raw = refused(&setup).await;
        raw.stream.set_nodelay(true).unwrap();
        let (last, first) = sent.split_last().unwrap();
        for piece in first {
            raw.stream.write_all(piece).await.unwrap();
            // The server has its turns on this thread, to read it. Had it none, we would only miss
            // that it leaves too early.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert_eq!(setup.layer.lingering(), 1);
        }
        part_cleanly(&mut raw, last).await;
        setup.settled().await;
    }
}

#[tokio::test]
async fn a_peer_that_sends_what_no_client_may_is_left_at_once() {
    let unmasked = vec![0x81, 2, b'h', b'i'];
    let reserved_bit = masked(0xc1, b"hi");
    let reserved_opcode = masked(0x83, b"hi");
    let fragmented_ping = masked(0x09, b"");
    let long_ping = masked(0x89, &[0; 126]);
    let http = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    for bytes in [unmasked, reserved_bit, reserved_opcode, fragmented_ping, long_ping, http] {
        let _named = Named::vector(47);
        let setup = Setup::closing(waits_for_ever()).await;
        let mut raw = refused(&setup).await;
        raw.stream.write_all(&bytes).await.unwrap();
        raw.rest().await;
        setup.settled().await;
    }
}

#[tokio::test]
async fn a_close_that_came_with_the_handshake_counts() {
    let _named = Named::vector(48);
    let setup = Setup::closing(waits_for_ever()).await;
    let close = masked(0x88, &1000_u16.to_be_bytes());
    let request = [refused_handshake().as_bytes(), &close].concat();
    let (mut raw, head) = Raw::send(setup.serve().await, &request).await;
    check_completed(&head, Some("realtime"));
    check_close(&mut raw, &Words::of(Unknown)).await;
    part_cleanly(&mut raw, &[]).await;
    setup.settled().await;
}

#[tokio::test]
async fn past_the_cap_on_waits_there_is_a_status() {
    let _named = Named::vector(49);
    let setup = Setup::closing(waits_for_ever().with_max_lingering(1)).await;
    let address = setup.serve().await;
    let request = refused_handshake();
    for _ in 0..2 {
        let (mut first, head) = Raw::send(address, request.as_bytes()).await;
        check_completed(&head, Some("realtime"));
        check_close(&mut first, &Words::of(Unknown)).await;
        assert_eq!(setup.layer.lingering(), 1);

        let spawned = setup.runtime.spawned();
        let (_raw, head) = Raw::send(address, request.as_bytes()).await;
        assert_eq!(head.status, 401);
        assert_eq!((setup.layer.lingering(), setup.runtime.spawned()), (1, spawned));

        part_cleanly(&mut first, &masked(0x88, b"")).await;
        setup.settled().await;
    }
}

#[tokio::test]
async fn reasons_are_cut_to_fit_and_at_a_character() {
    let _named = Named::vector(50);
    let reason = format!("{}é{}", "a".repeat(122), "b".repeat(76));
    assert_eq!(reason.len(), 200);
    let frame = CloseFrame::new(4321, &reason).unwrap();
    // A frame is for the kinds of refusal that it was set for, and for no other.
    let other = CloseFrame::new(4999, "not this").unwrap();
    let profile = Profile::default().with_refusal(move |rejection| {
        let frame = if rejection.kind() == Unknown { &frame } else { &other };
        Refusal::of(rejection).with_close(frame.clone())
    });
    let mut setup = Setup::closing(waits_for_ever()).await;
    setup.layer = setup.layer.with_profile(profile);
    let (mut raw, _) = Raw::send(setup.serve().await, refused_handshake().as_bytes()).await;
    let (first, _event) = raw.frame().await.unwrap();
    assert_eq!(first, 0x81);
    let payload = [&4321_u16.to_be_bytes(), "a".repeat(122).as_bytes()].concat();
    assert!(payload.len() <= 125);
    assert_eq!(raw.frame().await, Some((0x88, payload)));
}

#[test]
fn codes_that_no_endpoint_may_send_are_refused() {
    let _named = Named::vector(51);
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        assert_eq!(CloseFrame::new(code, ""), Err(ConfigError::CloseCode { code }));
    }
    for code in [1000, 1003, 1007, 1014, 3000, 4001, 4999] {
        assert_eq!(CloseFrame::new(code, "why").unwrap().code(), code);
    }
}

#[tokio::test]
async fn a_server_that_cannot_upgrade_after_all_leaves_nothing_behind() {
    let _named = Named::vector(80);
    let setup = Setup::closing(waits_for_ever()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut raw = Raw::connect(address).await;
    let (stream, _) = listener.accept().await.unwrap();
    // Without `.with_upgrades()`. That it fails in the end is what is expected here.
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(setup.service()));
    tokio::spawn(connection);
    raw.stream.write_all(refused_handshake().as_bytes()).await.unwrap();
    let head = raw.head().await;
    check_completed(&head, Some("realtime"));
    assert_eq!(raw.rest().await, b"");
    setup.settled().await;
    assert_eq!(setup.runtime.spawned(), 1);
}
