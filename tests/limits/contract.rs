//! What Tower expects, and what happens when the store fails.

use std::{
    error::Error,
    fmt,
    future::{pending, poll_fn},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use futures_util::{FutureExt, future::poll_immediate};
use http_body_util::BodyExt;
use support::json;
use tokio::sync::oneshot;
use tower::limit::ConcurrencyLimit;
use tower_realtime_auth::{
    Answer, Budget, Counted, Demand, Held, LimitHeaders, LimitStore, MemoryLimits, Payer,
    Reservation, Rules, Standing, StoreError, Take, Taken, Usage, UsageRefused, bytes::Bytes,
};
use tower_test::mock;

use super::*;

/// A store whose answers a function makes.
struct LimitFn<F>(F);

impl<F> LimitStore for LimitFn<F>
where
    F: Fn(&[Demand], UnixMillis) -> Take + Send + Sync + 'static,
{
    fn take(&self, demands: &[Demand], now: UnixMillis) -> Take {
        (self.0)(demands, now)
    }
}

/// A layer whose store gives its first answer when the returned sender says so.
fn asked_twice() -> (LimitLayer, oneshot::Sender<()>) {
    let (tell, told) = oneshot::channel();
    let (limits, first) = (MemoryLimits::new(), Mutex::new(Some(told)));
    let store = LimitFn(move |demands: &[Demand], now| {
        let taken = limits.take(demands, now);
        match first.lock().expect("no panic").take() {
            None => taken,
            Some(told) => Answer::pending(async move {
                told.await.map_err(StoreError::new)?;
                taken.await
            }),
        }
    });
    (LimitLayer::new(store), tell)
}

fn hundred() -> Arc<KeyRecord> {
    record(Plan::default().with_requests_per_minute(100).with_max_sessions(1))
}

async fn ready<S>(service: &mut S) -> &mut S
where
    S: Service<Request<()>>,
    S::Error: fmt::Debug,
{
    service.ready().await.expect("a service that gets ready")
}

/// `ConcurrencyLimit` panics if a clone is called that was not polled ready.
#[tokio::test]
async fn the_service_that_was_ready_is_the_one_that_is_called() {
    let (inner, record) = (Inner::default(), hundred());
    let (layer, tell) = asked_twice();
    let mut service = layer.layer(ConcurrencyLimit::new(inner.clone(), 1));

    let mut pending = ready(&mut service).await.call(request_of(&record));
    assert!(poll_immediate(&mut pending).await.is_none(), "the store has not answered");
    assert_eq!(inner.calls(), 0);

    // The request that waits holds the only place.
    let is_ready = poll_fn(|cx| Poll::Ready(Service::<Request<()>>::poll_ready(&mut service, cx)));
    assert!(is_ready.await.is_pending());

    tell.send(()).unwrap();
    assert_eq!(pending.await.unwrap().status(), 200);
    let at_once = ready(&mut service).await.call(request_of(&record));
    assert_eq!(at_once.await.unwrap().status(), 200);
    assert_eq!(inner.calls(), 2);
}

/// Who gives up while the store is asked gives back the inner service's place, and the session's.
#[tokio::test]
async fn a_dropped_request_gives_its_places_back() {
    let (inner, record) = (Inner::default(), hundred());
    let (layer, _tell) = asked_twice();
    let mut service = layer.layer(ConcurrencyLimit::new(inner.clone(), 1));

    let mut pending = ready(&mut service).await.call(handshake_of(&record));
    assert!(poll_immediate(&mut pending).await.is_none());
    drop(pending);

    let response = ready(&mut service).await.call(handshake_of(&record)).await;
    assert_eq!(response.unwrap().status(), 101);
    assert_eq!(inner.calls(), 1);
}

/// A refusal uses no place of the inner service up.
#[tokio::test]
async fn a_refused_request_leaves_the_place_to_the_next() {
    let record = record(Plan::default().with_requests_per_minute(1));
    let layer = LimitLayer::new(MemoryLimits::new()).with_clock(ManualClock::new(NOON));
    let mut service = layer.layer(ConcurrencyLimit::new(Inner::default(), 1));
    for status in [200, 429, 429] {
        let response = ready(&mut service).await.call(request_of(&record)).await;
        assert_eq!(response.unwrap().status(), status);
    }
}

/// The error that the inner service fails with: to be found again as it is.
#[derive(Debug, PartialEq)]
struct Mine(u8);

impl fmt::Display for Mine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mine {}", self.0)
    }
}

impl Error for Mine {}

#[tokio::test]
async fn readiness_and_errors_are_the_inner_services() {
    let layer = LimitLayer::new(MemoryLimits::new());
    let (mut service, mut handle) = mock::spawn_layer::<Request<()>, Response<Body>, _>(layer);
    handle.allow(0);
    assert!(service.poll_ready::<Request<()>>().is_pending());
    handle.allow(1);
    assert!(service.is_woken(), "readiness wakes the caller");
    assert!(matches!(service.poll_ready::<Request<()>>(), Poll::Ready(Ok(()))));

    let response = tokio::spawn(service.call(request_of(&hundred())));
    let (_, answer) = handle.next_request().await.expect("the request");
    answer.send_error(Mine(2));
    let error = response.await.unwrap().expect_err("the error");
    assert_eq!(error.downcast_ref(), Some(&Mine(2)));

    handle.send_error(Mine(1));
    let Poll::Ready(Err(error)) = service.poll_ready::<Request<()>>() else { panic!("no error") };
    assert_eq!(error.downcast_ref(), Some(&Mine(1)));
}

// ---- A store that fails ----

type Fault = fn(&[Demand], UnixMillis) -> Take;

const FAULTS: [(&str, Fault); 5] = [
    ("fails", |_, _| Answer::ready(Err(StoreError::new("out of order")))),
    ("fails later", |_, _| Answer::pending(async { Err(StoreError::new("out of order")) })),
    // Without the hook of panics, which would tell of it.
    ("panics", |_, _| std::panic::resume_unwind(Box::new("out of order"))),
    ("panics later", |_, _| {
        Answer::pending(async { std::panic::resume_unwind(Box::new("out of order")) })
    }),
    ("hangs", |_, _| Answer::pending(pending())),
];

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_refuses_with_503() {
    for (what, fault) in FAULTS {
        let layer = LimitLayer::new(LimitFn(fault)).with_deadline(Duration::from_millis(300));
        let (service, inner) = limited(&layer);
        for request in [request_of(&hundred()), handshake_of(&hundred())] {
            let began = tokio::time::Instant::now();
            let response = service.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 503, "{what}");
            assert_eq!(kind(&response), Some(RejectionKind::LimitsUnavailable), "{what}");
            assert_eq!(header(&response, "retry-after"), Some("1"), "{what}");
            assert_eq!(began.elapsed().as_millis(), if what == "hangs" { 300 } else { 0 });
            let json = json(response).await;
            assert_eq!(json["error"]["code"], "service_unavailable");
            assert!(!json.to_string().contains("out of order"));
        }
        assert_eq!(inner.calls(), 0, "{what}");
        // Who has no limits does not need the store.
        let free = record(Plan::default());
        let response = service.oneshot(request_of(&free)).await.unwrap();
        assert_eq!(response.status(), 200, "{what}");
    }
}

/// Letting through must be asked for by its name.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_lets_through_if_that_is_wanted() {
    for (what, fault) in FAULTS {
        let (service, inner) = limited(&LimitLayer::new(LimitFn(fault)).with_failing_open(true));
        let response = service.clone().oneshot(handshake_of(&hundred())).await.unwrap();
        assert_eq!((response.status().as_u16(), inner.calls()), (101, 1), "{what}");
    }
}

/// Usage is no exception.
#[tokio::test(start_paused = true)]
async fn usage_fails_as_requests_do() {
    for (what, fault) in FAULTS {
        for failing_open in [false, true] {
            // What reads is answered, what takes is not.
            let limits = MemoryLimits::new();
            let store = LimitFn(move |demands: &[Demand], now| {
                let reads = demands.iter().all(|demand| demand.amount() == 0);
                if reads { limits.take(demands, now) } else { fault(demands, now) }
            });
            let reserves = tower::service_fn(async |request: Request<()>| {
                let usage = request.extensions().get::<Usage>().expect("the usage");
                let reserved = usage.reserve(1).await;
                let is_refused = reserved.map_err(|refused| refused.response::<Body>());
                Ok::<_, Infallible>(is_refused.err().unwrap_or_default())
            });
            let layer = LimitLayer::new(store).with_failing_open(failing_open);
            let record = record(Plan::default().with_usage_per_month(1));
            let response = layer.layer(reserves).oneshot(request_of(&record)).await.unwrap();
            let expected = if failing_open { 200 } else { 503 };
            assert_eq!(response.status(), expected, "{what}");
        }
    }
}

/// A session that ends does not end the process, whatever its store does.
#[tokio::test]
async fn a_store_that_panics_at_an_end_is_survived() {
    static ENDS: AtomicUsize = AtomicUsize::new(0);
    let store = LimitFn(|demands: &[Demand], _| {
        let standings = demands.iter().map(|demand| Standing::new(demand.limit(), 1, None));
        let held = Held::new(|| {
            ENDS.fetch_add(1, SeqCst);
            std::panic::resume_unwind(Box::new("out of order"));
        });
        Answer::ready(Ok(Taken::Granted { standings: standings.collect(), held }))
    });
    let (service, _) = limited(&LimitLayer::new(store));
    let session = tokio::spawn(async move {
        let _response = answer(&service, handshake_of(&hundred()));
        std::panic::resume_unwind(Box::new("the session panics"));
    });
    assert!(session.await.unwrap_err().is_panic());
    assert_eq!(ENDS.load(SeqCst), 1);
}

// ---- Types ----

#[tokio::test]
async fn refusals_come_in_the_inner_services_body_type() {
    let none = record(Plan::default().with_requests_per_minute(0));
    let layer = LimitLayer::new(MemoryLimits::new()).with_body(|bytes: Bytes| {
        axum::body::Body::from(format!("mine: {}", String::from_utf8_lossy(&bytes)))
    });
    let inner = tower::service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(axum::body::Body::empty()))
    });
    let response = layer.layer(inner).oneshot(request_of(&none)).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(br#"mine: {"error":"#), "{body:?}");
}

/// Checked when this is compiled.
macro_rules! are {
    (($($bound:tt)*): $($type:ty),* $(,)?) => {
        const _: () = {
            const fn check<T: $($bound)*>() {}
            $(check::<$type>();)*
        };
    };
}

type Future = <LimitService<Inner> as Service<Request<()>>>::Future;

are!((Clone + fmt::Debug + Send + Sync + Unpin + 'static):
    LimitLayer, LimitLayer<fn(Bytes) -> Body>, LimitService<Inner>, MemoryLimits, Usage,
    UsageRefused, Budget, Counted, Demand, Payer, Rules, Standing, LimitHeaders,
);
are!((fmt::Debug + Send + Sync + Unpin + 'static): Taken, Held, Reservation);
are!((fmt::Debug + Send + Unpin + 'static): Take, Future);
are!((Error): UsageRefused);
are!((Send + Sync + ?Sized): dyn LimitStore);

#[test]
fn limits_are_kept_behind_pointers_too() {
    let shared: Arc<dyn LimitStore> = Arc::new(MemoryLimits::new());
    let (service, _) = limited(&LimitLayer::new(Arc::clone(&shared)));
    let (other, _) = limited(&LimitLayer::new(Box::new(shared) as Box<dyn LimitStore>));
    let record = record(Plan::default().with_max_sessions(1));
    let session = answer(&service, handshake_of(&record));
    assert_eq!(answer(&other, handshake_of(&record)).status(), 429);
    drop(session);
    assert_eq!(answer(&other, handshake_of(&record)).status(), 101);
    assert!(format!("{service:?}").starts_with("LimitService"));
    let now = async { MemoryLimits::new().take(&[], NOON).await }.now_or_never();
    assert!(matches!(now, Some(Ok(Taken::Granted { .. }))), "nothing is always there");
}
