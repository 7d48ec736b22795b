//! Handshakes past a limit leave by the door that their client can see through.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use axum::{Router, extract::WebSocketUpgrade, routing::any};
use support::{
    Raw, SOON, handshake_with,
    http2::{CLOSE, Client, End, TEXT},
};
use tokio::time::timeout;
use tower_realtime_auth::{
    CloseFrame, MemoryLimits, Profile, RealtimeAuthLayer, Refusal, RefusalMode, Rules,
};

use super::*;

/// A server of sessions for one key, of which there may be none; and the key.
async fn full(
    layer: impl FnOnce(RealtimeAuthLayer<MemoryStore>) -> RealtimeAuthLayer<MemoryStore>,
) -> (std::net::SocketAddr, String) {
    capped(0, layer).await
}

/// The same, of which there may be so many.
async fn capped(
    max_sessions: u32,
    layer: impl FnOnce(RealtimeAuthLayer<MemoryStore>) -> RealtimeAuthLayer<MemoryStore>,
) -> (std::net::SocketAddr, String) {
    let clock = ManualClock::new(NOON);
    let plan = Plan::default().with_requests_per_minute(9).with_max_sessions(max_sessions);
    serving(Grants::default().with_plan(plan), &clock, layer, |api| limits(&clock).layer(api)).await
}

fn limits(clock: &ManualClock) -> LimitLayer {
    LimitLayer::new(MemoryLimits::new()).with_clock(clock.clone())
}

/// A server of sessions for one key with these grants, held to these limits; and the key.
async fn serving<L>(
    grants: Grants,
    clock: &ManualClock,
    layer: impl FnOnce(RealtimeAuthLayer<MemoryStore>) -> RealtimeAuthLayer<MemoryStore>,
    limited: impl FnOnce(Router) -> L,
) -> (std::net::SocketAddr, String)
where
    L: Service<axum::extract::Request, Response = axum::response::Response, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    L::Future: Send,
{
    let keys = Keys::new(MemoryStore::new()).with_clock(clock.clone());
    let issued = keys.issue(NewKey::secret("acme").with_grants(grants)).await.expect("a key");
    let session = async |principal: Principal, upgrade: WebSocketUpgrade| {
        let guard = principal.guard();
        upgrade.on_upgrade(async move |mut socket| {
            let _guard = guard;
            while let Some(Ok(_)) = socket.recv().await {}
        })
    };
    let api = Router::new().route("/v1/realtime", any(session));
    let app = layer(RealtimeAuthLayer::new(keys)).layer(limited(api));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let make = axum::ServiceExt::<axum::extract::Request>::into_make_service(app);
    tokio::spawn(async move { axum::serve(listener, make).await });
    (address, issued.key().expose().to_owned())
}

/// What a browser is told whose handshake completes: the code of the Close.
async fn code(address: std::net::SocketAddr, key: &str) -> u16 {
    let (mut raw, head) = Raw::send(address, handshake_with(BROWSER, key).as_bytes()).await;
    assert_eq!(head.status, 101);
    assert_eq!(raw.frame().await.expect("the event").0, 0x81);
    let close = raw.frame().await.expect("the Close").1;
    u16::from_be_bytes([close[0], close[1]])
}

const BROWSER: CredentialSource = CredentialSource::Subprotocol;

/// The handshake completes, and an event and a Close say why; all the headers are there.
#[tokio::test]
async fn a_browser_is_told_by_a_close() {
    let swaram = Profile::swaram();
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

/// A handshake that completes to be closed is no session: nobody need guard it, and the key's only
/// use is still there a minute later.
#[tokio::test]
async fn what_is_closed_is_no_session() {
    let clock = ManualClock::new(NOON);
    let grants = Grants::default()
        .with_plan(Plan::default().with_requests_per_minute(0))
        .with_max_session(Duration::from_secs(60))
        .with_uses(1);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    // Only the first request counts as one.
    let rules = move |_: &_, _: &_| match counted.fetch_add(1, Relaxed) {
        0 => Rules::all(),
        _ => Rules::none(),
    };
    let (address, key) =
        serving(grants, &clock, |layer| layer, |api| limits(&clock).with_rules(rules).layer(api))
            .await;
    assert_eq!(code(address, &key).await, 4029);
    let (_, head) = Raw::send(address, handshake_with(BROWSER, &key).as_bytes()).await;
    assert_eq!((head.status, calls.load(Relaxed)), (101, 2));
    assert_eq!(code(address, &key).await, 4001, "its use is spent");
}

/// The place that a layer further out has given is free again.
#[tokio::test]
async fn a_layer_further_in_closes_too() {
    let clock = ManualClock::new(NOON);
    let plan = Plan::default().with_max_sessions(1);
    let (address, key) = serving(
        Grants::default().with_plan(plan),
        &clock,
        |layer| layer,
        |api| limits(&clock).layer(limits(&clock).with_max_sessions_per_account(0).layer(api)),
    )
    .await;
    for _ in 0..3 {
        assert_eq!(code(address, &key).await, 4029);
    }
}

/// Over HTTP/2 a session is a stream: what is refused is told by the same event and Close, or by a
/// status, and a place is free again when its stream has ended, while the connection goes on.
#[tokio::test]
async fn streams_of_http2_are_sessions_too() {
    let (address, key) = capped(1, |layer| layer.with_profile(Profile::swaram())).await;
    let client = Client::new(address).await;
    let connect = async |name, value| client.connect("/v1/realtime", &[(name, value)]).await;
    let by_header = async || connect("authorization", format!("Bearer {key}")).await;
    let offers = format!("realtime, openai-insecure-api-key.{key}");
    let by_offer = async || connect("sec-websocket-protocol", offers.clone()).await;

    let mut open = by_offer().await;
    assert_eq!((open.status().as_u16(), open.header("x-ratelimit-remaining")), (200, Some("8")));
    let refused = by_header().await;
    assert_eq!((refused.status().as_u16(), refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("8"), "a refusal consumes nothing");

    let mut refused = by_offer().await;
    assert_eq!((refused.status().as_u16(), refused.header("retry-after")), (200, None));
    assert_eq!(refused.header("sec-websocket-protocol"), Some("realtime"));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("8"));
    let (first, event) = refused.frame().await;
    assert_eq!(first, TEXT);
    let event = String::from_utf8(event).expect("text");
    assert!(event.contains(r#""code":"session_limit_exceeded""#), "{event}");
    let (first, close) = refused.frame().await;
    assert_eq!((first, &close[..2]), (CLOSE, &4029_u16.to_be_bytes()[..]));
    refused.close(4029);
    assert_eq!(refused.end().await, End::Stream);

    open.close(1000);
    assert_eq!(open.frame().await.0, CLOSE);
    assert_eq!(open.end().await, End::Stream);
    // The end of the stream may be told before its handler has gone.
    let again = async {
        loop {
            let next = by_header().await;
            if next.status() == 200 {
                return next;
            }
        }
    };
    let again = timeout(SOON, again).await.expect("the place is free again");
    assert_eq!(again.header("x-ratelimit-remaining"), Some("7"));
}
