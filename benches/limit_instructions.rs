//! One limited request, so many times: for a program that counts instructions
//! (`tests/instructions.sh`). Apart from `instructions`, because a layer that is used in two ways
//! is compiled in other pieces.
//!
//! `limit_instructions auth CASE COUNT`, `limit_instructions both CASE COUNT`.

mod cases;

use std::{env, hint::black_box};

use self::cases::{
    answer,
    limits::{Limited, alone, limited},
};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [layers @ ("auth" | "both"), case, count] = *arguments else {
        // `cargo bench` and `cargo test --all-targets` run it without a case.
        return eprintln!("nothing to count: see tests/instructions.sh");
    };
    let mut cases = Limited::ALL.into_iter();
    let case = cases.find(|one| one.name() == case).expect("the name of a case");
    let count: u64 = count.parse().expect("a number");
    // Whatever is measured, the same is prepared, so that it cancels out.
    let (keys, texts) = case.keys(1);
    let (mut alone, mut limited) = (alone(keys.clone()), limited(keys));
    let request = case.request(&texts[0]);
    for _ in 0..count {
        let request = request.clone();
        drop(black_box(match layers {
            "auth" => answer(&mut alone, request),
            _ => answer(&mut limited, request),
        }));
    }
}
