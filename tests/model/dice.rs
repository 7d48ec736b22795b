//! Chance, the same for the same seed.
#![allow(dead_code, reason = "each test uses its part")]

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng},
};

pub struct Dice(TestRng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    pub fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// The first choice mostly.
    pub fn prefer<T: Clone>(&mut self, choices: &[T]) -> T {
        if self.below(4) > 0 { choices[0].clone() } else { self.pick(choices) }
    }
}
