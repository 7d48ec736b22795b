//! What the guard costs: on audio, against a full parse of the same event; and in memory.
//!
//! `cargo bench --bench guard`. The last lines state the ratios of one run, the shortest times of
//! many turns, and the bytes of a session. The bar: a guarded audio event is at least five times
//! as fast as `serde_json` into a `Value`.

use std::{
    convert::Infallible,
    env,
    hint::black_box,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::extract::ws::Message;
use criterion::Criterion;
use futures_util::{FutureExt as _, Sink, Stream, StreamExt as _};
use serde_json::Value;
use tower_realtime_auth::{Grants, GuardedSocket, SessionGuard, Settings, Verdict};

/// The lengths of base64 audio that clients send: 20 ms and 200 ms at 24 kHz and 16 bit.
const AUDIO: [(&str, usize); 2] = [("1.3 KB", 1_280), ("13 KB", 12_800)];
/// How often the cases take turns. The shortest time of all counts: it is the least disturbed.
const TURNS: u32 = 2_000;
/// Repetitions whose time is taken at once.
const BATCH: u32 = 64;
/// How many sessions are held at once.
const SESSIONS: usize = 100_000;
/// How many times faster than a full parse the guard must be.
const BAR: f64 = 5.0;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, length) in AUDIO {
        let event = audio(length);
        let mut guard = guard();
        criterion.bench_function(&format!("guard, {name} of audio"), |bencher| {
            bencher.iter(|| guarded(&mut guard, black_box(&event)));
        });
        criterion.bench_function(&format!("serde_json, {name} of audio"), |bencher| {
            bencher.iter(|| parsed(black_box(&event)));
        });
    }
    let update = r#"{"type":"session.update","session":{"voice":"b","speed":1}}"#;
    let mut locked = guard();
    criterion.bench_function("guard, a locked change", |bencher| {
        bencher.iter(|| guarded(&mut locked, black_box(update)));
    });
    criterion.final_summary();
    // `cargo test` only wants to know that all of this runs.
    if env::args().any(|argument| argument == "--bench") {
        print_ratios();
        print_memory();
    }
}

fn guard() -> SessionGuard {
    let settings = r#"{"voice":"a","instructions":"Be kind.","tools":[]}"#;
    let settings = Settings::parse(settings).expect("these are settings");
    let grants = Grants::default().with_session(settings);
    SessionGuard::new(&grants.with_max_session(Duration::from_secs(600)), None)
}

fn audio(length: usize) -> String {
    let audio = "UklGRiQAAABXQVZF".repeat(length / 16);
    format!(r#"{{"type":"input_audio_buffer.append","event_id":"event_1","audio":"{audio}"}}"#)
}

fn guarded(guard: &mut SessionGuard, event: &str) -> bool {
    matches!(guard.client(event), Verdict::Forward(_))
}

fn parsed(event: &str) -> Value {
    serde_json::from_str(event).expect("this is JSON")
}

fn print_ratios() {
    for (name, length) in AUDIO {
        let event = audio(length);
        let mut guard = guard();
        assert!(guarded(&mut guard, &event));
        let (mut guard_time, mut parse_time) = (Duration::MAX, Duration::MAX);
        for _ in 0..TURNS {
            guard_time = guard_time.min(time(|| {
                black_box(guarded(&mut guard, black_box(&event)));
            }));
            parse_time = parse_time.min(time(|| drop(black_box(parsed(black_box(&event))))));
        }
        let ratio = parse_time.as_secs_f64() / guard_time.as_secs_f64();
        let verdict = if ratio >= BAR { "met" } else { "MISSED" };
        println!(
            "{name}: guard {guard_time:?}, serde_json {parse_time:?}: {ratio:.1} times as fast \
             (bar {BAR}: {verdict})"
        );
    }
}

/// The time of one repetition.
fn time(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..BATCH {
        work();
    }
    start.elapsed() / BATCH
}

/// What sessions of one token take: the guard alone, and the guarded socket with its deadline
/// running, without the socket inside.
fn print_memory() {
    let before = resident_bytes();
    let first = guard();
    let guards: Vec<_> = (0..SESSIONS).map(|_| first.clone()).collect();
    print_bytes("guards", guards, resident_bytes() - before);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    let _context = runtime.enter();
    let before = resident_bytes();
    let sockets: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let mut socket = Box::pin(GuardedSocket::<_, Wire>::new(Silent, first.clone()));
            assert!(socket.as_mut().next().now_or_never().is_none(), "nobody says anything");
            socket
        })
        .collect();
    print_bytes("guarded sockets", sockets, resident_bytes() - before);
}

fn print_bytes<T>(what: &str, held: Vec<T>, bytes: usize) {
    println!("{} {what} of one token: {} bytes each", held.len(), bytes / held.len());
}

tower_realtime_auth::wire!(struct Wire for axum::extract::ws);

/// A socket on which nothing happens.
struct Silent;

impl Stream for Silent {
    type Item = Result<Message, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Pending
    }
}

impl Sink<Message> for Silent {
    type Error = Infallible;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, _: Message) -> Result<(), Infallible> {
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

/// The memory that this process holds; nothing where the system does not tell.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}
