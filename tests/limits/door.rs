//! Handshakes past a limit leave by the door that their client can see through.

use axum::{Router, extract::WebSocketUpgrade, routing::any};
use support::{Raw, handshake_with};
use tower_realtime_auth::{
    CloseFrame, MemoryLimits, Profile, RealtimeAuthLayer, Refusal, RefusalMode,
};

use super::*;

/// A server of sessions for one key, of which there may be none; and the key.
async fn full(
    layer: impl FnOnce(RealtimeAuthLayer<MemoryStore>) -> RealtimeAuthLayer<MemoryStore>,
) -> (std::net::SocketAddr, String) {
    let clock = ManualClock::new(NOON);
    let keys = Keys::new(MemoryStore::new()).with_clock(clock.clone());
    let plan = Plan::default().with_requests_per_minute(9).with_max_sessions(0);
    let issued = issue(&keys, plan).await;
    let api = Router::new().route(
        "/v1/realtime",
        any(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(async |_| {})),
    );
    let limits = LimitLayer::new(MemoryLimits::new()).with_clock(clock);
    let app = layer(RealtimeAuthLayer::new(keys)).layer(limits.layer(api));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let make = axum::ServiceExt::<axum::extract::Request>::into_make_service(app);
    tokio::spawn(async move { axum::serve(listener, make).await });
    (address, issued.key().expose().to_owned())
}

const BROWSER: CredentialSource = CredentialSource::Subprotocol;

/// The handshake completes, and an event and a Close say why; all the headers are there.
#[tokio::test]
async fn a_browser_is_told_by_a_close() {
    let swaram = Profile::swaram().with_limit_headers(tower_realtime_auth::LimitHeaders::Svara);
    let own = CloseFrame::new(4290, "slowly").expect("a code");
    let changed = swaram
        .clone()
        .with_refusal(move |rejection| Refusal::of(rejection).with_close(own.clone()));
    for (profile, code, reason) in
        [(swaram, 4029, "Too many sessions: close one"), (changed, 4290, "slowly")]
    {
        let (address, key) = full(|layer| layer.with_profile(profile)).await;
        let (mut raw, head) = Raw::send(address, handshake_with(BROWSER, &key).as_bytes()).await;
        assert_eq!(head.status, 101);
        assert_eq!(head.all("sec-websocket-accept"), [support::ACCEPT]);
        assert_eq!(head.all("sec-websocket-protocol"), ["realtime"]);
        assert_eq!(head.all("x-ratelimit-limit"), ["9"]);
        assert_eq!(head.all("x-ratelimit-remaining"), ["9"], "a refusal consumes nothing");
        let (first, event) = raw.frame().await.expect("the event");
        assert_eq!(first, 0x81);
        let event = String::from_utf8(event).expect("text");
        assert!(event.contains(r#""code":"session_limit_exceeded""#), "{event}");
        let (first, close) = raw.frame().await.expect("the Close");
        assert_eq!(
            (first, &close[..2], &close[2..]),
            (0x88, &u16::to_be_bytes(code)[..], reason.as_bytes(),)
        );
    }
}

/// xAI's browsers offer the key alone and take no other answer.
#[tokio::test]
async fn the_only_offer_is_answered() {
    let (address, key) = full(|layer| layer.with_profile(Profile::xai())).await;
    let offer = format!("xai-client-secret.{key}");
    let request = support::handshake("/v1/realtime", &[("Sec-WebSocket-Protocol", &offer)]);
    let (mut raw, head) = Raw::send(address, request.as_bytes()).await;
    assert_eq!((head.status, head.all("sec-websocket-protocol")), (101, vec![offer.as_str()]));
    assert_eq!(raw.frame().await.expect("the event").0, 0x81);
    assert_eq!(raw.frame().await.expect("the Close").1[..2], 4029_u16.to_be_bytes());
}

/// Who can read a status gets one, and so does everybody where that is wanted.
#[tokio::test]
async fn others_are_told_by_a_status() {
    for (mode, place, status) in [
        (RefusalMode::Auto, CredentialSource::Header, 429),
        (RefusalMode::Auto, CredentialSource::Query, 101),
        (RefusalMode::Auto, BROWSER, 101),
        (RefusalMode::Never, BROWSER, 429),
        (RefusalMode::Always, CredentialSource::Header, 101),
    ] {
        let (address, key) = full(|layer| layer.with_refusal(mode)).await;
        let (_, head) = Raw::send(address, handshake_with(place, &key).as_bytes()).await;
        assert_eq!(head.status, status, "{mode:?} {place}");
        let retry: &[&str] = if status == 429 { &["1"] } else { &[] };
        assert_eq!(head.all("retry-after"), retry);
    }
}
