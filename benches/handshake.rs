//! What the layer adds to a handshake, by the place of its key.
//!
//! `cargo bench --bench handshake`. Criterion reports each case; at the end, all of them are
//! measured again in turns and stated as multiples of one bare SHA-256 of the same key. "Net" is
//! the layer's time less that of the bare service with the same request.

mod cases;

use std::{
    convert::Infallible,
    env,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::Criterion;
use sha2::{Digest, Sha256};
use tower::Service;
use tower_realtime_auth::{
    bytes::Bytes,
    http::{Request, Response},
};

use self::cases::{Bare, Case, answer, layered, pending_store};

/// As many requests are prepared before the clock runs, and dropped after it stopped. Few enough
/// to stay in the cache.
const BATCH: u64 = 16;
/// How often the cases take turns. The shortest time of all counts: it is the least disturbed.
const TURNS: u32 = 5_000;

/// Something whose time for that many repetitions can be taken.
struct Measured {
    name: String,
    time: Box<dyn FnMut(u64) -> Duration>,
}

fn main() {
    let mut all = measured();
    let mut criterion = Criterion::default().configure_from_args();
    for Measured { name, time } in &mut all {
        criterion.bench_function(name, |bencher| bencher.iter_custom(&mut *time));
    }
    criterion.final_summary();
    // `cargo test` only wants to know that all of this runs.
    if env::args().any(|argument| argument == "--bench") {
        print_ratios(&mut all);
    }
}

fn measured() -> Vec<Measured> {
    let (layered, key) = layered();
    let (pending, key_of_pending) = pending_store();
    let text = key.clone();
    let mut all = vec![measure(
        "sha256".to_owned(),
        move || text.clone(),
        |text| {
            // Dropping the text is no part of hashing it.
            let digest = Sha256::digest(text.as_bytes());
            (text, digest)
        },
    )];
    for case in Case::MEASURED {
        all.extend(pair(case.name(), &case.request(&key), layered.clone()));
    }
    all.extend(pair("pending store", &Case::Header.request(&key_of_pending), pending));
    all
}

/// A request to the bare service and to that within the layer.
fn pair<S>(name: &str, request: &Request<()>, layered: S) -> [Measured; 2]
where
    S: Service<Request<()>, Response = Response<Bytes>, Error = Infallible> + 'static,
{
    [
        served(format!("bare, {name}"), request.clone(), Bare),
        served(format!("layer, {name}"), request.clone(), layered),
    ]
}

fn served<S>(name: String, request: Request<()>, mut service: S) -> Measured
where
    S: Service<Request<()>, Response = Response<Bytes>, Error = Infallible> + 'static,
{
    measure(name, move || request.clone(), move |request| answer(&mut service, request))
}

fn measure<I, O>(
    name: String,
    input: impl Fn() -> I + 'static,
    mut work: impl FnMut(I) -> O + 'static,
) -> Measured {
    let time = move |count: u64| {
        let mut elapsed = Duration::ZERO;
        let mut done = 0;
        while done < count {
            let batch = BATCH.min(count - done);
            let inputs: Vec<I> = (0..batch).map(|_| input()).collect();
            let mut outputs = Vec::with_capacity(inputs.len());
            let start = Instant::now();
            outputs.extend(inputs.into_iter().map(|input| work(black_box(input))));
            elapsed += start.elapsed();
            drop(black_box(outputs));
            done += batch;
        }
        elapsed
    };
    Measured { name, time: Box::new(time) }
}

fn print_ratios(all: &mut [Measured]) {
    let mut shortest = vec![Duration::MAX; all.len()];
    for _ in 0..TURNS {
        for (shortest, measured) in shortest.iter_mut().zip(&mut *all) {
            *shortest = (measured.time)(BATCH).min(*shortest);
        }
    }
    let nanos: Vec<f64> =
        shortest.iter().map(|time| time.as_nanos() as f64 / BATCH as f64).collect();
    let [sha256, ref pairs @ ..] = nanos[..] else { return };
    println!("\nSHA-256 of the key: {sha256:.1} ns");
    println!("{:15}{:>10}{:>10}{:>10}{:>14}", "", "bare ns", "layer ns", "net ns", "net / SHA-256");
    for (measured, pair) in all[1..].chunks(2).zip(pairs.chunks(2)) {
        let name = measured[0].name.trim_start_matches("bare, ");
        let (bare, layer) = (pair[0], pair[1]);
        let net = layer - bare;
        println!("{name:15}{bare:10.1}{layer:10.1}{net:10.1}{:14.2}", net / sha256);
    }
}
