//! T19, T21: connects and mints while another process revokes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    task::{self, JoinSet, block_in_place},
    time::timeout,
};
use tower_realtime_auth::{KeyFilter, KeyKind, MintError, NewToken, Revoked, http::StatusCode};

use crate::{
    MINUTE, connect, figure, issue, open, place, process::Process, slowest, status, support::SOON,
};

/// T19: a connect that begins after another process has answered that the key is revoked is
/// refused; the session of one that came before is told. `RACES` sets another number of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_after_the_answer_of_another_process_is_refused() {
    const CONNECTORS: usize = 4;
    let (_folder, path) = place();
    let (keys, mut process) = (open(&path).await, Process::start(&path));
    let rounds = figure("RACES", 2_000) / CONNECTORS;
    let (mut won, mut lost, mut told) = (0, 0, JoinSet::new());
    for round in 0..rounds {
        let issued = Arc::new(issue(&keys, "acme").await);
        let (answered, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let revoke = format!("revoke {}", issued.record().id());
        // Every other time it is revoked while they begin, else once they are about it, at another
        // moment each time.
        let is_first = round % 2 == 0;
        if is_first {
            process.tell(&revoke);
        }
        let mut connectors = JoinSet::new();
        for _ in 0..CONNECTORS {
            let (keys, issued) = (keys.clone(), Arc::clone(&issued));
            let (answered, begun) = (Arc::clone(&answered), Arc::clone(&begun));
            connectors.spawn(async move {
                let mut sessions: Vec<Revoked> = Vec::new();
                loop {
                    let must_fail = answered.load(Ordering::SeqCst);
                    begun.fetch_add(1, Ordering::SeqCst);
                    match connect(&keys, issued.key()).await {
                        Ok(principal) => {
                            assert!(!must_fail, "let in after the revocation was answered");
                            // The last few before the revocation.
                            if sessions.len() == 4 {
                                drop(sessions.remove(0));
                            }
                            sessions.push(principal.revoked());
                        }
                        Err(status) => {
                            assert_eq!(status, StatusCode::UNAUTHORIZED);
                            return (sessions, must_fail);
                        }
                    }
                }
            });
        }
        while !is_first && begun.load(Ordering::SeqCst) < round % 13 {
            task::yield_now().await;
        }
        let revoked = block_in_place(|| {
            if !is_first {
                process.tell(&revoke);
            }
            process.hear().expect("an answer")
        });
        let at = Instant::now();
        answered.store(true, Ordering::SeqCst);
        assert_eq!(revoked, "1");
        assert_eq!(status(&keys, issued.key()).await, StatusCode::UNAUTHORIZED);
        for (sessions, _) in connectors.join_all().await {
            *(if sessions.is_empty() { &mut lost } else { &mut won }) += 1;
            for session in sessions {
                told.spawn(async move {
                    session.await;
                    Instant::now().saturating_duration_since(at)
                });
            }
        }
    }
    let told = timeout(SOON, told.join_all()).await.expect("all are told");
    let (sessions, (nearly_all, all)) = (told.len(), slowest(told));
    println!(
        "{won} were let in before, {lost} were not; of {sessions} sessions 99 of 100 were told \
         after {nearly_all:?}, all after {all:?}"
    );
    assert_eq!(won + lost, rounds * CONNECTORS);
    assert!(won > 0 && lost > 0, "{won} to {lost} is no race");
    assert!(nearly_all < Duration::from_secs(5), "{nearly_all:?}");
}

/// T21: what one process has answered, another knows. `SQLITE_MINT_ROUNDS` sets another number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_works_in_another_process_as_soon_as_it_is_answered() {
    let (_folder, path) = place();
    let (keys, mut process) = (open(&path).await, Process::start(&path));
    for round in 0..figure("SQLITE_MINT_ROUNDS", 500) {
        let issued = issue(&keys, "acme").await;
        let parent = connect(&keys, issued.key()).await.expect("let in");
        let token = keys.mint(&parent, NewToken::lasting(MINUTE)).await.expect("a token");
        let connect = format!("connect {}", token.key().expose());
        assert_eq!(block_in_place(|| process.ask(&connect)), "200", "round {round}");
    }
}

/// T21: a key that another process revokes while it mints. Whatever was answered, before or after,
/// none of it works once both have answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_outlives_its_key_that_another_process_revokes() {
    const MINTS: usize = 4;
    let (_folder, path) = place();
    let (keys, mut process) = (open(&path).await, Process::start(&path));
    let (mut minted, mut refused) = (0, 0);
    for round in 0..figure("SQLITE_MINT_ROUNDS", 500) {
        let account = format!("acme {round}");
        let issued = issue(&keys, &account).await;
        let parent = connect(&keys, issued.key()).await.expect("let in");
        let (minting, begun) = (keys.clone(), Arc::new(AtomicUsize::new(0)));
        let begun_there = Arc::clone(&begun);
        let minting = tokio::spawn(async move {
            let mut tokens = Vec::new();
            for _ in 0..MINTS {
                begun_there.fetch_add(1, Ordering::SeqCst);
                match minting.mint(&parent, NewToken::lasting(MINUTE)).await {
                    Ok(token) => tokens.push(token),
                    Err(MintError::ParentGone) => break,
                    Err(other) => panic!("{other}"),
                }
            }
            tokens
        });
        while begun.load(Ordering::SeqCst) < round % MINTS {
            task::yield_now().await;
        }
        let revoke = format!("revoke {}", issued.record().id());
        let revoked = block_in_place(|| process.ask(&revoke));
        assert!(revoked.parse::<usize>().is_ok(), "{revoked}");
        let tokens = minting.await.expect("no panic");
        for token in &tokens {
            assert_eq!(status(&keys, token.key()).await, StatusCode::UNAUTHORIZED, "{round}");
        }
        if let Some(token) = tokens.last() {
            let connect = format!("connect {}", token.key().expose());
            assert_eq!(block_in_place(|| process.ask(&connect)), "401", "round {round}");
        }
        let stored = keys.list(&KeyFilter::account(account)).await.expect("a list");
        let children = stored.iter().filter(|record| record.kind() == KeyKind::Ephemeral);
        assert!(children.clone().count() >= tokens.len());
        assert!(stored.iter().all(|record| record.is_revoked()), "round {round}: one is left");
        minted += tokens.len();
        refused += usize::from(tokens.len() < MINTS);
    }
    println!("{minted} tokens were minted; the revocation came first in {refused} rounds");
    assert!(minted > 0 && refused > 0, "there was no race");
}
