//! What finding a key costs, by how many there are, and what handshakes a store keeps up with.
//!
//! `cargo bench --bench lookup`. 10,000,000 keys in memory, which take 5 GB, are measured with
//! `MOST_KEYS=10000000`. Filling an SQLite file with 1,000,000 takes minutes; `MOST_KEYS=100000`
//! does without. The files lie in the folder for temporary files and are in the system's cache.

mod cases;

use std::{env, hint::black_box, path::Path, time::Duration};

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use futures_util::{
    StreamExt,
    future::{join_all, try_join_all},
    stream,
};
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt};
use tower_realtime_auth::{
    Inserted, KeyAdmin, KeyStore, Keys, NewKey, SqliteStore, http::StatusCode,
};

use self::cases::{Bare, Case, Numbers, answer, digest, filled, layer, record, stamp};

/// How many handshakes a store in a file is asked about at once, each with a key of its own.
const IN_FLIGHT: usize = 64;
/// As many inserts share the writing to the disk.
const INSERTS: usize = 1_024;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let most = most_keys();
    in_memory(&mut short(&mut criterion, "lookup in memory"), most);
    in_file(&mut criterion, most.min(1_000_000));
    criterion.final_summary();
}

fn most_keys() -> u64 {
    // `cargo test` only wants to know that all of this runs.
    let is_bench = env::args().any(|argument| argument == "--bench");
    let default = if is_bench { 1_000_000 } else { 1_000 };
    env::var("MOST_KEYS").map_or(default, |most| most.parse().expect("a number of keys"))
}

fn short<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group
}

/// The powers of ten from 1,000 to `most`.
fn sizes(most: u64) -> impl Iterator<Item = u64> {
    (3..).map(|power| 10_u64.pow(power)).take_while(move |size| *size <= most)
}

fn in_memory(group: &mut BenchmarkGroup<'_, WallTime>, most: u64) {
    for size in sizes(most) {
        let (store, mut numbers) = (filled(size), Numbers::default());
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                let found = store.lookup(&digest(numbers.below(size))).try_now();
                assert!(black_box(found.is_ok_and(|found| found.is_ok_and(|key| key.is_some()))));
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    let (mut service, key) = cases::layered();
    let request = Case::Header.request(&key);
    group.bench_function("handshakes", |bencher| {
        bencher.iter(|| answer(&mut service, request.clone()));
    });
}

fn in_file(criterion: &mut Criterion, most: u64) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = short(criterion, "lookup in a file");
    let folder = tempfile::tempdir().expect("a folder");
    for size in sizes(most).filter(|size| *size != 10_000) {
        let path = folder.path().join(format!("{size}.db"));
        let store = runtime.block_on(filled_file(&path, size));
        let mut numbers = Numbers::default();
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("one after the other", size), |bencher| {
            bencher.iter(|| {
                let found = runtime.block_on(store.lookup(&digest(numbers.below(size))));
                assert!(black_box(found).is_ok_and(|found| found.is_some()));
            });
        });
        let keys = Keys::new(store);
        let issues = (0..IN_FLIGHT).map(|_| keys.issue(NewKey::secret("acme")));
        let issued = runtime.block_on(try_join_all(issues)).expect("keys");
        let requests: Vec<_> =
            issued.iter().map(|issued| Case::Header.request(issued.key().expose())).collect();
        let service = layer(keys).layer(Bare);
        group.throughput(Throughput::Elements(IN_FLIGHT as u64));
        group.bench_function(BenchmarkId::new("handshakes", size), |bencher| {
            bencher.iter(|| {
                let answers =
                    requests.iter().map(|request| service.clone().oneshot(request.clone()));
                for answered in runtime.block_on(join_all(answers)) {
                    let Ok(response) = answered;
                    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
                }
            });
        });
    }
}

async fn filled_file(path: &Path, size: u64) -> SqliteStore {
    let store = SqliteStore::open(path).await.expect("a store");
    let stamp = stamp();
    let inserts = stream::iter(0..size).map(|number| store.insert(record(number), None, &stamp));
    let mut inserts = inserts.buffer_unordered(INSERTS);
    while let Some(inserted) = inserts.next().await {
        assert_eq!(inserted.expect("an answer"), Inserted::Yes);
    }
    drop(inserts);
    store
}
