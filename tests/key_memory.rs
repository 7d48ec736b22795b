//! What keys cost in memory, in bytes that are allocated and still held.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tower_realtime_auth::{
    Budget, Counted, Demand, Environment, Inserted, KeyAdmin as _, KeyDigest, KeyId, KeyKind,
    KeyRecord, KeyStore as _, LimitStore as _, MemoryLimits, MemoryStore, Parent, Payer,
    Revocations, Stamp, UnixMillis,
};

/// A record on the heap: itself and the two counts of its `Arc`.
const RECORD: u64 = (size_of::<KeyRecord>() + 2 * size_of::<usize>()) as u64;
/// What the audit trail may hold, however many keys there are.
const AUDIT: u64 = 2 << 20;
const NOW: UnixMillis = UnixMillis::new(1_000_000);

/// As many as `INDEXED_KEYS` says.
fn how_many() -> u64 {
    let set = std::env::var("INDEXED_KEYS");
    set.map_or(120_000, |count| count.parse().expect("a number of keys"))
}

fn record(number: u64, kind: KeyKind) -> KeyRecord {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_ne_bytes());
    let (id, digest) = (KeyId::new(format!("key_{number:020}")), KeyDigest::from_bytes(digest));
    KeyRecord::new(id, digest, "acme", kind, NOW)
}

/// Bytes per record beyond the records themselves, once the store has taken all of them in.
fn beyond_records(mut records: impl ExactSizeIterator<Item = KeyRecord>) -> u64 {
    let (store, count) = (MemoryStore::new(), records.len() as u64);
    let held = held_by(|| {
        for record in &mut records {
            let inserted = store.insert(record, None, &Stamp::new(NOW)).now_or_never();
            let inserted = inserted.expect("memory answers at once").expect("it answers");
            assert_eq!(inserted, Inserted::Yes);
        }
    });
    let last = record(count - 1, KeyKind::Secret);
    let found = store.lookup(last.digest()).now_or_never().expect("at once").expect("an answer");
    assert_eq!(found.expect("a record").id(), last.id());
    held.saturating_sub(AUDIT) / count - RECORD
}

/// The bytes that `work` has allocated and not freed.
fn held_by(work: impl FnOnce()) -> u64 {
    let held = allocation_counter::measure(work).bytes_current;
    held.try_into().expect("more was allocated than freed")
}

#[test]
fn the_index_of_a_secret_key() {
    let records: Vec<_> = (0..how_many()).map(|number| record(number, KeyKind::Secret)).collect();
    let bytes = beyond_records(records.into_iter());
    println!("{bytes} bytes a key, beside a record of {RECORD}");
    assert!(bytes <= 90, "{bytes} bytes a key");
}

/// A token is also found by its parent and by when it expires.
#[test]
fn the_index_of_a_token() {
    let parents: Vec<_> = (0..how_many().div_ceil(100))
        .map(|number| Parent::new(KeyId::new(format!("parent_{number:017}"))))
        .collect();
    let token = |number| {
        let parent = parents[number as usize / 100].clone();
        let expires_at = UnixMillis::new(NOW.get() + 60_000 + number);
        record(number, KeyKind::Ephemeral)
            .with_parent(Some(parent))
            .with_expires_at(Some(expires_at))
    };
    let records: Vec<_> = (0..how_many()).map(token).collect();
    let bytes = beyond_records(records.into_iter());
    println!("{bytes} bytes a token, beside a record of {RECORD}");
    assert!(bytes <= 200, "{bytes} bytes a token");
}

#[test]
fn a_session_that_waits_for_a_revocation() {
    let child = |number| {
        let parent = Parent::new(KeyId::new(format!("parent_{:017}", number / 100)));
        record(number, KeyKind::Ephemeral).with_parent(Some(parent))
    };
    for (of, most, record) in [
        ("a secret key", 120, &(|number| record(number, KeyKind::Secret)) as &dyn Fn(u64) -> _),
        ("a token", 180, &child),
    ] {
        let hub = Revocations::default();
        let waiting = (0..how_many()).map(|number| hub.watch(Arc::new(record(number)), 0));
        let mut waiting: Vec<_> = waiting.collect();
        let held = held_by(|| {
            assert!(waiting.iter_mut().all(|revoked| revoked.now_or_never().is_none()));
        });
        let bytes = held / how_many();
        println!("{bytes} bytes a session of {of}");
        assert!(bytes <= most, "{bytes} bytes a session of {of}");
    }
}

/// Of a key that was used in this minute, whose id its record has.
#[test]
fn a_budget_in_use() {
    let limits = MemoryLimits::new();
    let records: Vec<_> = (0..how_many()).map(|number| record(number, KeyKind::Secret)).collect();
    let held = held_by(|| {
        for record in &records {
            let payer = Payer::Line(record.id().clone());
            let budget = Budget::new(payer, Counted::Requests, Environment::Live);
            let taken = limits.take(&[Demand::new(budget, 1, 1)], NOW).now_or_never();
            drop(taken.expect("memory answers at once").expect("it answers"));
        }
    });
    assert_eq!(limits.len(), records.len());
    let bytes = held / how_many();
    println!("{bytes} bytes a budget");
    assert!(bytes <= 135, "{bytes} bytes a budget");
}
