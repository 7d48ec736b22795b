//! A revocation reaches the sessions that are open already, and no others, and none is missed.

mod support;

use std::{
    env,
    hint::spin_loop,
    pin::pin,
    slice,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use support::{Inner, SOON, StoreFn, upgrade_with};
use tower::{Layer, Service};
use tower_realtime_auth::{
    Answer, ApiKey, CredentialSource, Issued, KeyAdmin, KeyDigest, KeyId, KeyRecord, KeyStore,
    Keys, Lookup, ManualClock, MemoryStore, NewKey, NewToken, News, Principal, RealtimeAuth,
    RealtimeAuthLayer, Revocation, Revocations, Revoked, Stamp, UnixMillis, http::StatusCode,
};

/// How many revocations are remembered.
const RECENT: usize = 1_024;

const MINUTE: Duration = Duration::from_secs(60);

/// The next of a future that must be there, or never comes.
macro_rules! now {
    ($future:expr) => {
        $future.now_or_never().expect("a store in memory answers at once")
    };
}

/// What a handshake with `key` is answered: who is calling, or a refusal.
fn connect<S: KeyStore>(keys: &Keys<S>, key: &ApiKey) -> Result<Principal, StatusCode> {
    ask(&mut RealtimeAuthLayer::new(keys.clone()).layer(Inner::default()), key)
}

fn ask<S: KeyStore>(
    service: &mut RealtimeAuth<Inner, S>,
    key: &ApiKey,
) -> Result<Principal, StatusCode> {
    let request = upgrade_with(CredentialSource::Header, key.expose());
    let response = now!(service.call(request)).expect("a response");
    response.extensions().get::<Principal>().cloned().ok_or(response.status())
}

fn issue(keys: &Keys<MemoryStore>, account: &str) -> Issued {
    now!(keys.issue(NewKey::secret(account))).expect("a key")
}

fn mint(keys: &Keys<MemoryStore>, parent: &Issued) -> Issued {
    let parent = connect(keys, parent.key()).expect("a parent");
    now!(keys.mint(&parent, NewToken::lasting(MINUTE))).expect("a token")
}

fn revoke(keys: &Keys<MemoryStore>, id: &KeyId) -> u64 {
    now!(keys.revoke(id)).expect("revoked")
}

/// Publishes what concerns nobody.
fn publish_others(hub: &Revocations, times: usize) {
    for _ in 0..times {
        hub.publish(News::Revoked(&[KeyId::new("key_of_nobody")]));
    }
}

/// Whether it is ready now; if not, it listens from now on.
fn is_ready(revoked: &mut Revoked) -> bool {
    revoked.now_or_never().is_some()
}

/// How many sessions listen.
fn watches(hub: &Revocations) -> usize {
    let debug = format!("{hub:?}");
    let (_, watches) = debug.split_once("watches: ").expect("a count");
    let digits = watches.split(|letter: char| !letter.is_ascii_digit()).next().expect("digits");
    digits.parse().expect("a number")
}

/// A waker that remembers whether it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn poll(self: &Arc<Self>, revoked: &mut Revoked) -> bool {
        let waker = Waker::from(Arc::clone(self));
        pin!(revoked).poll_unpin(&mut Context::from_waker(&waker)).is_ready()
    }
}

// ---- Who is told ----

/// Of two accounts with two keys of two tokens each, exactly those whom a revocation is about.
#[test]
fn exactly_those_are_told_whom_it_concerns() {
    for (what, told) in [
        (
            "token",
            [false, true, false, false, false, false, false, false, false, false, false, false],
        ),
        ("key", [true, true, true, false, false, false, false, false, false, false, false, false]),
        ("account", [true, true, true, true, true, true, false, false, false, false, false, false]),
        ("nothing", [false; 12]),
    ] {
        let keys = Keys::new(MemoryStore::new());
        let mut issued = Vec::new();
        for account in ["acme", "acme", "other", "other"] {
            let parent = issue(&keys, account);
            let tokens = [mint(&keys, &parent), mint(&keys, &parent)];
            issued.push(parent);
            issued.extend(tokens);
        }
        let mut sessions: Vec<_> = issued
            .iter()
            .map(|issued| connect(&keys, issued.key()).expect("let in").revoked())
            .collect();
        // Half of them listen before, half are asked only afterwards.
        assert!(!sessions.iter_mut().step_by(2).any(is_ready), "{what}");

        let revocation = match what {
            "token" => Revocation::Key(issued[1].record().id().clone()),
            "key" => Revocation::Key(issued[0].record().id().clone()),
            "account" => Revocation::Account("acme".into()),
            _ => Revocation::Account("nobody".into()),
        };
        now!(keys.store().revoke(&revocation, &Stamp::new(keys.now()))).expect("revoked");
        let ready: Vec<_> = sessions.iter_mut().map(is_ready).collect();
        assert_eq!(ready, told, "{what}");
        for (issued, told) in issued.iter().zip(told) {
            let refused = connect(&keys, issued.key()).err();
            assert_eq!(refused, told.then_some(StatusCode::UNAUTHORIZED), "{what}");
        }
        // It stays so.
        assert_eq!(sessions.iter_mut().map(is_ready).collect::<Vec<_>>(), told, "{what}");
    }
}

/// T8: of 100 keys with 100 tokens each, one after the other.
#[test]
fn a_hundred_parents_take_their_children_with_them() {
    let keys = Keys::new(MemoryStore::new());
    let woken = Arc::new(Woken::default());
    let mut families: Vec<_> = (0..100)
        .map(|_| {
            let parent = issue(&keys, "acme");
            let principal = connect(&keys, parent.key()).expect("let in");
            let children = (0..100).map(|_| {
                let token =
                    now!(keys.mint(&principal, NewToken::lasting(MINUTE))).expect("a token");
                let session = connect(&keys, token.key()).expect("let in").revoked();
                (token, session)
            });
            (parent, children.collect::<Vec<_>>())
        })
        .collect();
    for (_, children) in &mut families {
        assert!(!children.iter_mut().any(|(_, session)| woken.poll(session)));
    }
    for (before, (parent, children)) in families.iter_mut().enumerate() {
        assert_eq!(revoke(&keys, parent.record().id()), 101);
        // None but its own were woken.
        assert_eq!(woken.times(), (before + 1) * 100);
        assert!(children.iter_mut().all(|(_, session)| is_ready(session)));
    }
    let tokens = families.iter().flat_map(|(_, children)| children);
    let accepted = tokens.filter(|(token, _)| connect(&keys, token.key()).is_ok()).count();
    assert_eq!(accepted, 0);
}

/// A session outlives the expiry of its key, even the memory of it, but not its revocation.
#[test]
fn the_session_of_a_forgotten_key_is_told() {
    let clock = ManualClock::new(UnixMillis::new(1_700_000_000_000));
    let keys = Keys::new(MemoryStore::new()).with_clock(clock.clone());
    let parent = issue(&keys, "acme");
    let sessions = [0, 1, 2].map(|_| {
        let token = mint(&keys, &parent);
        let session = connect(&keys, token.key()).expect("let in").revoked();
        (token.record().id().clone(), session)
    });
    let [mut first, mut second, mut third] = sessions;
    clock.advance(10 * MINUTE);
    // Making a key is when the store forgets.
    issue(&keys, "other");
    assert!(now!(keys.store().find(&first.0)).expect("an answer").is_none(), "forgotten");

    assert_eq!(revoke(&keys, &first.0), 0);
    assert_eq!((is_ready(&mut first.1), is_ready(&mut second.1)), (true, false));
    assert_eq!(revoke(&keys, parent.record().id()), 1);
    assert!(is_ready(&mut second.1) && is_ready(&mut third.1));
}

// ---- Nothing is missed ----

/// T20: a revocation while the store looks the key up: the record that it answers shows nothing of it.
#[test]
fn a_revocation_during_the_lookup_is_seen() {
    for round in 0..10_000 {
        let times = if round == 0 { RECENT - 1 } else { round % 3 };
        let memory = Arc::new(MemoryStore::new());
        let issued = now!(Keys::new(Arc::clone(&memory)).issue(NewKey::secret("acme")));
        let issued = issued.expect("a key");
        let keys = Keys::new(Late { memory, id: issued.record().id().clone(), others: times });
        let principal = connect(&keys, issued.key()).expect("the old record lets it in");
        assert!(!principal.record().is_revoked());
        assert!(is_ready(&mut principal.revoked()), "after {times} others");
        assert_eq!(connect(&keys, issued.key()).err(), Some(StatusCode::UNAUTHORIZED));
    }
}

/// A store that revokes the key between finding it and answering, and others after it.
struct Late {
    memory: Arc<MemoryStore>,
    id: KeyId,
    others: usize,
}

impl KeyStore for Late {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        let answer = self.memory.lookup(digest);
        let revocation = Revocation::Key(self.id.clone());
        now!(self.memory.revoke(&revocation, &Stamp::new(UnixMillis::new(1)))).expect("revoked");
        publish_others(self.memory.revocations().expect("a hub"), self.others);
        answer
    }

    fn revocations(&self) -> Option<&Revocations> {
        self.memory.revocations()
    }
}

/// What lies too far back to be known is taken for a revocation; what is watched is not.
#[test]
fn an_overrun_fails_closed() {
    let keys = Keys::new(MemoryStore::new());
    let hub = keys.store().revocations().expect("a hub").clone();
    let issued = issue(&keys, "acme");
    let principal = connect(&keys, issued.key()).expect("let in");
    let mut early = principal.revoked();
    assert!(!is_ready(&mut early));

    publish_others(&hub, RECENT);
    assert!(!is_ready(&mut principal.revoked()), "all are known");
    publish_others(&hub, 1);
    assert!(is_ready(&mut principal.revoked()), "one is not");
    assert!(!is_ready(&mut early), "who listened has missed none");
    assert!(!is_ready(&mut connect(&keys, issued.key()).expect("let in").revoked()));

    // An epoch that this hub has never had.
    assert!(is_ready(&mut hub.watch(Arc::clone(issued.record()), hub.epoch() + 1)));
    revoke(&keys, issued.record().id());
    assert!(is_ready(&mut early));
}

// ---- Who listens, and how ----

#[test]
fn the_latest_waker_is_woken_once() {
    let keys = Keys::new(MemoryStore::new());
    let issued = issue(&keys, "acme");
    let mut session = connect(&keys, issued.key()).expect("let in").revoked();
    let [first, second] = [Arc::new(Woken::default()), Arc::new(Woken::default())];
    assert!(!first.poll(&mut session) && !first.poll(&mut session) && !second.poll(&mut session));
    for _ in 0..3 {
        revoke(&keys, issued.record().id());
    }
    assert_eq!((first.times(), second.times()), (0, 1));
    assert!(second.poll(&mut session));
}

#[test]
fn who_is_gone_listens_no_more() {
    let keys = Keys::new(MemoryStore::new());
    let hub = keys.store().revocations().expect("a hub");
    let issued = issue(&keys, "acme");
    let principal = connect(&keys, issued.key()).expect("let in");
    drop(principal.revoked());
    for _ in 0..100_000 {
        let mut session = principal.revoked();
        assert!(!is_ready(&mut session));
        assert_eq!(watches(hub), 1);
    }
    assert_eq!(watches(hub), 0);

    // Who was told has nothing more to listen to.
    let mut session = principal.revoked();
    assert!(!is_ready(&mut session));
    revoke(&keys, issued.record().id());
    assert_eq!(watches(hub), 0);
    drop(session);
    assert_eq!(watches(hub), 0);
}

/// Without a hub there is nothing to hear; a record that is revoked says so by itself.
#[test]
fn without_a_hub_it_waits_for_ever() {
    let keys = Keys::new(MemoryStore::new());
    let issued = issue(&keys, "acme");
    let record = Arc::clone(issued.record());
    let found = Arc::clone(&record);
    let deaf = Keys::new(StoreFn(move |_: &KeyDigest| Answer::ready(Ok(Some(Arc::clone(&found))))));
    assert!(deaf.store().revocations().is_none());
    let made = |record| Principal::new(record, CredentialSource::Header, keys.now());
    let accepted = connect(&deaf, issued.key()).expect("let in");
    let mut sessions = [accepted.revoked(), made(Arc::clone(&record)).revoked()];
    revoke(&keys, record.id());
    assert!(!sessions.iter_mut().any(is_ready));

    let revoked = KeyRecord::clone(&record).with_revoked_at(Some(keys.now()));
    assert!(is_ready(&mut made(Arc::new(revoked)).revoked()));
}

#[test]
fn pointers_to_a_store_show_its_hub() {
    let store: Arc<dyn KeyAdmin> = Arc::new(Box::new(MemoryStore::new()));
    let keys = Keys::new(store);
    let issued = now!(keys.issue(NewKey::secret("acme"))).expect("a key");
    let mut session = connect(&keys, issued.key()).expect("let in").revoked();
    assert!(!is_ready(&mut session));
    now!(keys.revoke(issued.record().id())).expect("revoked");
    assert!(is_ready(&mut session));
}

/// A subscriber hears of everything, in order, before the epoch moves and before anyone is woken;
/// and it may ask the hub.
#[test]
fn a_subscriber_is_told_first() {
    let keys = Keys::new(MemoryStore::new());
    let hub = keys.store().revocations().expect("a hub");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let issued = issue(&keys, "acme");
    let (writing, asking) = (Arc::clone(&heard), hub.clone());
    let session = Mutex::new(connect(&keys, issued.key()).expect("let in").revoked());
    hub.subscribe(move |news| {
        let told = is_ready(&mut session.lock().unwrap());
        let News::Revoked([id]) = news else { panic!("{news:?}") };
        writing.lock().unwrap().push((id.clone(), asking.epoch(), told));
    });
    let id = issued.record().id().clone();
    for what in [Revocation::Key(id.clone()), Revocation::Account("acme".into())] {
        now!(keys.store().revoke(&what, &Stamp::new(keys.now()))).expect("revoked");
    }
    assert_eq!(*heard.lock().unwrap(), [(id.clone(), 0, false), (id, 1, true)]);
    assert_eq!(hub.epoch(), 2);
}

// ---- Races ----

/// T19: a connect that begins after `revoke` has returned is refused; of one that came before,
/// whether it listens already or not, the session is told by then. `RACES` sets another number of
/// them.
#[test]
fn whoever_wins_the_race_is_told() {
    const CONNECTORS: usize = 2;
    let races = env::var("RACES").map_or(20_000, |races| races.parse().expect("a number of races"));
    let number_of_keys = races / CONNECTORS;
    let keys = Keys::new(MemoryStore::new());
    let issued: Vec<_> = (0..number_of_keys).map(|_| issue(&keys, "acme")).collect();
    let has_returned = AtomicBool::new(false);
    let together = Barrier::new(1 + CONNECTORS);
    let [won, lost] = [AtomicUsize::new(0), AtomicUsize::new(0)];
    // Counted, because a thread that panicked would leave the others waiting for it.
    let [late, untold] = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let count = |in_all: &AtomicUsize| in_all.fetch_add(1, Ordering::Relaxed);

    // Each key a few times while it is revoked, and once thereafter.
    let connect_on = |listens: bool| {
        let mut service = RealtimeAuthLayer::new(keys.clone()).layer(Inner::default());
        for issued in &issued {
            let mut sessions = Vec::new();
            together.wait();
            for _ in 0..4 {
                let must_fail = has_returned.load(Ordering::SeqCst);
                let Ok(principal) = ask(&mut service, issued.key()) else { break };
                let (mut session, woken) = (principal.revoked(), Arc::new(Woken::default()));
                let waits = listens && !woken.poll(&mut session);
                sessions.push((session, woken, waits));
                if must_fail {
                    count(&late);
                }
            }
            together.wait();
            if ask(&mut service, issued.key()).is_ok() {
                count(&late);
            }
            count(if sessions.is_empty() { &lost } else { &won });
            for (mut session, woken, waits) in sessions {
                if !is_ready(&mut session) || (waits && woken.times() != 1) {
                    count(&untold);
                }
            }
            // Before the next key is up, so that its revocation is not what they are told.
            together.wait();
        }
    };
    thread::scope(|scope| {
        for connector in 0..CONNECTORS {
            let connect_on = &connect_on;
            scope.spawn(move || connect_on(connector % 2 == 0));
        }
        for (number, issued) in issued.iter().enumerate() {
            together.wait();
            // At another moment each time.
            (0..number % 97 * 20).for_each(|_| spin_loop());
            revoke(&keys, issued.record().id());
            has_returned.store(true, Ordering::SeqCst);
            together.wait();
            has_returned.store(false, Ordering::SeqCst);
            together.wait();
        }
    });
    assert_eq!(late.into_inner(), 0, "let in after revoke() had returned");
    assert_eq!(untold.into_inner(), 0, "let in before, and not told");
    let (won, lost) = (won.into_inner(), lost.into_inner());
    println!("{won} connects were let in before the revocation, {lost} were not");
    assert_eq!(won + lost, number_of_keys * CONNECTORS);
    assert!(won > 0 && lost > 0, "{won} to {lost} is no race");
    assert_eq!(watches(keys.store().revocations().expect("a hub")), 0);
}

/// Told at the very moment of its first poll, a session is told by it or woken.
#[test]
fn no_wake_is_lost() {
    let hub = Revocations::default();
    let keys = Keys::new(MemoryStore::new());
    let record = Arc::clone(issue(&keys, "acme").record());
    let begin = Instant::now();
    thread::scope(|scope| {
        let sessions = || {
            for _ in 0..20_000 {
                let mut session = hub.watch(Arc::clone(&record), hub.epoch());
                let woken = Arc::new(Woken::default());
                if woken.poll(&mut session) {
                    continue;
                }
                while woken.times() == 0 {
                    assert!(begin.elapsed() < SOON, "told, and never woken");
                    thread::yield_now();
                }
                assert!(is_ready(&mut session));
            }
        };
        let threads = [scope.spawn(sessions), scope.spawn(sessions)];
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            hub.publish(News::Revoked(slice::from_ref(record.id())));
        }
    });
    assert_eq!(watches(&hub), 0);
}
