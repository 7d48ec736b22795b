//! What axum sees behind the layer.

use std::{
    io::{self, Write as _},
    sync::{Arc, Mutex},
};

use axum::{
    Router, ServiceExt,
    extract::{OriginalUri, Request, WebSocketUpgrade},
    response::Response,
    routing::{any, get},
};
use tokio::net::TcpListener;
use tower::{Layer, util::ServiceExt as _};
use tower_realtime_auth::{Principal, RealtimeAuthLayer, http::Version};

use crate::{
    case::{Named, PATH},
    support::{Raw, handshake, keys_with_secret},
};

/// Bytes that are written by many and read in the end.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Over a socket, because only there axum finds what its `WebSocketUpgrade` needs.
#[tokio::test]
async fn nothing_that_a_handler_or_a_log_can_show_holds_the_key() {
    let _named = Named::vector(67);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);

    let (keys, key) = keys_with_secret().await;
    let shown = Log::default();
    let show = shown.clone();
    let realtime = async move |principal: Principal,
                               upgrade: WebSocketUpgrade,
                               uri: OriginalUri,
                               request: Request|
                -> Response {
        writeln!(show.clone(), "{principal:?}\n{upgrade:?}\n{uri:?}\n{request:?}").unwrap();
        upgrade.protocols(["realtime"]).on_upgrade(async |_| {})
    };
    let app = RealtimeAuthLayer::new(keys).layer(Router::new().route(PATH, any(realtime)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(
        axum::serve(listener, ServiceExt::<Request>::into_make_service(app)).into_future(),
    );

    let bearer = format!("Bearer {key}");
    let offers = format!("realtime, openai-insecure-api-key.{key}");
    let target = format!("{PATH}?api_key={key}&model=m");
    for (target, headers) in [
        (PATH, vec![("Authorization", &*bearer)]),
        (&*target, vec![]),
        (PATH, vec![("Sec-WebSocket-Protocol", &*offers)]),
        (&*target, vec![("Authorization", &*bearer), ("Sec-WebSocket-Protocol", &*offers)]),
    ] {
        let (_raw, head) = Raw::send(address, handshake(target, &headers).as_bytes()).await;
        assert_eq!(head.status, 101);
        let offered = headers.iter().any(|(name, _)| *name == "Sec-WebSocket-Protocol");
        let answer = if offered { vec!["realtime"] } else { vec![] };
        assert_eq!(head.all("sec-websocket-protocol"), answer);
    }
    let (shown, logged) = (shown.text(), log.text());
    assert_eq!(shown.matches("sec_websocket_protocol").count(), 4, "{shown}");
    assert!(shown.contains("model=m") && shown.contains("acme"), "{shown}");
    assert_eq!(logged.matches("tower_realtime_auth: accepted").count(), 4, "{logged}");
    assert!(!shown.contains(&key), "{shown}");
    assert!(!logged.contains(&key), "{logged}");
}

#[tokio::test]
async fn a_route_that_knows_no_connect_says_so_itself() {
    let _named = Named::vector(79);
    let (keys, key) = keys_with_secret().await;
    let router = Router::new().route(PATH, get(async |_: Principal| "hello"));
    let connect = || {
        Request::connect(format!("https://h{PATH}"))
            .version(Version::HTTP_2)
            .extension(hyper::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", format!("realtime, openai-insecure-api-key.{key}"))
            .body(axum::body::Body::empty())
            .unwrap()
    };
    let bare = router.clone().oneshot(connect()).await.unwrap();
    let layered = RealtimeAuthLayer::new(keys).layer(router).oneshot(connect()).await.unwrap();
    assert_eq!(layered.status(), 405);
    assert_eq!((layered.status(), layered.headers()), (bare.status(), bare.headers()));
}
