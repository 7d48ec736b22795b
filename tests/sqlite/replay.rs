//! T18: a token for N sessions opens N, however many try at once in two processes.

use std::time::{Duration, SystemTime};

use tower_realtime_auth::{
    Grants, Issued, KeyFilter, KeyKind, Keys, ManualClock, NewToken, SqliteStore, http::StatusCode,
};

use crate::{MINUTE, connect, figure, handshakes, issue, open, place, process::Process};

/// How many try each token, in either process.
const TRIES: usize = 25;

/// How many handshakes were answered with what `inner` answers: here, and in the other process.
async fn try_in_both(
    keys: &Keys<SqliteStore>,
    process: &mut Process,
    token: &Issued,
    inner: StatusCode,
) -> (usize, usize) {
    let (status, key) = (inner.as_u16(), token.key().expose());
    process.tell(&format!("handshakes {TRIES} {status} {key}"));
    assert_eq!(process.hear().expect("an answer"), "begun");
    let here = handshakes(keys, token.key(), TRIES, inner).await;
    let there = process.hear().expect("an answer").parse().expect("a number");
    (here, there)
}

/// `SQLITE_REPLAY_TOKENS` sets another number of tokens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_as_many_sessions_as_it_has_uses_in_all_processes() {
    let (_folder, path) = place();
    let clock = ManualClock::new(SystemTime::now().into());
    let keys = open(&path).await.with_clock(clock.clone());
    let mut process = Process::start(&path);
    let secret = issue(&keys, "acme").await;
    let parent = connect(&keys, secret.key()).await.expect("let in");
    let (opened, failed) = (StatusCode::SWITCHING_PROTOCOLS, StatusCode::BAD_GATEWAY);
    let tokens = figure("SQLITE_REPLAY_TOKENS", 40);
    let mut by_either = [0, 0];
    for round in 0..tokens {
        let uses = [1, 1, 1, 7][round % 4];
        let grants = Grants::default().with_uses(uses);
        let token = NewToken::lasting(60 * MINUTE).with_grants(grants);
        let token = keys.mint(&parent, token).await.expect("a token");
        if round % 5 == 0 {
            // Handshakes that come to nothing, each of which gives its use back.
            let (here, there) = try_in_both(&keys, &mut process, &token, failed).await;
            assert!(here + there >= uses as usize, "{here} here and {there} there");
            // Behind another write of the same store it is written.
            issue(&keys, "other").await;
            process.ask("issue other");
        }
        let (here, there) = try_in_both(&keys, &mut process, &token, opened).await;
        assert_eq!(here + there, uses as usize, "round {round}: {here} here and {there} there");
        by_either = [by_either[0] + here, by_either[1] + there];
    }
    println!("opened here and there: {by_either:?}");
    assert!(by_either.iter().all(|opened| *opened > 0), "{by_either:?} is no race");

    // Nothing of it is left a minute after the tokens have expired: each key that is made takes
    // some with it.
    clock.advance(61 * MINUTE + Duration::from_secs(60));
    for _ in 0..=tokens / 64 {
        issue(&keys, "acme").await;
    }
    let mut left = keys.list(&KeyFilter::default()).await.expect("a list");
    left.retain(|record| record.kind() == KeyKind::Ephemeral);
    assert!(left.is_empty(), "{} are left", left.len());
}
