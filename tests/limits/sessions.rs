//! Sessions at once: never more than there may be, and none that is stuck.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::{
        Request as AxumRequest, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    response::Response as AxumResponse,
    routing::any,
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, poll};
use support::{Raw, SOON, handshake, json, masked};
use tokio::{sync::mpsc, task::yield_now};
use tower_realtime_auth::{
    Answer, Demand, Environment, GuardedSocket, LimitStore, MemoryLimits, RealtimeAuthLayer, Take,
};

use super::*;

tower_realtime_auth::wire!(struct Axum for axum::extract::ws);

const CAP: usize = 3;

fn capped() -> Arc<KeyRecord> {
    record(Plan::default().with_max_sessions(3))
}

/// Answers at once, or takes later, or takes at once and answers later.
struct Dawdling(MemoryLimits, AtomicU64);

impl LimitStore for Dawdling {
    fn take(&self, demands: &[Demand], now: UnixMillis) -> Take {
        let (limits, demands) = (self.0.clone(), demands.to_vec());
        match self.1.fetch_add(1, SeqCst) % 3 {
            0 => limits.take(&demands, now),
            1 => Answer::pending(async move {
                yield_now().await;
                limits.take(&demands, now).await
            }),
            _ => {
                let taken = limits.take(&demands, now);
                Answer::pending(async move {
                    yield_now().await;
                    taken.await
                })
            }
        }
    }
}

/// A handler of sessions that counts those that are open.
#[derive(Clone, Default)]
struct Sessions(Arc<Gauge>);

#[derive(Default)]
struct Gauge {
    open: AtomicUsize,
    most: AtomicUsize,
}

/// Open until it is dropped; the place is given back after it was counted out.
struct Session {
    gauge: Arc<Gauge>,
    _principal: Principal,
}

impl Session {
    fn begin(gauge: &Arc<Gauge>, principal: Principal) -> Self {
        let open = gauge.open.fetch_add(1, SeqCst) + 1;
        gauge.most.fetch_max(open, SeqCst);
        Self { gauge: Arc::clone(gauge), _principal: principal }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.gauge.open.fetch_sub(1, SeqCst);
    }
}

impl Service<Request<()>> for Sessions {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        let principal = request.extensions_mut().remove::<Principal>().expect("a principal");
        let session = Session::begin(&self.0, principal);
        async move {
            yield_now().await;
            let mut response = Response::new(Body::default());
            *response.status_mut() = match request.uri().path() {
                "/refused" => 403.try_into().expect("a status"),
                // Without the hook of panics, which would tell of each.
                "/panics" => resume_unwind(Box::new("the handler panics")),
                _ => {
                    response.extensions_mut().insert(Arc::new(session));
                    response.headers_mut().insert("upgrade", "websocket".parse().expect("a value"));
                    101.try_into().expect("a status")
                }
            };
            Ok(response)
        }
        .boxed()
    }
}

fn to(record: &Arc<KeyRecord>, path: &str) -> Request<()> {
    let mut request = handshake_of(record);
    *request.uri_mut() = path.parse().expect("a path");
    request
}

/// T26: 10,000 sessions at a cap of 3, killed at every point.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_sessions_are_never_more_than_three_and_never_stuck() {
    let limits = MemoryLimits::new();
    let layer = LimitLayer::new(Dawdling(limits.clone(), AtomicU64::new(0)));
    let sessions = Sessions::default();
    let service = layer.layer(sessions.clone());
    let record = capped();
    let (began, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));

    let tasks: Vec<_> = (1..=8)
        .map(|seed| {
            let (service, record) = (service.clone(), Arc::clone(&record));
            let (began, refused) = (Arc::clone(&began), Arc::clone(&refused));
            tokio::spawn(async move {
                let mut dice = Dice(seed);
                let mut kept = Vec::new();
                for _ in 0..1_250 {
                    let way = dice.below(8);
                    let path = ["/refused", "/panics"].get(way as usize).unwrap_or(&"/");
                    let mut asked = Box::pin(service.clone().oneshot(to(&record, path)));
                    if way == 2 {
                        // The client is gone before it is answered: at once, or later.
                        for _ in 0..dice.below(4) {
                            if poll!(&mut asked).is_ready() {
                                break;
                            }
                            yield_now().await;
                        }
                        continue;
                    }
                    let Ok(answered) = AssertUnwindSafe(asked).catch_unwind().await else {
                        continue;
                    };
                    let mut response = answered.unwrap();
                    let Some(session) = response.extensions_mut().remove::<Arc<Session>>() else {
                        refused.fetch_add(usize::from(response.status() == 429), SeqCst);
                        kept.clear();
                        continue;
                    };
                    began.fetch_add(1, SeqCst);
                    match way {
                        3 => drop(session),
                        4 => {
                            let killed = tokio::spawn(async move {
                                let _session = session;
                                yield_now().await;
                                resume_unwind(Box::new("the session panics"));
                            });
                            assert!(killed.await.unwrap_err().is_panic());
                        }
                        5 => {
                            let aborted = tokio::spawn(async move {
                                let _session = session;
                                std::future::pending::<()>().await;
                            });
                            yield_now().await;
                            aborted.abort();
                            assert!(aborted.await.unwrap_err().is_cancelled());
                        }
                        _ => kept.push(session),
                    }
                    if kept.len() > 1 {
                        kept.clear();
                    }
                    yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }

    let (began, refused) = (began.load(SeqCst), refused.load(SeqCst));
    assert!(began > 1_000 && refused > 500, "{began} began, {refused} were refused");
    assert_eq!(sessions.0.most.load(SeqCst), CAP, "never more, and as many as may be");
    assert_eq!(sessions.0.open.load(SeqCst), 0);
    assert_eq!(limits.len(), 0, "nothing is held any more");
    let mut open = Vec::new();
    for status in [101, 101, 101, 429] {
        let response = service.clone().oneshot(to(&record, "/")).await.unwrap();
        assert_eq!(response.status(), status, "the whole cap is free again");
        open.push(response);
    }
}

/// Whoever has a trace of the session holds its place: a clone of the principal, its guard, the
/// socket with that guard.
#[test]
fn a_session_lasts_as_long_as_its_last_trace() {
    let layer = LimitLayer::new(MemoryLimits::new());
    let (service, _) = limited(&layer);
    let record = record(Plan::default().with_max_sessions(1));
    let begin = || {
        let mut response = answer(&service, handshake_of(&record));
        assert_eq!(response.status(), 101);
        response.extensions_mut().remove::<Principal>().expect("the principal")
    };
    let is_taken = || answer(&service, handshake_of(&record)).status() == 429;

    let principal = begin();
    let clone = principal.clone();
    drop(principal);
    assert!(is_taken());
    let guard = clone.guard();
    drop(clone);
    assert!(is_taken());
    let socket = GuardedSocket::<_, Axum>::new((), guard.clone());
    drop(guard);
    assert!(is_taken());
    drop(socket);
    drop(begin());
    assert!(!is_taken());
}

/// A service that keeps nothing of the principal would have sessions that nobody counts.
#[tokio::test]
async fn a_session_whose_place_nobody_holds_does_not_begin() {
    let layer = LimitLayer::new(MemoryLimits::new());
    let careless = tower::service_fn(async |request: Request<()>| {
        let mut response = Response::new(Body::default());
        let status = if request.uri().path() == "/refused" { 403 } else { 101 };
        *response.status_mut() = status.try_into().expect("a status");
        response.headers_mut().insert("upgrade", "websocket".parse().expect("a value"));
        Ok::<_, Infallible>(response)
    });
    let service = layer.layer(careless);
    let plan = Plan::default().with_sessions_per_minute(9).with_usage_per_month(9);
    let (capped, free) = (capped(), record(plan));
    let response = answer(&service, to(&capped, "/"));
    assert_eq!(kind(&response), Some(RejectionKind::Uncounted));
    assert_eq!((response.status().as_u16(), header(&response, "upgrade")), (500, None));
    assert_eq!(header(&response, "connection"), Some("close"), "what follows is not to be read");
    assert_eq!(json(response).await["error"]["code"], "session_not_counted");
    assert_eq!(answer(&service, to(&capped, "/refused")).status(), 403);
    assert_eq!(answer(&service, to(&free, "/")).status(), 101, "nothing is to be held");
}

#[tokio::test]
async fn refused_sessions_say_so() {
    let (service, _) = limited(&LimitLayer::new(MemoryLimits::new()));
    let record = record(Plan::default().with_max_sessions(0));
    let response = answer(&service, handshake_of(&record));
    assert_eq!(response.status(), 429);
    assert_eq!(kind(&response), Some(RejectionKind::TooManySessions));
    assert_eq!(header(&response, "retry-after"), Some("1"));
    assert_eq!(header(&response, "connection"), Some("close"), "the upgrade is over");
    assert_eq!(json(response).await["error"]["code"], "session_limit_exceeded");
    // A plain request is no session.
    assert_eq!(answer(&service, request_of(&record)).status(), 200);
}

/// All keys of an account together, live and test apart.
#[test]
fn an_account_has_a_cap_of_its_own() {
    let layer = LimitLayer::new(MemoryLimits::new()).with_max_sessions_per_account(2);
    let (service, _) = limited(&layer);
    let of = |account: &str, environment| {
        let key = NewKey::secret(account).with_environment(environment);
        let issued = Keys::new(MemoryStore::new()).issue(key).now_or_never();
        Arc::clone(issued.expect("an answer at once").expect("a key").record())
    };
    let (live, test) = (Environment::Live, Environment::Test);
    let mut open = Vec::new();
    for (account, environment, status) in [
        ("acme", live, 101),
        ("acme", live, 101),
        ("acme", live, 429),
        ("acme", test, 101),
        ("other", live, 101),
        ("acme", test, 101),
        ("acme", test, 429),
        ("other", live, 101),
        ("acme", live, 429),
    ] {
        let response = answer(&service, handshake_of(&of(account, environment)));
        assert_eq!(response.status(), status, "{account} {environment:?}");
        open.push(response);
    }
    drop(open);
    assert_eq!(answer(&service, handshake_of(&of("acme", live))).status(), 101);
}

/// A layer inside of another one gives a second place; both last as long as the session.
#[test]
fn layers_in_layers_hold_both_places() {
    let (outer, inner) = (MemoryLimits::new(), MemoryLimits::new());
    let service = LimitLayer::new(outer.clone())
        .layer(LimitLayer::new(inner.clone()).layer(Inner::default()));
    let response = answer(&service, handshake_of(&capped()));
    assert_eq!((outer.len(), inner.len()), (1, 1));
    drop(response);
    assert_eq!((outer.len(), inner.len()), (0, 0));
}

// ---- Over real sockets ----

type Ended = mpsc::UnboundedSender<()>;

async fn session(
    principal: Principal,
    State(ended): State<Ended>,
    upgrade: WebSocketUpgrade,
) -> AxumResponse {
    upgrade.on_upgrade(async move |mut socket: WebSocket| {
        while let Some(Ok(Message::Text(_))) = socket.next().await {}
        drop((socket, principal));
        let _ = ended.send(());
    })
}

/// A peer that closes, one that vanishes, and one that is gone before it is answered.
#[tokio::test]
async fn a_vanished_peer_leaves_its_place() {
    let (tell, mut ended) = mpsc::unbounded_channel();
    let keys = Keys::new(MemoryStore::new());
    let issued = issue(&keys, Plan::default().with_max_sessions(1)).await;
    let limits = MemoryLimits::new();
    let api = Router::new().route("/v1/realtime", any(session)).with_state(tell);
    let app = RealtimeAuthLayer::new(keys).layer(LimitLayer::new(limits.clone()).layer(api));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let make = axum::ServiceExt::<AxumRequest>::into_make_service(app);
    tokio::spawn(async move { axum::serve(listener, make).await });

    let bearer = format!("Bearer {}", issued.key().expose());
    let request = handshake("/v1/realtime", &[("Authorization", &bearer)]);
    let connect = async || Raw::send(address, request.as_bytes()).await;
    for closes in [true, false, true, false] {
        let (mut raw, head) = connect().await;
        assert_eq!(head.status, 101);
        assert_eq!(connect().await.1.status, 429);
        if closes {
            let close = masked(0x88, &1000_u16.to_be_bytes());
            tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &close).await.unwrap();
        }
        drop(raw);
        tokio::time::timeout(SOON, ended.recv()).await.expect("the session ends");
    }
    for _ in 0..20 {
        let mut raw = Raw::connect(address).await;
        tokio::io::AsyncWriteExt::write_all(&mut raw.stream, request.as_bytes()).await.unwrap();
        drop(raw);
    }
    let all_free = async {
        while connect().await.1.status != 101 {
            yield_now().await;
        }
    };
    tokio::time::timeout(SOON, all_free).await.expect("the place is free again");
}
