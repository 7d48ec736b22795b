//! Peers that are refused by a close code and then behave as they like: none of them keeps a task
//! or a place, and each was told why.

mod support;

use std::{convert::Infallible, net::SocketAddr, sync::LazyLock, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use support::{Body, CountingRuntime, Inner, Raw, SOON, handshake, masked, serve};
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    sync::{Mutex, watch},
    time::{Instant, timeout},
};
use tower::{Layer, Service};
use tower_realtime_auth::{
    Closing, MemoryStore, RealtimeAuthLayer, Runtime,
    http::{Request, Response},
};

/// How many peers are refused at once: 2,000, or as many as the process may have sockets for, two
/// for each peer.
static PEERS: LazyLock<usize> = LazyLock::new(|| {
    const WANTED: usize = 2_000;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = open_files.and_then(|limits| limits.split_whitespace().next()?.parse().ok());
    let possible = soft.map_or(WANTED, |files: usize| files.saturating_sub(100) / 2);
    if possible < WANTED {
        eprintln!("only {possible} peers at once: `ulimit -n` allows no more");
    }
    possible.min(WANTED)
});

/// One crowd of peers at a time.
static CROWD: Mutex<()> = Mutex::const_new(());

/// Bounds that let all of them wait at once, and floods end before they take long.
fn roomy() -> Closing {
    Closing::default().with_max_lingering(4_096).with_max_drained(64 * 1_024)
}

/// A layer that refuses everybody, as it knows no key.
fn refusing(runtime: impl Runtime, closing: Closing) -> RealtimeAuthLayer<MemoryStore> {
    RealtimeAuthLayer::new_with_runtime(MemoryStore::new(), runtime).with_closing(closing)
}

/// A runtime on which deadlines pass when the test says so, whatever the machine's clock does.
#[derive(Clone)]
struct Timeless {
    tasks: CountingRuntime,
    over: watch::Sender<bool>,
}

impl Timeless {
    fn new() -> Self {
        Self { tasks: CountingRuntime::default(), over: watch::Sender::new(false) }
    }

    /// All deadlines pass.
    fn end_of_time(&self) {
        self.over.send_replace(true);
    }
}

impl Runtime for Timeless {
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        let mut over = self.over.subscribe();
        Box::pin(async move {
            // Without a sender, time has come to an end as well.
            let _ = over.wait_for(|over| *over).await;
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.tasks.spawn(task);
    }
}

/// What peers do once they are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// Answers the Close and waits for the end, as it should.
    Clean,
    /// Sent its Close together with the handshake.
    Hasty,
    /// Answers the Close behind other frames and byte by byte.
    Dribbling,
    /// Sends nothing.
    Silent,
    /// Sends nothing either, not even the body that it announced.
    WithoutItsBody,
    /// Sends half a frame.
    Stuck,
    /// Sends frames without end, and no Close.
    Flooding,
    /// Sends a frame that is not masked.
    Unmasked,
    /// Sends HTTP.
    Http,
    /// Resets the connection.
    Vanishing,
    /// Ends its side of the connection, without a Close.
    HangingUp,
}

impl Peer {
    const ALL: [Self; 11] = [
        Self::Clean,
        Self::Hasty,
        Self::Dribbling,
        Self::Silent,
        Self::WithoutItsBody,
        Self::Stuck,
        Self::Flooding,
        Self::Unmasked,
        Self::Http,
        Self::Vanishing,
        Self::HangingUp,
    ];

    /// Whether only the deadline ends it.
    fn is_waited_for(self) -> bool {
        matches!(self, Self::Silent | Self::WithoutItsBody | Self::Stuck)
    }

    /// A connection on which this peer's handshake was completed, to be refused.
    async fn arrive(self, address: SocketAddr) -> Raw {
        let body: &[_] = match self {
            Self::WithoutItsBody => &[("Content-Length", "10")],
            _ => &[],
        };
        let mut bytes = handshake("/v1/realtime?api_key=unknown", body).into_bytes();
        if self == Self::Hasty {
            bytes.extend(masked(0x88, &[]));
        }
        let (raw, head) = Raw::send(address, &bytes).await;
        assert_eq!(head.status, 101, "{self:?}");
        raw
    }

    /// Does what this peer does; answers the connection if there is one left to read from.
    async fn act(self, mut raw: Raw) -> Option<Raw> {
        let close = masked(0x88, &4001_u16.to_be_bytes());
        let stream = &mut raw.stream;
        let written = match self {
            Self::Silent | Self::WithoutItsBody | Self::Hasty => Ok(()),
            Self::Clean => stream.write_all(&close).await,
            Self::Dribbling => {
                stream.write_all(&masked(0x82, &[0x88; 300])).await.expect("written");
                stream.set_nodelay(true).expect("set");
                for byte in close {
                    stream.write_all(&[byte]).await.expect("written");
                }
                Ok(())
            }
            Self::Stuck => stream.write_all(&close[..5]).await,
            Self::Unmasked => stream.write_all(b"\x81\x02hi").await,
            Self::Http => stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await,
            Self::HangingUp => stream.shutdown().await,
            Self::Flooding => {
                let frame = masked(0x82, &[0; 4_096]);
                while stream.write_all(&frame).await.is_ok() {}
                Ok(())
            }
            Self::Vanishing => {
                is_told(&mut raw).await;
                raw.stream.set_zero_linger().expect("set");
                return None;
            }
        };
        written.expect("written");
        Some(raw)
    }
}

/// Reads what a refused peer is told: the error event, then the Close.
async fn is_told(raw: &mut Raw) {
    let (first, event) = raw.frame().await.expect("the error event");
    assert_eq!(first, 0x81);
    let event: serde_json::Value = serde_json::from_slice(&event).expect("JSON");
    assert_eq!(event["type"], "error");
    assert_eq!(event["error"]["code"], "invalid_api_key");

    let (first, close) = raw.frame().await.expect("the Close");
    assert_eq!(first, 0x88);
    let (code, reason) = close.split_at(2);
    assert_eq!(code, 4001_u16.to_be_bytes());
    assert!(reason.starts_with(b"Unauthorized"));
}

/// Reads that, then the end of the connection.
async fn is_told_and_left(mut raw: Raw) {
    is_told(&mut raw).await;
    assert!(raw.rest().await.is_empty(), "something came after the Close");
}

/// All `futures` at once, within a time that is long for thousands of them.
async fn at_once<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    timeout(6 * SOON, join_all(futures)).await.expect("in time")
}

/// For each kind, 2,000 connections at once, all of them refused before the first one acts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_peer_leaves_anything_behind() {
    let (_turn, peers) = (CROWD.lock().await, *PEERS);
    for peer in Peer::ALL {
        let runtime = Timeless::new();
        let inner = Inner::default();
        let layer = refusing(runtime.clone(), roomy());
        let address = serve(layer.layer(inner.clone())).await;

        let raws = at_once((0..peers).map(|_| peer.arrive(address))).await;
        assert_eq!(runtime.tasks.spawned(), peers, "{peer:?}");
        if peer != Peer::Hasty {
            assert_eq!(layer.lingering(), peers, "{peer:?}: all wait at once");
        }
        let raws = at_once(raws.into_iter().map(|raw| peer.act(raw))).await;

        if peer.is_waited_for() {
            // One that answers comes and goes; those that do not are still waited for.
            let clean = Peer::Clean.arrive(address).await;
            let clean = Peer::Clean.act(clean).await.expect("a connection");
            is_told_and_left(clean).await;
            runtime.tasks.at_most(peers).await;
            assert_eq!(layer.lingering(), peers, "{peer:?}: left before the deadline");
            runtime.end_of_time();
        }
        // For all others, time stands still: what they do is what ends them.
        runtime.tasks.idle().await;
        assert_eq!(layer.lingering(), 0, "{peer:?}");
        at_once(raws.into_iter().flatten().map(is_told_and_left)).await;
        assert_eq!(inner.calls(), 0);
    }
}

/// The same by the clock: 2,000 silent peers, and a deadline of one second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_peers_are_left_at_the_deadline() {
    let (_turn, peers) = (CROWD.lock().await, *PEERS);
    let deadline = Duration::from_secs(1);
    let runtime = CountingRuntime::default();
    let layer = refusing(runtime.clone(), roomy().with_deadline(deadline));
    let address = serve(layer.layer(Inner::default())).await;

    let raws = at_once((0..peers - 1).map(|_| Peer::Silent.arrive(address))).await;
    let before_the_last = Instant::now();
    let last = Peer::Silent.arrive(address).await;
    runtime.idle().await;
    assert!(before_the_last.elapsed() >= deadline, "a peer was left before the deadline");
    assert_eq!((runtime.spawned(), layer.lingering()), (peers, 0));
    at_once(raws.into_iter().chain([last]).map(is_told_and_left)).await;
}

/// With a deadline that no test would wait for, and the machine's clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_answer_the_close_are_left_at_once() {
    let (_turn, peers) = (CROWD.lock().await, *PEERS);
    let runtime = CountingRuntime::default();
    let layer = refusing(runtime.clone(), roomy().with_deadline(Duration::from_secs(60)));
    let address = serve(layer.layer(Inner::default())).await;

    at_once((0..peers).map(async |_| {
        let raw = Peer::Clean.arrive(address).await;
        let raw = Peer::Clean.act(raw).await.expect("a connection");
        is_told_and_left(raw).await;
    }))
    .await;
    runtime.idle().await;
    assert_eq!((runtime.spawned(), layer.lingering()), (peers, 0));
}

/// Past the cap a refusal is a status, which needs no task; a place that is free is used again.
#[tokio::test]
async fn past_the_cap_a_refusal_is_a_status() {
    let runtime = Timeless::new();
    let layer = refusing(runtime.clone(), Closing::default().with_max_lingering(2));
    let address = serve(layer.layer(Inner::default())).await;

    let first = Peer::Clean.arrive(address).await;
    let second = Peer::Silent.arrive(address).await;
    assert_eq!(layer.lingering(), 2);

    let request = handshake("/v1/realtime?api_key=unknown", &[]);
    let (mut third, head) = Raw::send(address, request.as_bytes()).await;
    assert_eq!(head.status, 401);
    assert_eq!(head.all("connection"), ["close"]);
    assert!(String::from_utf8(third.rest().await).unwrap().contains("invalid_api_key"));
    assert_eq!((runtime.tasks.spawned(), layer.lingering()), (2, 2));

    let first = Peer::Clean.act(first).await.expect("a connection");
    is_told_and_left(first).await;
    runtime.tasks.at_most(1).await;
    assert_eq!(layer.lingering(), 1);

    let fourth = Peer::Silent.arrive(address).await;
    assert_eq!(layer.lingering(), 2);
    runtime.end_of_time();
    runtime.tasks.idle().await;
    assert_eq!(layer.lingering(), 0);
    at_once([second, fourth].into_iter().map(is_told_and_left)).await;
}

/// None at all may linger: every refusal is a status.
#[tokio::test]
async fn a_cap_of_none_closes_nobody() {
    let runtime = CountingRuntime::default();
    let layer = refusing(runtime.clone(), Closing::default().with_max_lingering(0));
    let address = serve(layer.layer(Inner::default())).await;
    let request = handshake("/v1/realtime?api_key=unknown", &[]);
    let (_, head) = Raw::send(address, request.as_bytes()).await;
    assert_eq!((head.status, runtime.spawned()), (401, 0));
}

/// The cap is one for all services that a layer made, and for its clones.
#[tokio::test]
async fn services_of_one_layer_share_the_cap() {
    let runtime = Timeless::new();
    let layer = refusing(runtime.clone(), Closing::default().with_max_lingering(1));
    let one = serve(layer.layer(Inner::default())).await;
    let other = serve(layer.clone().layer(Inner::default())).await;

    let _silent = Peer::Silent.arrive(one).await;
    let request = handshake("/v1/realtime?api_key=unknown", &[]);
    let (_, head) = Raw::send(other, request.as_bytes()).await;
    assert_eq!(head.status, 401);
    runtime.end_of_time();
    runtime.tasks.idle().await;
}

/// A server that cannot upgrade ends the connection behind the 101; nothing waits for it.
#[tokio::test]
async fn a_server_without_upgrades_keeps_no_task() {
    let runtime = Timeless::new();
    let layer = refusing(runtime.clone(), Closing::default());
    let address = serve_without_upgrades(layer.layer(Inner::default())).await;

    let mut raw = Peer::Silent.arrive(address).await;
    assert!(raw.rest().await.is_empty());
    runtime.tasks.idle().await;
    assert_eq!((runtime.tasks.spawned(), layer.lingering()), (1, 0));
}

/// Serves one connection over HTTP/1.1, as a server that forgot `with_upgrades` does.
async fn serve_without_upgrades<S>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let service = TowerToHyperService::new(service);
        // How it ends is the client's to judge.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
    address
}
