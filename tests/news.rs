//! News from other processes: passed on, missed for no longer than was said, and taken up again.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tower_realtime_auth::{
    Answer, Heard, KeyDigest, KeyId, KeyKind, KeyRecord, News, NewsCarrier, Parent, Revocations,
    StoreError, TokioRuntime, UnixMillis, Write,
};

const PATIENCE: Duration = Duration::from_secs(10);
const MILLI: Duration = Duration::from_millis(1);
/// How much later than it should something may be noticed: until a failed carrier is asked again.
const RETRY: Duration = Duration::from_millis(100);

type Told = Result<Heard, StoreError>;
type Log = Arc<Mutex<Vec<(Duration, Heard)>>>;

/// Brings what it is sent, and is silent in between.
struct Scripted(UnboundedReceiver<Told>);

impl NewsCarrier for Scripted {
    fn next(&mut self) -> Write<'_, Heard> {
        Answer::pending(async {
            match self.0.recv().await {
                Some(told) => told,
                None => pending().await,
            }
        })
    }
}

/// A hub that follows, and all that it has told, with the time since the beginning.
struct World {
    hub: Revocations,
    carrier: UnboundedSender<Told>,
    told: Log,
    following: JoinHandle<()>,
}

impl World {
    fn new() -> Self {
        let (carrier, script) = unbounded_channel();
        let (hub, told, following) = follow(Scripted(script));
        Self { hub, carrier, told, following }
    }

    fn send(&self, told: Told) {
        self.carrier.send(told).expect("it follows");
    }

    fn told(&self) -> Vec<(Duration, Heard)> {
        self.told.lock().unwrap().clone()
    }
}

fn follow(carrier: impl NewsCarrier) -> (Revocations, Log, JoinHandle<()>) {
    let (hub, log) = (Revocations::default(), Log::default());
    let (begin, writing) = (Instant::now(), Arc::clone(&log));
    hub.subscribe(move |news| {
        let heard = match news {
            News::Revoked(ids) => Heard::Revoked(ids.to_vec()),
            _ => Heard::Lost,
        };
        writing.lock().unwrap().push((begin.elapsed(), heard));
    });
    let following = tokio::spawn(hub.follow(carrier, Arc::new(TokioRuntime), PATIENCE));
    (hub, log, following)
}

fn revoked(ids: &[&str]) -> Heard {
    Heard::Revoked(ids.iter().map(|id| KeyId::new(*id)).collect())
}

fn failed() -> Told {
    Err(StoreError::new("the channel is closed"))
}

fn record(id: &str) -> KeyRecord {
    let digest = KeyDigest::from_bytes([0; 32]);
    KeyRecord::new(KeyId::new(id), digest, "acme", KeyKind::Secret, UnixMillis::new(0))
}

/// Lets the follower run: on paused time, all that can be done now is done before it passes.
async fn settle() {
    sleep(MILLI).await;
}

#[tokio::test(start_paused = true)]
async fn news_reach_the_sessions_that_they_concern() {
    let world = World::new();
    let child = record("child").with_parent(Some(Parent::new(KeyId::new("parent"))));
    let mut sessions =
        [record("key"), child, record("other")].map(|key| world.hub.watch(Arc::new(key), 0));
    let mut ready = || sessions.each_mut().map(|session| session.now_or_never().is_some());
    assert_eq!(ready(), [false; 3]);
    world.send(Ok(revoked(&["key"])));
    settle().await;
    assert_eq!(ready(), [true, false, false]);
    world.send(Ok(revoked(&["nobody", "parent"])));
    settle().await;
    assert_eq!(ready(), [true, true, false]);
    world.send(Ok(Heard::Lost));
    settle().await;
    assert_eq!(ready(), [true; 3]);
    let told: Vec<_> = world.told().into_iter().map(|(_, heard)| heard).collect();
    assert_eq!(told, [revoked(&["key"]), revoked(&["nobody", "parent"]), Heard::Lost]);
    assert!(world.hub.is_current());
}

/// Each answer, even an empty one, begins the patience anew.
#[tokio::test(start_paused = true)]
async fn a_carrier_that_answers_in_time_is_trusted() {
    let world = World::new();
    for _ in 0..20 {
        sleep(PATIENCE - 2 * MILLI).await;
        world.send(Ok(revoked(&[])));
        settle().await;
        assert!(world.hub.is_current());
    }
    assert!(!world.told().iter().any(|(_, heard)| *heard == Heard::Lost));
}

/// T24: to the millisecond, again and again, until the carrier is back.
#[tokio::test(start_paused = true)]
async fn silence_is_loss_once_patience_is_over() {
    let world = World::new();
    let mut session = world.hub.watch(Arc::new(record("key")), 0);
    assert!((&mut session).now_or_never().is_none());
    sleep(PATIENCE - MILLI).await;
    assert!(world.hub.is_current());
    assert!((&mut session).now_or_never().is_none());
    sleep(2 * MILLI).await;
    assert!(!world.hub.is_current());
    assert!(session.now_or_never().is_some());
    sleep(2 * PATIENCE).await;
    let lost = [1, 2, 3].map(|times| (times * PATIENCE, Heard::Lost));
    assert_eq!(world.told(), lost);

    world.send(Ok(revoked(&["key"])));
    settle().await;
    assert!(world.hub.is_current());
    assert_eq!(world.told().last().map(|(_, heard)| heard.clone()), Some(revoked(&["key"])));
    // A session from since then is left alone until it is silent again.
    let mut session = world.hub.watch(Arc::new(record("other")), world.hub.epoch());
    sleep(PATIENCE - 3 * MILLI).await;
    assert!((&mut session).now_or_never().is_none());
    sleep(4 * MILLI).await;
    assert!(session.now_or_never().is_some());
}

/// One error costs nothing: what came meanwhile comes later, and nobody is told that all is lost.
#[tokio::test(start_paused = true)]
async fn an_error_is_survived() {
    let world = World::new();
    world.send(failed());
    settle().await;
    assert!(!world.hub.is_current());
    world.send(failed());
    world.send(Ok(revoked(&["key"])));
    sleep(2 * RETRY).await;
    assert!(world.hub.is_current());
    let told = world.told();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1, revoked(&["key"]));
    assert!(told[0].0 <= 2 * RETRY, "{told:?}");
}

/// Answers what its script says, and then the last of it for ever, at once.
struct Hasty {
    script: VecDeque<fn() -> Told>,
    asked: Arc<AtomicUsize>,
}

impl NewsCarrier for Hasty {
    fn next(&mut self) -> Write<'_, Heard> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let next = if self.script.len() > 1 { self.script.pop_front() } else { None };
        Answer::ready(next.or_else(|| self.script.front().copied()).expect("a script")())
    }
}

/// The time goes on behind a carrier that fails at once, always; and it is not asked all the time.
#[tokio::test(start_paused = true)]
async fn errors_do_not_hide_the_time() {
    let asked = Arc::new(AtomicUsize::new(0));
    let good: fn() -> Told = || Ok(revoked(&["key"]));
    let script = VecDeque::from([good, failed as fn() -> Told]);
    let (hub, log, _following) = follow(Hasty { script, asked: Arc::clone(&asked) });
    sleep(3 * PATIENCE + RETRY).await;
    assert!(!hub.is_current());
    let told = log.lock().unwrap().clone();
    assert_eq!(told[0], (Duration::ZERO, revoked(&["key"])));
    assert!(told.len() >= 3, "{told:?}");
    let mut last = told[0].0;
    for (at, heard) in &told[1..] {
        assert_eq!(*heard, Heard::Lost);
        let waited = *at - last;
        assert!(waited >= PATIENCE && waited <= PATIENCE + RETRY, "{told:?}");
        last = *at;
    }
    let most = (3 * PATIENCE + RETRY).as_millis() / RETRY.as_millis() + 10;
    assert!(asked.load(Ordering::SeqCst) as u128 <= most, "asked {asked:?} times");
}

/// Whoever follows does not keep the hub, and ends with it, be the carrier silent, failing or well.
#[tokio::test(start_paused = true)]
async fn who_follows_ends_with_the_hub() {
    let scripts: [fn(&World); 3] =
        [|_| (), |world| world.send(failed()), |world| world.send(Ok(revoked(&[])))];
    for script in scripts {
        let world = World::new();
        settle().await;
        script(&world);
        let World { hub, carrier, told, following } = world;
        drop(hub);
        let ended = timeout(PATIENCE + RETRY, following).await;
        ended.expect("within its patience").expect("no panic");
        // The subscriber, which only the hub had, is gone too.
        assert_eq!(Arc::strong_count(&told), 1);
        assert!(carrier.is_closed(), "the carrier is dropped");
    }
}

/// A question that is given up is asked again, and what came in between is answered then.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_with_a_question_that_was_given_up() {
    let world = World::new();
    // Given up here, for the first time.
    sleep(PATIENCE + MILLI).await;
    for number in 0..100 {
        world.send(Ok(revoked(&[&format!("key {number}")])));
        if number % 10 == 0 {
            sleep(PATIENCE + MILLI).await;
        }
    }
    settle().await;
    let told = world.told();
    let ids: Vec<_> = told.iter().filter(|(_, heard)| *heard != Heard::Lost).collect();
    assert_eq!(ids.len(), 100);
    for (number, (_, heard)) in ids.into_iter().enumerate() {
        assert_eq!(*heard, revoked(&[&format!("key {number}")]));
    }
    assert!(told.len() > 110, "{} times lost", told.len() - 100);
    assert!(!world.following.is_finished());
}
