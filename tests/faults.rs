//! Whatever a store does, nothing passes unjudged: faults are 503 and never 401, and what a sound
//! store answers is decided as the table says.

mod support;

use std::{
    panic::resume_unwind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::poll_immediate;
use support::{
    Body, CountingRuntime, Inner, PLACES, Raw, StoreFn, handshake_with, json, keys_with_secret,
    plain_with, serve, upgrade_with, upgraded,
};
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt};
use tower_realtime_auth::{
    Answer, CredentialSource, Grants, KeyDigest, KeyFormat, KeyId, KeyKind, KeyRecord, KeyStore,
    Keys, Lookup, ManualClock, MemoryStore, NewKey, Parent, Principal, RealtimeAuth,
    RealtimeAuthLayer, Rejection, RejectionKind, StoreError, UnixMillis,
    http::{Request, Response, StatusCode},
};

/// What can go wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Errors,
    ErrorsLater,
    Hangs,
    AnswersTooLate,
    PanicsWhenAsked,
    PanicsWhenPolled,
    PanicsLater,
    IsPoisoned,
}

const FAULTS: [Fault; 8] = [
    Fault::Errors,
    Fault::ErrorsLater,
    Fault::Hangs,
    Fault::AnswersTooLate,
    Fault::PanicsWhenAsked,
    Fault::PanicsWhenPolled,
    Fault::PanicsLater,
    Fault::IsPoisoned,
];

/// The layer's deadline where tokio's time is paused and jumps.
const DEADLINE: Duration = Duration::from_secs(1);

/// A store that knows a key and can be given a fault.
#[derive(Clone)]
struct Faulty(Arc<FaultyInner>);

struct FaultyInner {
    keys: Keys<MemoryStore>,
    fault: Mutex<Option<Fault>>,
    poisonable: Mutex<()>,
}

impl Faulty {
    /// A store without a fault, and a key that it knows.
    async fn with_key() -> (Self, String) {
        let (keys, secret) = keys_with_secret().await;
        let inner = FaultyInner { keys, fault: Mutex::default(), poisonable: Mutex::default() };
        (Self(Arc::new(inner)), secret)
    }

    fn set(&self, fault: Option<Fault>) {
        *self.0.fault.lock().expect("no panic") = fault;
        if fault == Some(Fault::IsPoisoned) {
            let writer = Self::clone(self);
            let panicked = std::thread::spawn(move || {
                let _guard = writer.0.poisonable.lock();
                panic_quietly()
            });
            assert!(panicked.join().is_err());
            assert!(self.0.poisonable.is_poisoned());
        } else {
            self.0.poisonable.clear_poison();
        }
    }
}

impl KeyStore for Faulty {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        let sound = self.0.keys.store().lookup(digest);
        let fault = *self.0.fault.lock().expect("no panic");
        match fault {
            None => sound,
            Some(Fault::Errors) => Answer::ready(Err(StoreError::new("no connection"))),
            Some(Fault::ErrorsLater) => Answer::pending(async {
                tokio::task::yield_now().await;
                Err(StoreError::new("connection lost"))
            }),
            Some(Fault::Hangs) => Answer::pending(std::future::pending()),
            Some(Fault::AnswersTooLate) => Answer::pending(async {
                tokio::time::sleep(DEADLINE + Duration::from_millis(1)).await;
                sound.await
            }),
            Some(Fault::PanicsWhenAsked) => panic_quietly(),
            Some(Fault::PanicsWhenPolled) => Answer::pending(async { panic_quietly() }),
            Some(Fault::PanicsLater) => Answer::pending(async {
                tokio::task::yield_now().await;
                panic_quietly()
            }),
            // As most stores treat their locks: they unwrap.
            Some(Fault::IsPoisoned) => {
                drop(self.0.poisonable.lock().unwrap_or_else(|_| panic_quietly()));
                sound
            }
        }
    }
}

/// A panic without the message on standard error, of which there would be thousands.
fn panic_quietly() -> ! {
    resume_unwind(Box::new("the store panics"))
}

/// Every request that can carry `key`: plain and as a handshake, in each place.
fn requests(key: &str) -> Vec<(String, Request<()>)> {
    let mut all = Vec::new();
    for place in PLACES {
        all.push((format!("handshake, {place}"), upgrade_with(place, key)));
        if place != CredentialSource::Subprotocol {
            all.push((format!("plain, {place}"), plain_with(place, key)));
        }
    }
    all
}

// ---- Faults ----

/// The answer to `request`, which must come while the clock is paused: time jumps to the earliest
/// deadline, so a request that waits for ever fails here and does not hang the test.
async fn answer<S: KeyStore>(
    service: &RealtimeAuth<Inner, S>,
    request: Request<()>,
) -> Response<Body> {
    let answer = timeout(10 * DEADLINE, service.clone().oneshot(request)).await;
    answer.expect("an answer in time").expect("no error")
}

#[tokio::test(start_paused = true)]
async fn a_faulty_store_is_503_and_the_next_request_is_let_through() {
    let (store, secret) = Faulty::with_key().await;
    let (inner, runtime) = (Inner::default(), CountingRuntime::default());
    let layer = RealtimeAuthLayer::new_with_runtime(store.clone(), runtime.clone());
    let service = layer.with_lookup_deadline(DEADLINE).layer(inner.clone());

    for fault in FAULTS {
        for (what, request) in requests(&secret) {
            let before = inner.calls();
            store.set(Some(fault));
            let refused = answer(&service, request.clone()).await;
            assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{fault:?}, {what}");
            assert_eq!(refused.headers()["retry-after"], "1");
            assert_eq!(refused.headers()["content-type"], "application/json");
            assert_eq!(refused.headers()["cache-control"], "no-store");
            assert!(!refused.headers().contains_key("www-authenticate"), "not the key's fault");
            let rejection = refused.extensions().get::<Rejection>().expect("a rejection");
            assert_eq!(rejection.kind(), RejectionKind::StoreUnavailable);
            assert_eq!(rejection.retry_after(), Some(Duration::from_secs(1)));
            let error = json(refused).await;
            assert_eq!(error["error"]["code"], "service_unavailable");
            assert_eq!(error["error"]["type"], "server_error");
            assert_eq!(inner.calls(), before, "{fault:?}, {what}: the inner service was called");

            store.set(None);
            let accepted = answer(&service, request).await;
            assert!(accepted.status().as_u16() < 400, "{fault:?}, {what}: {}", accepted.status());
            assert_eq!(inner.calls(), before + 1);
        }
    }
    assert_eq!(runtime.spawned(), 0, "an answer over HTTP needs no task");
}

/// An unknown key is as unknown to a broken store as a known one: 503, not 401.
#[tokio::test(start_paused = true)]
async fn a_faulty_store_says_nothing_about_any_key() {
    let (store, secret) = Faulty::with_key().await;
    let service = RealtimeAuthLayer::new(store.clone()).layer(Inner::default());
    for fault in FAULTS {
        store.set(Some(fault));
        for key in [secret.as_str(), "unknown"] {
            let request = plain_with(CredentialSource::Header, key);
            let refused = answer(&service, request).await;
            assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{fault:?}");
        }
    }
}

/// Mixed with sound requests, as an outage would be: none of the 10,000 gets through.
#[tokio::test(start_paused = true)]
async fn ten_thousand_faults_let_nobody_through() {
    let (store, secret) = Faulty::with_key().await;
    let inner = Inner::default();
    let service = RealtimeAuthLayer::new(store.clone()).layer(inner.clone());
    let requests = requests(&secret);

    let mut accepted = 0;
    for round in 0..10_000 {
        let fault = FAULTS[round % FAULTS.len()];
        // Coprime to the number of faults: every fault meets every request.
        let (what, request) = &requests[round % requests.len()];
        store.set(Some(fault));
        let refused = answer(&service, request.clone()).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{fault:?}, {what}");
        if round % 97 == 0 {
            store.set(None);
            answer(&service, request.clone()).await;
            accepted += 1;
        }
    }
    assert_eq!(inner.calls(), accepted);
}

/// Over a real socket, what cannot read a status is told by a close code.
#[tokio::test]
async fn a_faulty_store_closes_with_1013() {
    let deadline = Duration::from_millis(20);
    let inner = Inner::default();
    for fault in [Fault::Errors, Fault::Hangs, Fault::PanicsWhenAsked, Fault::PanicsWhenPolled] {
        let (store, secret) = Faulty::with_key().await;
        store.set(Some(fault));
        let runtime = CountingRuntime::default();
        let layer = RealtimeAuthLayer::new_with_runtime(store, runtime.clone());
        let layer = layer.with_lookup_deadline(deadline);
        let address = serve(layer.layer(inner.clone())).await;

        for place in PLACES {
            let handshake = handshake_with(place, &secret);
            let (mut raw, head) = Raw::send(address, handshake.as_bytes()).await;
            if place == CredentialSource::Header {
                assert_eq!(head.status, 503, "{fault:?}");
                assert_eq!(head.all("retry-after"), ["1"]);
                continue;
            }
            assert_eq!(head.status, 101, "{fault:?}, {place}");
            let (first, event) = raw.frame().await.expect("the error event");
            let event: serde_json::Value = serde_json::from_slice(&event).expect("JSON");
            assert_eq!((first, &event["type"]), (0x81, &"error".into()));
            assert_eq!(event["error"]["code"], "service_unavailable");
            let (first, close) = raw.frame().await.expect("the Close");
            assert_eq!((first, &close[..2]), (0x88, &1013_u16.to_be_bytes()[..]));
            drop(raw);
        }
        assert_eq!(runtime.spawned(), 2, "{fault:?}: one task for each Close");
        runtime.idle().await;
        assert_eq!(layer.lingering(), 0);
    }
    assert_eq!(inner.calls(), 0);
}

/// Late, but in time.
#[tokio::test(start_paused = true)]
async fn a_slow_store_is_waited_for() {
    for (waits, status) in [(999, StatusCode::OK), (1_001, StatusCode::SERVICE_UNAVAILABLE)] {
        let (keys, secret) = keys_with_secret().await;
        let store = StoreFn(move |digest: &KeyDigest| {
            let answer = keys.store().lookup(digest);
            Answer::pending(async move {
                tokio::time::sleep(Duration::from_millis(waits)).await;
                answer.await
            })
        });
        let layer = RealtimeAuthLayer::new(store).with_lookup_deadline(DEADLINE);
        let request = plain_with(CredentialSource::Header, &secret);
        let response = answer(&layer.layer(Inner::default()), request).await;
        assert_eq!(response.status(), status, "after {waits} ms");
    }
}

/// A client that leaves while the store is asked takes the question along.
#[tokio::test]
async fn a_dropped_request_drops_the_stores_future() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&dropped);
    let store = StoreFn(move |_: &KeyDigest| {
        let guard = Dropped(Arc::clone(&seen));
        Answer::pending(async move {
            std::future::pending::<()>().await;
            drop(guard);
            Ok(None)
        })
    });
    let runtime = CountingRuntime::default();
    let inner = Inner::default();
    let mut service =
        RealtimeAuthLayer::new_with_runtime(store, runtime.clone()).layer(inner.clone());

    let mut waiting = service.call(upgrade_with(CredentialSource::Query, "some-key"));
    assert!(poll_immediate(&mut waiting).await.is_none());
    assert!(!dropped.load(Ordering::SeqCst));
    drop(waiting);
    assert!(dropped.load(Ordering::SeqCst));
    assert_eq!((inner.calls(), runtime.spawned()), (0, 0));
}

/// A store that answers another key's row, by a wrong index or a wrong cache, opens nothing.
#[tokio::test]
async fn a_wrong_row_is_refused() {
    let keys = Keys::new(MemoryStore::new());
    let row = keys.issue(NewKey::secret("victim")).await.unwrap();
    let record = Arc::clone(row.record());
    let store = StoreFn(move |_: &KeyDigest| Answer::ready(Ok(Some(Arc::clone(&record)))));
    let inner = Inner::default();
    let service = RealtimeAuthLayer::new(store).layer(inner.clone());

    for (what, request) in requests("another-key") {
        let refused = service.clone().oneshot(request).await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{what}");
        let rejection = refused.extensions().get::<Rejection>().expect("a rejection");
        assert_eq!(rejection.kind(), RejectionKind::Unknown, "{what}");
    }
    assert_eq!(inner.calls(), 0);

    let request = plain_with(CredentialSource::Header, row.key().expose());
    assert_eq!(service.oneshot(request).await.unwrap().status(), StatusCode::OK);
}

/// What has the form of our keys and not their checksum is no key: the store is not asked.
#[tokio::test]
async fn a_mistyped_key_does_not_reach_the_store() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let store = StoreFn(move |_: &KeyDigest| {
        counter.fetch_add(1, Ordering::SeqCst);
        Answer::ready(Ok(None))
    });
    let format = KeyFormat::default().with_ephemeral_prefix("swaram_ek_").unwrap();
    let service =
        RealtimeAuthLayer::new(Keys::new(store).with_format(format)).layer(Inner::default());

    // 33 random characters and 6 of a checksum that does not fit them.
    let rest = "A".repeat(39);
    for prefix in ["sk_live_", "sk_test_", "swaram_ek_"] {
        for (what, request) in requests(&format!("{prefix}{rest}")) {
            let refused = service.clone().oneshot(request).await.unwrap();
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{prefix}, {what}");
        }
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);

    // Of another make: only the store can tell.
    for (key, asks) in [(format!("ek_{rest}"), 1), (format!("sk_live_{rest}x"), 2)] {
        let request = plain_with(CredentialSource::Header, &key);
        service.clone().oneshot(request).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), asks, "{key}");
    }
}

// ---- The decision ----

/// The time that the clock stands at.
const NOW: u64 = 1_700_000_000_000;

/// What a request comes to: let through, with what model; or refused.
type Decision = Result<Option<&'static str>, RejectionKind>;

/// What the key has, what the query says, and the decisions on a handshake and a plain request.
type Case = (fn(KeyRecord) -> KeyRecord, &'static str, (Decision, Decision));

fn any(record: KeyRecord) -> KeyRecord {
    record
}

fn one_model(record: KeyRecord) -> KeyRecord {
    record.with_grants(Grants::default().with_models(["a"]))
}

fn two_models(record: KeyRecord) -> KeyRecord {
    record.with_grants(Grants::default().with_models(["a", "b c+d"]))
}

fn no_model(record: KeyRecord) -> KeyRecord {
    record.with_grants(Grants::default().with_models([""; 0]))
}

fn expiring(record: KeyRecord, at: u64) -> KeyRecord {
    record.with_expires_at(Some(UnixMillis::new(at)))
}

fn with_revoked_parent(record: KeyRecord) -> KeyRecord {
    let parent = Parent::new(KeyId::new("key_parent"));
    record.with_parent(Some(parent.with_revoked_at(Some(UnixMillis::new(1)))))
}

const fn both(decision: Decision) -> (Decision, Decision) {
    (decision, decision)
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    use RejectionKind::{Expired, Model, Revoked};

    vec![
        (any, "", both(Ok(None))),
        // Revoked, in the past or in the future, itself or its parent.
        (|key| key.with_revoked_at(Some(UnixMillis::new(NOW - 1))), "", both(Err(Revoked))),
        (|key| key.with_revoked_at(Some(UnixMillis::new(NOW + 1))), "", both(Err(Revoked))),
        (with_revoked_parent, "", both(Err(Revoked))),
        (|key| key.with_parent(Some(Parent::new(KeyId::new("key_p")))), "", both(Ok(None))),
        (|key| with_revoked_parent(expiring(key, NOW)), "", both(Err(Revoked))),
        // Expiry, to the millisecond.
        (|key| expiring(key, NOW + 1), "", both(Ok(None))),
        (|key| expiring(key, NOW), "", both(Err(Expired))),
        (|key| expiring(key, NOW - 1), "", both(Err(Expired))),
        (|key| expiring(key, 0), "", both(Err(Expired))),
        (|key| expiring(key, u64::MAX), "", both(Ok(None))),
        // Expiry is looked at before models.
        (|key| one_model(expiring(key, NOW)), "model=b", both(Err(Expired))),
        // Without a list, any model, and the choice stays with the service.
        (any, "model=x", both(Ok(None))),
        (any, "model=x&model=y", both(Ok(None))),
        (any, "model=%zz", both(Ok(None))),
        // With a list of one.
        (one_model, "", both(Ok(Some("a")))),
        (one_model, "model=a", both(Ok(Some("a")))),
        (one_model, "model=%61", both(Ok(Some("a")))),
        (one_model, "%6Dodel=a", both(Ok(Some("a")))),
        (one_model, "x=1&model=a&y", both(Ok(Some("a")))),
        (one_model, "deployment=b", both(Ok(Some("a")))),
        (one_model, "MODEL=b", both(Ok(Some("a")))),
        (one_model, "model=b", both(Err(Model))),
        (one_model, "model=A", both(Err(Model))),
        (one_model, "model=a+", both(Err(Model))),
        (one_model, "model=", both(Err(Model))),
        (one_model, "model", both(Err(Model))),
        (one_model, "model=%zz", both(Err(Model))),
        // Which of two counts, services disagree on.
        (one_model, "model=a&model=a", both(Err(Model))),
        (one_model, "model=a&model=b", both(Err(Model))),
        (one_model, "model=a&%6dodel=b", both(Err(Model))),
        (one_model, "model=a&mod%65l=%zz", both(Err(Model))),
        // With a list of several, a session names one; a plain request need not.
        (two_models, "", (Err(Model), Ok(None))),
        (two_models, "model=a", both(Ok(Some("a")))),
        (two_models, "model=b+c%2Bd", both(Ok(Some("b c+d")))),
        (two_models, "model=b%20c%2bd", both(Ok(Some("b c+d")))),
        (two_models, "model=b+c+d", both(Err(Model))),
        (two_models, "model=b", both(Err(Model))),
        // With an empty list, none.
        (no_model, "", (Err(Model), Ok(None))),
        (no_model, "model=a", both(Err(Model))),
        (no_model, "model=", both(Err(Model))),
    ]
}

#[tokio::test]
async fn decisions_are_as_the_table_says() {
    for (row, (change, query, (on_upgrade, on_plain))) in cases().into_iter().enumerate() {
        let store = StoreFn(move |digest: &KeyDigest| {
            let id = KeyId::new("key_1");
            let created = UnixMillis::new(0);
            let record = KeyRecord::new(id, *digest, "acme", KeyKind::Secret, created);
            Answer::ready(Ok(Some(Arc::new(change(record)))))
        });
        let clock = ManualClock::new(UnixMillis::new(NOW));
        let inner = Inner::default();
        let service =
            RealtimeAuthLayer::new(Keys::new(store).with_clock(clock)).layer(inner.clone());

        let plain = || {
            let uri = format!("/v1/realtime?{query}");
            let request = Request::get(uri).header("authorization", "Bearer some-key");
            request.body(()).expect("a request")
        };
        let asked = [("handshake", upgraded(plain()), on_upgrade), ("plain", plain(), on_plain)];
        for (what, request, expected) in asked {
            let before = inner.calls();
            let response = service.clone().oneshot(request).await.unwrap();
            let place = format!("row {row}, {what}, ?{query}");
            match expected {
                Ok(model) => {
                    let principal = response.extensions().get::<Principal>();
                    let principal = principal.unwrap_or_else(|| panic!("{place}: refused"));
                    assert_eq!(principal.model(), model, "{place}");
                    assert_eq!(principal.accepted_at(), UnixMillis::new(NOW), "{place}");
                    assert_eq!(inner.calls(), before + 1, "{place}");
                }
                Err(kind) => {
                    let rejection = response.extensions().get::<Rejection>();
                    let rejection = rejection.unwrap_or_else(|| panic!("{place}: let through"));
                    assert_eq!(rejection.kind(), kind, "{place}");
                    let status = if kind == RejectionKind::Model { 403 } else { 401 };
                    assert_eq!(response.status(), status, "{place}");
                    assert_eq!(inner.calls(), before, "{place}: the inner service was called");
                }
            }
        }
    }
}
