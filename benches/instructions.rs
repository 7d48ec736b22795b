//! One case, so many times: for a program that counts instructions (`tests/instructions.sh`).
//!
//! `instructions hash COUNT`, `instructions bare CASE COUNT`, `instructions layer CASE COUNT`,
//! `instructions lookup KEYS COUNT`.

mod cases;

use std::{env, hint::black_box};

use sha2::{Digest, Sha256};
use tower_realtime_auth::{KeyStore, MemoryStore};

use self::cases::{Bare, Case, Numbers, answer, digest, filled, layered};

fn main() {
    // Whatever is measured, the same is prepared, so that it cancels out.
    let (mut layered, key) = layered();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["hash", count] => {
            for _ in 0..number(count) {
                black_box(Sha256::digest(black_box(key.as_bytes())));
            }
        }
        ["bare", case, count] => {
            let request = named(case).request(&key);
            for _ in 0..number(count) {
                drop(black_box(answer(&mut Bare, request.clone())));
            }
        }
        ["layer", case, count] => {
            let request = named(case).request(&key);
            for _ in 0..number(count) {
                drop(black_box(answer(&mut layered, request.clone())));
            }
        }
        ["lookup", size, count] => {
            let store = filled(number(size));
            look_up(&store, number(size), number(count));
        }
        // `cargo bench` and `cargo test --all-targets` run it without a case.
        _ => eprintln!("nothing to count: see tests/instructions.sh"),
    }
}

/// A function of its own, which can be counted by its name.
#[inline(never)]
fn look_up(store: &MemoryStore, size: u64, count: u64) {
    let mut numbers = Numbers::default();
    for _ in 0..count {
        let found = store.lookup(&digest(numbers.below(size))).try_now();
        assert!(black_box(found.is_ok_and(|found| found.is_ok_and(|key| key.is_some()))));
    }
}

fn named(name: &str) -> Case {
    let mut cases = Case::MEASURED.into_iter();
    cases.find(|case| case.name() == name).expect("the name of a case")
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}
