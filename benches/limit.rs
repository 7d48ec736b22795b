//! What the limit layer adds to a request, by what the request takes and how many keys are in use.
//!
//! `cargo bench --bench limit`. Criterion reports each case; at the end, all of them are measured
//! again in turns: "net" is the time of both layers less that of the auth layer alone, with the
//! giving back of what a session holds. Then eight threads at once.

mod cases;

use std::{
    convert::Infallible,
    env,
    hint::black_box,
    num::NonZero,
    thread,
    time::{Duration, Instant},
};

use criterion::Criterion;
use tower::Service;
use tower_realtime_auth::{
    bytes::Bytes,
    http::{Request, Response},
};

use self::cases::{
    Numbers, answer,
    limits::{Limited, alone, limited},
};

/// How many keys are in use.
const KEYS: [usize; 3] = [1, 1_000, 100_000];
/// As many requests are prepared before the clock runs.
const BATCH: u64 = 16;
/// How often the cases take turns. The middle of all times counts: the shortest would be that of
/// keys which the cache happens to hold.
const TURNS: u32 = 2_000;
const THREADS: usize = 8;
/// How many requests each of them sends.
const OF_EACH: u64 = 50_000;

/// One case with so many keys, whose time for that many requests can be taken.
struct Measured {
    name: String,
    time: Box<dyn FnMut(u64) -> Duration>,
}

fn main() {
    // `cargo test` only wants to know that all of this runs.
    let is_bench = env::args().any(|argument| argument == "--bench");
    let sizes = if is_bench { &KEYS[..] } else { &KEYS[..2] };
    let cases = || {
        let of_size = |size: &usize| Limited::ALL.map(|case| (case, *size));
        sizes.iter().flat_map(of_size)
    };
    let mut all: Vec<Measured> = cases().flat_map(|(case, keys)| pair(case, keys)).collect();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for Measured { name, time } in &mut all {
        criterion.bench_function(name, |bencher| bencher.iter_custom(&mut *time));
    }
    criterion.final_summary();
    if is_bench {
        print_ratios(&mut all);
        drop(all);
        KEYS.iter().for_each(|keys| print_threads(*keys));
    }
}

/// The same requests to the auth layer alone and to both layers.
fn pair(case: Limited, count: usize) -> [Measured; 2] {
    let (keys, texts) = case.keys(count);
    let name = |of: &str| format!("{of}, {} of {count} keys", case.name());
    [
        served(name("auth"), case, texts.clone(), alone(keys.clone())),
        served(name("both"), case, texts, limited(keys)),
    ]
}

fn served<S>(name: String, case: Limited, keys: Vec<String>, mut service: S) -> Measured
where
    S: Service<Request<()>, Response = Response<Bytes>, Error = Infallible> + 'static,
{
    // Every key is in use.
    keys.iter().for_each(|key| drop(answer(&mut service, case.request(key))));
    let mut numbers = Numbers::default();
    let time = move |count: u64| {
        let mut elapsed = Duration::ZERO;
        let mut done = 0;
        while done < count {
            let batch = BATCH.min(count - done);
            let any = || &keys[numbers.below(keys.len() as u64) as usize];
            let requests: Vec<_> = std::iter::repeat_with(any)
                .take(batch as usize)
                .map(|key| case.request(key))
                .collect();
            let start = Instant::now();
            for request in requests {
                drop(black_box(answer(&mut service, black_box(request))));
            }
            elapsed += start.elapsed();
            done += batch;
        }
        elapsed
    };
    Measured { name, time: Box::new(time) }
}

fn print_ratios(all: &mut [Measured]) {
    let mut times = vec![Vec::new(); all.len()];
    for _ in 0..TURNS {
        for (times, measured) in times.iter_mut().zip(&mut *all) {
            times.push((measured.time)(BATCH));
        }
    }
    let middle = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_nanos() as f64 / BATCH as f64
    };
    let nanos: Vec<f64> = times.iter_mut().map(middle).collect();
    println!("\n{:26}{:>10}{:>10}{:>10}{:>12}", "", "auth ns", "both ns", "net ns", "net / auth");
    for (measured, pair) in all.chunks(2).zip(nanos.chunks(2)) {
        let name = measured[0].name.trim_start_matches("auth, ");
        let (auth, both) = (pair[0], pair[1]);
        let net = both - auth;
        println!("{name:26}{auth:10.1}{both:10.1}{net:10.1}{:12.2}", net / auth);
    }
}

/// Requests in a second, from many threads at once.
fn print_threads(count: usize) {
    let (keys, texts) = Limited::Request.keys(count);
    let auth = throughput(&texts, &alone(keys.clone()));
    let both = throughput(&texts, &limited(keys));
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    println!(
        "{THREADS} threads on {cores} cores, {count} keys: auth {auth:.0}/s, both {both:.0}/s, {:.2} of it",
        both / auth
    );
}

fn throughput<S>(keys: &[String], service: &S) -> f64
where
    S: Service<Request<()>, Response = Response<Bytes>, Error = Infallible> + Clone + Send + Sync,
{
    let requests: Vec<_> = keys.iter().map(|key| Limited::Request.request(key)).collect();
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let requests = requests.iter().cycle().skip(number * keys.len() / THREADS);
            scope.spawn(move || {
                let mut service = service.clone();
                for request in requests.take(OF_EACH as usize) {
                    drop(black_box(answer(&mut service, request.clone())));
                }
            });
        }
    });
    (THREADS as u64 * OF_EACH) as f64 / start.elapsed().as_secs_f64()
}
