//! Sessions at once over real sockets, whose clients and handlers end in every way there is.

use std::{
    io,
    net::SocketAddr,
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::{
    Router,
    body::Body as AxumBody,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    response::Response as AxumResponse,
    routing::any,
};
use futures_util::{Stream, StreamExt};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use support::{SOON, handshake, masked};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::yield_now,
    time::timeout,
};
use tower_realtime_auth::{GuardedSocket, MemoryLimits, RealtimeAuthLayer};

use super::*;

tower_realtime_auth::wire!(struct Axum for axum::extract::ws);

const CAP: usize = 3;
const SESSIONS: usize = 10_000;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

/// What the server sees of its sessions.
#[derive(Default)]
struct Gauge {
    begun: AtomicUsize,
    open: AtomicUsize,
    most: AtomicUsize,
}

/// Open until it is dropped: what holds its place is dropped after that was noted.
struct Session<H> {
    gauge: Arc<Gauge>,
    held: H,
}

impl<H> Session<H> {
    fn begin(gauge: Arc<Gauge>, held: H) -> Self {
        gauge.begun.fetch_add(1, SeqCst);
        gauge.most.fetch_max(gauge.open.fetch_add(1, SeqCst) + 1, SeqCst);
        Self { gauge, held }
    }
}

impl<H> Drop for Session<H> {
    fn drop(&mut self) {
        self.gauge.open.fetch_sub(1, SeqCst);
    }
}

type Handed = (Principal, State<Arc<Gauge>>, WebSocketUpgrade);

/// Lasts as long as its client sends texts other than `end`; `panic` has it panic.
async fn serve_texts<E>(mut socket: impl Stream<Item = Result<Message, E>> + Unpin) {
    while let Some(Ok(Message::Text(text))) = socket.next().await {
        match text.as_str() {
            "end" => return,
            // Without the hook of panics, which would tell of each.
            "panic" => resume_unwind(Box::new("the session panics")),
            _ => {}
        }
    }
}

async fn plain((principal, State(gauge), upgrade): Handed) -> AxumResponse {
    let session = Session::begin(gauge, principal);
    upgrade.on_upgrade(async move |socket: WebSocket| {
        let _session = session;
        serve_texts(socket).await;
    })
}

async fn guarded((principal, State(gauge), upgrade): Handed) -> AxumResponse {
    let session = Session::begin(gauge, principal.guard());
    upgrade.on_upgrade(async move |socket: WebSocket| {
        serve_texts(GuardedSocket::<_, Axum>::new(socket, session.held.clone())).await;
    })
}

async fn panics((principal, State(gauge), _): Handed) -> AxumResponse {
    let _session = Session::begin(gauge, principal);
    yield_now().await;
    resume_unwind(Box::new("the handler panics"))
}

async fn refuses((principal, State(gauge), _): Handed) -> AxumResponse {
    let _session = Session::begin(gauge, principal);
    yield_now().await;
    let mut response = AxumResponse::default();
    *response.status_mut() = 403.try_into().expect("a status");
    response
}

/// Serves sessions of one key, of which three may be open at once, behind both layers.
async fn capped(gauge: &Arc<Gauge>) -> (SocketAddr, String) {
    let keys = Keys::new(MemoryStore::new());
    let issued = issue(&keys, Plan::default().with_max_sessions(3)).await;
    let api = Router::new()
        .route("/plain", any(plain))
        .route("/guarded", any(guarded))
        .route("/panics", any(panics))
        .route("/refuses", any(refuses))
        .with_state(Arc::clone(gauge));
    // An inner service that fails, after it has begun a session.
    let gauge = Arc::clone(gauge);
    let api = tower::service_fn(move |mut request: Request<AxumBody>| {
        let (api, gauge) = (api.clone(), Arc::clone(&gauge));
        async move {
            if request.uri().path() != "/fails" {
                let Ok(response) = api.oneshot(request).await;
                return Ok(response);
            }
            let principal = request.extensions_mut().remove::<Principal>().expect("a principal");
            let _session = Session::begin(gauge, principal);
            yield_now().await;
            Err(io::Error::other("the service fails"))
        }
    });
    let limits = LimitLayer::new(MemoryLimits::new());
    let app = RealtimeAuthLayer::new(keys).layer(limits.layer(api));
    let app = app.map_request(|request: Request<hyper::body::Incoming>| request.map(AxumBody::new));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(app.clone());
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                // Most connections end badly here.
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, issued.key().expose().to_owned())
}

/// A client of one session.
struct Client(TcpStream);

impl Client {
    /// Sends this much of a handshake.
    async fn send(address: SocketAddr, bytes: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(bytes).await.expect("written");
        Self(stream)
    }

    /// The status of the answer; `None` where the connection ends without one.
    async fn status(&mut self) -> Option<u16> {
        let mut line = *b"HTTP/1.1 200";
        let read = timeout(SOON, self.0.read_exact(&mut line)).await.expect("an answer in time");
        let text = std::str::from_utf8(&line).expect("text");
        read.ok().map(|_| text[9..].parse().expect("a status"))
    }

    /// Sends what the server may no longer read.
    async fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// Reads until the server has ended the connection.
    async fn ended(&mut self) {
        let mut rest = Vec::new();
        let _ = timeout(SOON, self.0.read_to_end(&mut rest)).await.expect("the end in time");
    }

    /// Ends the connection by a reset instead of a FIN.
    fn reset(self) {
        self.0.set_zero_linger().expect("a socket");
    }
}

fn request(path: &str, key: &str) -> Vec<u8> {
    handshake(path, &[("Authorization", &format!("Bearer {key}"))]).into_bytes()
}

/// Begins one session, or is refused, and ends it in a way by chance. What is returned stays open.
async fn live_and_die(address: SocketAddr, key: &str, dice: &mut Dice) -> Option<Client> {
    let path = ["/plain", "/guarded"][dice.below(2) as usize];
    let whole = request(path, key);
    let way = dice.below(14);
    match way {
        // Gone before its head is complete.
        0 => {
            let part = dice.below(whole.len() as u64) as usize;
            let client = Client::send(address, &whole[..part]).await;
            if dice.below(2) == 0 {
                client.reset();
            }
            return None;
        }
        // Gone before it is answered: at once, or when the server is at it.
        1 | 2 => {
            let client = Client::send(address, &whole).await;
            for _ in 0..dice.below(6) {
                yield_now().await;
            }
            if way == 1 {
                client.reset();
            }
            return None;
        }
        3..=5 => {
            let path = ["/panics", "/refuses", "/fails"][way as usize - 3];
            let status = Client::send(address, &request(path, key)).await.status().await;
            let ended = if path == "/refuses" { Some(403) } else { None };
            assert!(status == ended || status == Some(429), "{path}: {status:?}");
            return None;
        }
        _ => {}
    }
    let mut client = Client::send(address, &whole).await;
    let status = client.status().await.expect("an answer");
    if status != 101 {
        assert_eq!(status, 429);
        return None;
    }
    match way {
        6 => {}
        7 => client.reset(),
        // Within a frame.
        8 | 9 => {
            let frame = masked(TEXT, &[b'x'; 200]);
            client.write(&frame[..1 + dice.below(frame.len() as u64 - 1) as usize]).await;
            if way == 9 {
                client.reset();
            }
        }
        10 => {
            client.write(&masked(CLOSE, &1000_u16.to_be_bytes())).await;
            client.ended().await;
        }
        11 | 12 => {
            client.write(&masked(TEXT, if way == 11 { b"panic" } else { b"end" })).await;
            client.ended().await;
        }
        _ => {
            client.write(&masked(TEXT, b"still here")).await;
            return Some(client);
        }
    }
    None
}

/// T26 over sockets: 10,000 sessions at a cap of 3, killed at every point.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_sockets_are_never_more_than_three_sessions_and_never_stuck() {
    let gauge = Arc::new(Gauge::default());
    let (address, key) = capped(&gauge).await;
    let tasks: Vec<_> = (1..=8)
        .map(|seed| {
            let (gauge, key) = (Arc::clone(&gauge), key.clone());
            tokio::spawn(async move {
                let (mut dice, mut kept) = (Dice(seed), None);
                while gauge.begun.load(SeqCst) < SESSIONS {
                    let lived = live_and_die(address, &key, &mut dice).await;
                    // One that is kept lasts as long as the next one.
                    drop(std::mem::replace(&mut kept, lived));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(gauge.most.load(SeqCst), CAP, "never more, and as many as may be");

    // The whole cap is free again, as soon as the server has seen who is gone.
    let whole = request("/plain", &key);
    let begin = async || {
        let mut client = Client::send(address, &whole).await;
        let status = client.status().await;
        (client, status)
    };
    let mut open = Vec::new();
    let all_free = async {
        while open.len() < CAP {
            match begin().await {
                (client, Some(101)) => open.push(client),
                _ => yield_now().await,
            }
        }
    };
    timeout(SOON, all_free).await.expect("three places are free again");
    for _ in 0..10 {
        assert_eq!(begin().await.1, Some(429));
    }
    assert_eq!((gauge.open.load(SeqCst), gauge.most.load(SeqCst)), (CAP, CAP));
}
