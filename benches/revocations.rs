//! What a revocation costs while 100,000 sessions listen.
//!
//! `cargo bench --bench revocations`

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion};
use futures_util::FutureExt;
use tower_realtime_auth::{
    KeyDigest, KeyId, KeyKind, KeyRecord, News, Revocations, Revoked, UnixMillis,
};

const SESSIONS: usize = 100_000;

/// Sessions of as many keys of one account, each of which listens.
fn listening(hub: &Revocations) -> Vec<Revoked> {
    let digest = KeyDigest::from_bytes([0; 32]);
    let sessions = (0..SESSIONS).map(|number| {
        let id = KeyId::new(format!("key_{number:020}"));
        let record = KeyRecord::new(id, digest, "acme", KeyKind::Secret, UnixMillis::new(0));
        let mut revoked = hub.watch(Arc::new(record), hub.epoch());
        assert!((&mut revoked).now_or_never().is_none());
        revoked
    });
    sessions.collect()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let hub = Revocations::default();
    let sessions = listening(&hub);
    let of_nobody = [KeyId::new(format!("key_{SESSIONS:020}"))];
    criterion.bench_function("one key", |bencher| {
        bencher.iter(|| hub.publish(News::Revoked(black_box(&of_nobody))));
    });
    drop(sessions);
    criterion.bench_function("all of them", |bencher| {
        bencher.iter_batched(
            || listening(&hub),
            |sessions| {
                hub.publish(black_box(News::Lost));
                sessions
            },
            BatchSize::PerIteration,
        );
    });
    criterion.final_summary();
}
