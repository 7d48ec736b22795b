//! T21: a token works as soon as it is answered, and not once its key was revoked.
//!
//! `MINT_ROUNDS` says how often each is tried.

use std::{
    env, hint,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tower_realtime_auth::http::StatusCode;

use super::{Desk, OPENED, REFUSED, Reply};

/// How many rounds; `MINT_ROUNDS` sets another number.
fn rounds() -> usize {
    env::var("MINT_ROUNDS").map_or(500, |number| number.parse().expect("a number of rounds"))
}

/// What a thread without a runtime of its own gets: a store in memory lets nobody wait.
fn mint(desk: &Desk) -> Reply {
    desk.mint("{}").now_or_never().expect("no waiting")
}

fn handshake(desk: &Desk, token: &str) -> StatusCode {
    desk.handshake(token).now_or_never().expect("no waiting")
}

/// One thread mints and hands the token to another, which connects while the first mints on. Two
/// such pairs share a store, whose lock they contend for.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_as_soon_as_it_is_answered() {
    const PAIRS: usize = 2;
    let desk = Desk::open().await;
    let endpoint = desk.endpoint.clone().with_max_live_tokens(u32::MAX);
    let (desk, runtime) = (&Desk { endpoint, ..desk }, &Handle::current());
    let opened = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..PAIRS {
            // Without room for any: who sends waits for who receives.
            let (answered, tokens) = mpsc::sync_channel::<String>(0);
            scope.spawn(move || {
                let _entered = runtime.enter();
                for _ in 0..rounds() / PAIRS {
                    answered.send(mint(desk).token().to_owned()).expect("somebody waits");
                }
            });
            let opened = &opened;
            scope.spawn(move || {
                let _entered = runtime.enter();
                for token in tokens {
                    assert_eq!(handshake(desk, &token), OPENED);
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(opened.into_inner(), rounds() / PAIRS * PAIRS);
}

/// How many tokens were answered, and in how many rounds the key was revoked when.
#[derive(Debug, Default)]
struct Outcomes {
    minted: usize,
    /// The layer refused a request.
    before_a_request: usize,
    /// The layer had let a request through, and the endpoint refused it.
    during_a_request: usize,
    after_all_requests: usize,
}

/// A key that is revoked while it mints: whatever was answered, before or after, none of it works
/// once both have answered.
#[tokio::test(flavor = "multi_thread")]
async fn no_token_outlives_its_key() {
    const MINTS: usize = 4;
    let runtime = Handle::current();
    let mut outcomes = Outcomes::default();
    for round in 0..100 * rounds() {
        // On a busy machine it may take longer until one is met in the middle.
        if round >= rounds() && outcomes.during_a_request > 0 {
            break;
        }
        let desk = Desk::open().await;
        let begun = AtomicUsize::new(0);
        let mint_some = || {
            let _entered = runtime.enter();
            let mut tokens = Vec::new();
            for _ in 0..MINTS {
                begun.fetch_add(1, Ordering::Release);
                let reply = mint(&desk);
                if reply.status != StatusCode::OK {
                    return (tokens, Some(reply));
                }
                tokens.push(reply.token().to_owned());
            }
            (tokens, None)
        };
        let (tokens, refused) = thread::scope(|scope| {
            let minting = scope.spawn(mint_some);
            // Within one of the requests, sooner or later.
            while begun.load(Ordering::Acquire) <= round % MINTS && !minting.is_finished() {
                thread::yield_now();
            }
            (0..round % 500).for_each(|_| hint::spin_loop());
            let revoked = desk.keys.revoke(desk.parent.record().id()).now_or_never();
            revoked.expect("no waiting").expect("revoked");
            minting.join().expect("no panic")
        });

        for token in &tokens {
            assert_eq!(handshake(&desk, token), REFUSED, "round {round}");
        }
        let stored = desk.tokens().await;
        assert!(stored.len() >= tokens.len());
        assert!(stored.iter().all(|token| token.is_revoked()), "round {round}: one is left");

        outcomes.minted += tokens.len();
        match refused {
            None => outcomes.after_all_requests += 1,
            Some(refused) => {
                assert_eq!(refused.status, REFUSED, "round {round}: {}", refused.json);
                assert_eq!(refused.fault().0, Some("invalid_api_key"), "round {round}");
                match refused.is_rejected {
                    true => outcomes.before_a_request += 1,
                    false => outcomes.during_a_request += 1,
                }
            }
        }
    }
    // Shown with `--nocapture`.
    println!("{outcomes:?}");
    let Outcomes { minted, before_a_request, during_a_request, .. } = outcomes;
    assert!(minted > 0 && before_a_request > 0 && during_a_request > 0, "there was no race");
}
