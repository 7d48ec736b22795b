//! T32: a key has as many live tokens as it may have, however often and by how many it is asked.
//!
//! `MINTS_PAST_CAP` says how often.

use std::{env, sync::Barrier, thread, time::Duration};

use allocation_counter::measure;
use futures_util::FutureExt as _;
use http_body_util::Full;
use tokio::runtime::Handle;
use tower_realtime_auth::{Issued, NewKey, NewToken, bytes::Bytes, http::StatusCode};

use super::{Desk, OPENED, Reply, request_by};

/// How many ask at once.
const THREADS: usize = 8;

/// How often it is asked for more; `MINTS_PAST_CAP` sets another number.
fn past_cap() -> usize {
    env::var("MINTS_PAST_CAP").map_or(1_000, |number| number.parse().expect("a number of mints"))
}

impl Desk {
    /// A desk whose keys may have that many live tokens.
    async fn with_cap(cap: u32) -> Self {
        let desk = Self::open().await;
        let endpoint = desk.endpoint.clone().with_max_live_tokens(cap);
        Self { endpoint, ..desk }
    }

    async fn mint_by(&self, key: &Issued) -> Reply {
        self.answer(request_by(key.key().expose(), Full::<Bytes>::default())).await
    }

    /// Whether `key` gets a token; if not, it is told that it has too many.
    async fn gets_one(&self, key: &Issued) -> bool {
        let reply = self.mint_by(key).await;
        if reply.status == StatusCode::OK {
            return true;
        }
        assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS, "{}", reply.json);
        assert_eq!(reply.fault(), (Some("too_many_tokens"), None));
        assert_eq!(reply.headers["retry-after"], "1");
        false
    }

    /// How many tokens `key` gets when it asks for `asked`.
    async fn gets(&self, key: &Issued, asked: usize) -> usize {
        let mut minted = 0;
        for _ in 0..asked {
            minted += usize::from(self.gets_one(key).await);
        }
        minted
    }
}

#[tokio::test]
async fn nothing_is_minted_past_the_cap() {
    const CAP: usize = 100;
    let desk = Desk::with_cap(CAP as u32).await;
    let mut tokens = Vec::new();
    for _ in 0..CAP {
        tokens.push(desk.mint_by(&desk.parent).await.token().to_owned());
    }
    assert_eq!(desk.gets(&desk.parent, past_cap()).await, 0);
    assert_eq!(desk.tokens().await.len(), CAP);
    // Who came first keeps what it got.
    for token in &tokens {
        assert_eq!(desk.handshake(token).await, OPENED);
    }

    // Another key of the account has a cap of its own.
    let other = desk.keys.issue(NewKey::secret("acme")).await.unwrap();
    assert_eq!(desk.gets(&other, CAP + 10).await, CAP);
    assert_eq!(desk.gets(&desk.parent, 10).await, 0);

    // One that is revoked makes room for one, however often it is revoked.
    let own = desk.tokens().await;
    let own = own.iter().find(|token| token.parent().unwrap().id() == desk.parent.record().id());
    for _ in 0..2 {
        desk.keys.revoke(own.unwrap().id()).await.unwrap();
    }
    assert_eq!(desk.gets(&desk.parent, 10).await, 1);
    assert_eq!(desk.gets(&other, 10).await, 0);

    // All that have expired make room for as many.
    desk.clock.advance(Duration::from_millis(59_999));
    assert_eq!(desk.gets(&desk.parent, 10).await, 0);
    desk.clock.advance(Duration::from_millis(1));
    assert_eq!(desk.gets(&desk.parent, CAP + 10).await, CAP);
    assert_eq!(desk.gets(&other, CAP + 10).await, CAP);
}

/// Two keys, whose minters ask all at once: each gets what it may have, neither less nor more.
#[tokio::test(flavor = "multi_thread")]
async fn the_cap_is_reached_by_many_at_once() {
    const CAP: usize = 100;
    let desk = Desk::with_cap(CAP as u32).await;
    let other = desk.keys.issue(NewKey::secret("acme")).await.unwrap();
    let parents = [&desk.parent, &other];
    let (desk, runtime, together) = (&desk, &Handle::current(), &Barrier::new(THREADS));
    let minted = thread::scope(|scope| {
        let minting: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let _entered = runtime.enter();
                    together.wait();
                    let minted = desk.gets(parents[thread % 2], past_cap() / THREADS);
                    minted.now_or_never().expect("no waiting")
                })
            })
            .collect();
        let minted = minting.into_iter().map(|thread| thread.join().expect("no panic"));
        minted.enumerate().fold([0, 0], |mut sums, (thread, minted)| {
            sums[thread % 2] += minted;
            sums
        })
    });
    assert_eq!(minted, [CAP, CAP]);
    assert_eq!(desk.tokens().await.len(), 2 * CAP);
}

/// Room for one, and eight who want it: one of them gets it, every time (B31).
#[tokio::test(flavor = "multi_thread")]
async fn the_last_place_is_given_to_one() {
    let desk = Desk::with_cap(1).await;
    let (desk, runtime, together) = (&desk, &Handle::current(), &Barrier::new(THREADS));
    let ask = || {
        let _entered = runtime.enter();
        together.wait();
        desk.gets_one(&desk.parent).now_or_never().expect("no waiting")
    };
    for round in 0..past_cap() / THREADS {
        let winners = thread::scope(|scope| {
            let asking = [(); THREADS].map(|()| scope.spawn(ask));
            asking
                .into_iter()
                .filter_map(|thread| thread.join().expect("no panic").then_some(()))
                .count()
        });
        assert_eq!(winners, 1, "round {round}");
        // Room again.
        desk.clock.advance(Duration::from_secs(60));
    }
}

/// What tokens take in memory is returned a minute after they have expired.
#[test]
fn expired_tokens_return_their_memory() {
    const TOKENS: usize = 1_000;
    let desk = Desk::open().now_or_never().expect("no waiting");
    let generation = || {
        desk.clock.advance(Duration::from_secs(60 + 60));
        for _ in 0..TOKENS {
            let token = NewToken::lasting(Duration::from_secs(60));
            let minted = desk.keys.mint(&desk.principal(), token).now_or_never();
            minted.expect("no waiting").expect("a token");
        }
    };
    let first = measure(generation).bytes_current;
    // The tables are as large as they get.
    generation();
    let later = measure(|| (0..8).for_each(|_| generation())).bytes_current;
    assert!(first > 100 * TOKENS as i64, "{first} bytes are not all that {TOKENS} tokens take");
    assert!(later.abs() < first / 4, "{first} bytes at first, and {later} more in the end");
}
