//! Several stores on one file, of one process and of several.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::{runtime, time::timeout};
use tower_realtime_auth::{
    ApiKey, Inserted, KeyAdmin, KeyDigest, KeyId, KeyKind, KeyRecord, KeyStore, Keys, NewToken,
    Revocation, SqliteOptions, SqliteStore, Stamp, http::StatusCode,
};

use crate::{
    MINUTE, NOW, connect, issue, open, place,
    process::Process,
    status,
    support::{CountingRuntime, SOON},
};

#[tokio::test]
async fn what_one_does_all_see_at_once() {
    let (_folder, path) = place();
    let (one, other) = (open(&path).await, open(&path).await);
    for _ in 0..50 {
        let issued = issue(&one, "acme").await;
        let parent = connect(&other, issued.key()).await.expect("known there");
        let token = other.mint(&parent, NewToken::lasting(MINUTE)).await.unwrap();
        assert_eq!(status(&one, token.key()).await, StatusCode::OK);
        assert_eq!(one.revoke(issued.record().id()).await.unwrap(), 2);
        for key in [issued.key(), token.key()] {
            assert_eq!(status(&other, key).await, StatusCode::UNAUTHORIZED);
        }
    }
}

/// Not one is accepted that asks after the revocation was answered.
#[test]
fn a_revocation_wins_every_race() {
    let (_folder, path) = place();
    let runtime = runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    let runtime = runtime.unwrap();
    let (one, other) = runtime.block_on(async { (open(&path).await, open(&path).await) });
    let (mut before, mut after) = (0, 0);
    for _ in 0..20 {
        let issued = runtime.block_on(issue(&one, "acme"));
        let (revoked, accepted) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
        thread::scope(|scope| {
            for keys in [&one, &other, &one, &other] {
                let (revoked, accepted, key) = (&revoked, &accepted, issued.key());
                let runtime = &runtime;
                scope.spawn(move || {
                    loop {
                        let was_revoked = revoked.load(Ordering::SeqCst);
                        let status = runtime.block_on(status(keys, key));
                        assert_ne!(status, StatusCode::SERVICE_UNAVAILABLE);
                        if was_revoked {
                            assert_eq!(status, StatusCode::UNAUTHORIZED);
                            break;
                        }
                        accepted.fetch_add(usize::from(status == StatusCode::OK), Ordering::SeqCst);
                    }
                });
            }
            while accepted.load(Ordering::SeqCst) < 8 {
                thread::yield_now();
            }
            runtime.block_on(one.revoke(issued.record().id())).unwrap();
            revoked.store(true, Ordering::SeqCst);
            after += 4;
        });
        before += accepted.into_inner();
    }
    assert!(before >= 160 && after == 80, "{before} before, {after} after");
}

#[tokio::test]
async fn sessions_of_the_store_have_heard_once_it_answers() {
    let (_folder, path) = place();
    let keys = open(&path).await;
    for round in 0..6 {
        let issued = issue(&keys, "acme").await;
        let parent = connect(&keys, issued.key()).await.unwrap();
        let token = keys.mint(&parent, NewToken::lasting(MINUTE)).await.unwrap();
        let token = connect(&keys, token.key()).await.unwrap();
        let mut sessions = [parent.revoked(), token.revoked()];
        assert!(sessions.iter_mut().all(|session| session.now_or_never().is_none()));
        match round % 3 {
            0 => drop(keys.revoke(issued.record().id()).await.unwrap()),
            1 => drop(keys.revoke_account("acme").await.unwrap()),
            _ => assert!(keys.remove(issued.record().id()).await.unwrap()),
        }
        assert!(sessions.into_iter().all(|session| session.now_or_never().is_some()));
    }
}

#[tokio::test]
async fn sessions_hear_what_another_store_revokes() {
    let (_folder, path) = place();
    let (one, other) = (open(&path).await, open(&path).await);
    let mut slowest = Duration::ZERO;
    for round in 0..12 {
        let (issued, bystander) = (issue(&one, "acme").await, issue(&one, "other").await);
        let parent = connect(&one, issued.key()).await.unwrap();
        let token = one.mint(&parent, NewToken::lasting(MINUTE)).await.unwrap();
        let mut sessions = Vec::new();
        for key in [issued.key(), token.key(), bystander.key()] {
            sessions.push(connect(&one, key).await.expect("let in").revoked());
        }
        let stays = sessions.pop().unwrap();
        let begun = Instant::now();
        match round % 3 {
            0 => assert_eq!(other.revoke(issued.record().id()).await.unwrap(), 2),
            1 => assert!(other.revoke_account("acme").await.unwrap() >= 2),
            _ => assert!(other.remove(issued.record().id()).await.unwrap()),
        }
        for session in sessions {
            timeout(SOON, session).await.expect("heard");
        }
        slowest = slowest.max(begun.elapsed());
        assert!(stays.now_or_never().is_none(), "no others");
    }
    println!("the slowest of 12 after {slowest:?}");
    assert!(one.store().revocations().unwrap().is_current());
}

/// Also of keys that the file has forgotten, and more of them than are read at once.
#[tokio::test]
async fn no_news_is_missed() {
    let (_folder, path) = place();
    let (one, other) = (open(&path).await, open(&path).await);
    let stamp = Stamp::new(NOW);
    let record = |id: &str| {
        let digest = KeyDigest::from_bytes([7; 32]);
        Arc::new(KeyRecord::new(KeyId::new(id), digest, "acme", KeyKind::Secret, NOW))
    };
    let hub = one.store().revocations().unwrap();
    let mut sessions: Vec<_> = ["first", "last", "never"]
        .map(|id| hub.watch(record(id), hub.epoch()))
        .into_iter()
        .collect();
    assert!(sessions.iter_mut().all(|session| session.now_or_never().is_none()));

    let revoke = |id: String| other.store().revoke(&Revocation::Key(KeyId::new(id)), &stamp);
    let mut answers = vec![revoke("first".into())];
    for number in 0..900 {
        answers.push(revoke(format!("key_{number}")));
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap(), 0);
    }
    let mut answers: Vec<_> = (0..900).map(|number| revoke(format!("yek_{number}"))).collect();
    answers.push(revoke("last".into()));
    for answer in answers {
        assert_eq!(answer.await.unwrap(), 0);
    }
    let never = sessions.pop().unwrap();
    for session in sessions {
        timeout(SOON, session).await.expect("heard");
    }
    assert!(never.now_or_never().is_none());
}

#[test]
fn many_may_make_the_file_at_once() {
    for _ in 0..10 {
        let (_folder, path) = place();
        let opened: Vec<_> = thread::scope(|scope| {
            let open = || {
                let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(SqliteStore::open(&path))
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stores: Vec<_> = opened.into_iter().map(|store| store.expect("a store")).collect();
            let digest = KeyDigest::from_bytes([1; 32]);
            let record = KeyRecord::new(KeyId::new("a"), digest, "acme", KeyKind::Secret, NOW);
            let inserted = stores[0].insert(record, None, &Stamp::new(NOW)).await.unwrap();
            assert_eq!(inserted, Inserted::Yes);
            for store in &stores {
                assert!(store.lookup(&digest).await.unwrap().is_some(), "all have the same");
            }
        });
    }
}

// ---- Processes ----

#[tokio::test]
async fn what_another_process_revokes_is_refused_and_heard_here() {
    let (_folder, path) = place();
    // Both make the file.
    let mut process = Process::start(&path);
    let keys = open(&path).await;
    for _ in 0..10 {
        let issued = issue(&keys, "acme").await;
        let session = connect(&keys, issued.key()).await.unwrap().revoked();
        assert_eq!(process.ask(&format!("connect {}", issued.key().expose())), "200");
        assert_eq!(process.ask(&format!("revoke {}", issued.record().id())), "1");
        assert_eq!(status(&keys, issued.key()).await, StatusCode::UNAUTHORIZED);
        timeout(SOON, session).await.expect("heard");
    }
    let theirs = process.ask("issue acme");
    let (id, key) = theirs.split_once(' ').unwrap();
    let key = ApiKey::new(key).unwrap();
    assert_eq!(status(&keys, &key).await, StatusCode::OK);
    keys.revoke(&KeyId::new(id)).await.unwrap();
    assert_eq!(process.ask(&format!("connect {}", key.expose())), "401");
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let (_folder, path) = place();
    let mut answered = Vec::new();
    for _ in 0..5 {
        let mut process = Process::start(&path);
        process.tell("issue_for_ever acme");
        for _ in 0..20 {
            answered.push(process.hear().expect("a key"));
        }
        process.kill();
        // What it said before it died.
        answered.extend(std::iter::from_fn(|| process.hear()));
    }
    let keys = open(&path).await;
    for key in &answered {
        assert_eq!(status(&keys, &ApiKey::new(key).unwrap()).await, StatusCode::OK);
    }
    assert!(answered.len() >= 100);
}

// ---- Without news ----

#[tokio::test]
async fn sessions_are_told_when_the_file_is_away_for_too_long() {
    let (folder, path) = place();
    let options = SqliteOptions::default()
        .with_revoked_within(Duration::from_millis(20))
        .with_patience(Duration::from_millis(200));
    let keys = Keys::new(SqliteStore::open_with(&path, options).await.unwrap());
    let issued = issue(&keys, "acme").await;
    let hub = keys.store().revocations().unwrap();
    let mut session = connect(&keys, issued.key()).await.unwrap().revoked();
    assert!((&mut session).now_or_never().is_none());

    let away = folder.path().join("away");
    std::fs::rename(&path, &away).unwrap();
    timeout(SOON, session).await.expect("told");
    assert!(!hub.is_current());
    std::fs::rename(&away, &path).unwrap();
    until(|| hub.is_current()).await;
    assert_eq!(status(&keys, issued.key()).await, StatusCode::OK);
}

#[tokio::test]
async fn another_runtime_brings_the_news_until_nobody_listens() {
    let (_folder, path) = place();
    let runtime = CountingRuntime::default();
    let options = SqliteOptions::default();
    let store = SqliteStore::open_with_runtime(&path, options, runtime.clone()).await.unwrap();
    let (keys, other) = (Keys::new(store), open(&path).await);
    let issued = issue(&keys, "acme").await;
    let session = connect(&keys, issued.key()).await.unwrap().revoked();
    other.revoke(issued.record().id()).await.unwrap();
    timeout(SOON, session).await.expect("heard");
    assert_eq!((runtime.spawned(), runtime.running()), (1, 1));
    drop(keys);
    runtime.idle().await;
}

/// Yields until it is so.
async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waiting).await.expect("it comes");
}
