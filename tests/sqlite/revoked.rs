//! T8, T20: a key takes its tokens with it, also those that are being looked up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, future::join_all};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, block_in_place},
    time::timeout,
};
use tower_realtime_auth::{
    Answer, Issued, KeyDigest, KeyStore, Keys, Lookup, NewToken, Revocations, SqliteStore,
    http::StatusCode,
};

use crate::{
    MINUTE, connect, figure, issue, open, place, process::Process, slowest, status, support::SOON,
};

/// How many tokens a key has.
const TOKENS: usize = 100;

/// Who revokes.
enum By {
    /// The store whose sessions they are.
    Itself,
    Another(Box<Process>),
}

impl By {
    async fn revoke(&mut self, keys: &Keys<SqliteStore>, issued: &Issued) -> u64 {
        let id = issued.record().id();
        match self {
            Self::Itself => keys.revoke(id).await.expect("revoked"),
            Self::Another(process) => {
                let answer = block_in_place(|| process.ask(&format!("revoke {id}")));
                answer.parse().expect("a number of records")
            }
        }
    }
}

/// Of so many keys with a hundred tokens each, all of which have a session, one after the other.
async fn families_are_told(by: impl FnOnce(&std::path::Path) -> By) {
    let (_folder, path) = place();
    let keys = open(&path).await;
    let mut by = by(&path);
    let mut families = Vec::new();
    let mut sessions = JoinSet::new();
    for family in 0..figure("FAMILIES", 10) {
        let parent = issue(&keys, "acme").await;
        let principal = connect(&keys, parent.key()).await.expect("let in");
        let tokens = join_all((0..TOKENS).map(async |_| {
            let token = keys.mint(&principal, NewToken::lasting(60 * MINUTE)).await.unwrap();
            let mut session = connect(&keys, token.key()).await.expect("let in").revoked();
            assert!((&mut session).now_or_never().is_none());
            (token, session)
        }));
        let mut of_parent = Vec::new();
        for (token, session) in tokens.await {
            of_parent.push(token);
            sessions.spawn(async move {
                session.await;
                (family, Instant::now())
            });
        }
        families.push((parent, of_parent));
    }
    let mut answered = Vec::new();
    for (parent, tokens) in &families {
        assert_eq!(by.revoke(&keys, parent).await, 1 + TOKENS as u64);
        answered.push(Instant::now());
        let refused = join_all(tokens.iter().map(|token| status(&keys, token.key()))).await;
        assert!(refused.iter().all(|status| *status == StatusCode::UNAUTHORIZED));
    }
    let told = timeout(SOON, sessions.join_all()).await.expect("all are told");
    assert_eq!(told.len(), families.len() * TOKENS);
    let took: Vec<_> = told
        .into_iter()
        .map(|(family, told)| told.saturating_duration_since(answered[family]))
        .collect();
    let (nearly_all, all) = slowest(took);
    println!("{} families: 99 of 100 after {nearly_all:?}, all after {all:?}", families.len());
    assert!(nearly_all < Duration::from_secs(5), "{nearly_all:?}");
}

/// T8. `FAMILIES` sets another number of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_takes_its_tokens_with_it() {
    families_are_told(|_| By::Itself).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_takes_them_too() {
    families_are_told(|path| By::Another(Box::new(Process::start(path)))).await;
}

// ---- Looked up before, answered after ----

/// A store that answers what it has found only when it is let.
struct Held {
    store: Arc<SqliteStore>,
    found: Arc<Semaphore>,
    gate: Arc<Semaphore>,
}

impl KeyStore for Held {
    fn lookup(&self, digest: &KeyDigest) -> Lookup {
        let answer = self.store.lookup(digest);
        let (found, gate) = (Arc::clone(&self.found), Arc::clone(&self.gate));
        Answer::pending(async move {
            let answer = answer.await;
            found.add_permits(1);
            gate.acquire().await.expect("a gate").forget();
            answer
        })
    }

    fn revocations(&self) -> Option<&Revocations> {
        self.store.revocations()
    }
}

/// T20: what was found before the revocation and is answered after it opens a session that is told;
/// and nothing more. `HELD_LOOKUPS` sets another number of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_looked_up_before_is_told_after() {
    const AT_ONCE: usize = 100;
    let (_folder, path) = place();
    let store = Arc::new(SqliteStore::open(&path).await.expect("a store"));
    let keys = Keys::new(Arc::clone(&store));
    let (found, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let held = Keys::new(Held { store, found: Arc::clone(&found), gate: Arc::clone(&gate) });
    let other = open(&path).await;
    for round in 0..figure("HELD_LOOKUPS", 1_000) / AT_ONCE {
        let issued = join_all((0..AT_ONCE).map(|_| issue(&other, "acme"))).await;
        let connects = issued.iter().map(|issued| {
            let (held, key) = (held.clone(), issued.key().clone());
            tokio::spawn(async move { connect(&held, &key).await })
        });
        let connects: Vec<_> = connects.collect();
        found.acquire_many(AT_ONCE as u32).await.expect("found").forget();
        let by_other = round % 2 == 0;
        let revoked = join_all(issued.iter().map(async |issued| match by_other {
            true => other.revoke(issued.record().id()).await.unwrap(),
            false => keys.revoke(issued.record().id()).await.unwrap(),
        }));
        assert_eq!(revoked.await, [1; AT_ONCE]);
        gate.add_permits(AT_ONCE);
        for connect in connects {
            let principal = connect.await.unwrap().expect("the old record lets it in");
            assert!(!principal.record().is_revoked());
            let mut session = principal.revoked();
            if by_other {
                timeout(SOON, session).await.expect("told");
            } else {
                assert!((&mut session).now_or_never().is_some(), "told at once");
            }
        }
        for issued in &issued {
            assert_eq!(status(&keys, issued.key()).await, StatusCode::UNAUTHORIZED);
        }
    }
}
