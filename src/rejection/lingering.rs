//! How many refused handshakes wait for their peers: in all, and by where they come from.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::address::Source;

/// The counts. They return to zero as the waits end.
#[derive(Debug, Default)]
pub(super) struct Lingering(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    // No larger than `total`.
    by_source: HashMap<Source, usize>,
}

impl Lingering {
    pub(super) fn total(&self) -> usize {
        self.lock().total
    }

    /// Takes a place unless one of the bounds is reached.
    pub(super) fn enter(&self, max_total: usize, source: Option<(Source, usize)>) -> bool {
        let mut counts = self.lock();
        if counts.total >= max_total {
            return false;
        }
        if let Some((source, max)) = source {
            let of_source = counts.by_source.entry(source).or_default();
            if *of_source >= max {
                return false;
            }
            *of_source += 1;
        }
        counts.total += 1;
        true
    }

    /// Gives a place back.
    pub(super) fn leave(&self, source: Option<Source>) {
        let mut counts = self.lock();
        counts.total = counts.total.saturating_sub(1);
        if let Some(source) = source
            && let Entry::Occupied(mut of_source) = counts.by_source.entry(source)
        {
            *of_source.get_mut() -= 1;
            if *of_source.get() == 0 {
                of_source.remove();
            }
        }
    }

    /// Nothing that holds the lock can leave the counts half changed.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_counts_return_to_zero() {
        let lingering = Lingering::default();
        let [a, a2, b] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
            .map(|text| Source::of(text.parse().unwrap()));
        assert!(lingering.enter(3, Some((a, 1))));
        assert!(!lingering.enter(3, Some((a2, 1))), "the same network");
        assert!(lingering.enter(3, Some((b, 1))));
        assert!(lingering.enter(3, None));
        assert!(!lingering.enter(3, None), "full");
        lingering.leave(Some(a2));
        assert!(lingering.enter(3, Some((a, 1))));
        for source in [Some(a), Some(b), None] {
            lingering.leave(source);
        }
        assert_eq!(lingering.total(), 0);
        assert!(lingering.lock().by_source.is_empty());
    }
}
