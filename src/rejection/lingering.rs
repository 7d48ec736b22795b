//! How many refused handshakes wait for their peers: in all, and by where they come from.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The counts. They return to zero as the waits end.
#[derive(Debug, Default)]
pub(super) struct Lingering(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    // No larger than `total`.
    by_source: HashMap<IpAddr, usize>,
}

impl Lingering {
    pub(super) fn total(&self) -> usize {
        self.lock().total
    }

    /// Takes a place unless one of the bounds is reached.
    pub(super) fn enter(&self, max_total: usize, source: Option<(IpAddr, usize)>) -> bool {
        let mut counts = self.lock();
        if counts.total >= max_total {
            return false;
        }
        if let Some((source, max)) = source {
            let of_source = counts.by_source.entry(network(source)).or_default();
            if *of_source >= max {
                return false;
            }
            *of_source += 1;
        }
        counts.total += 1;
        true
    }

    /// Gives a place back.
    pub(super) fn leave(&self, source: Option<IpAddr>) {
        let mut counts = self.lock();
        counts.total = counts.total.saturating_sub(1);
        if let Some(source) = source
            && let Entry::Occupied(mut of_source) = counts.by_source.entry(network(source))
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

/// What one peer holds: an IPv4 address, or an IPv6 network of 64 bits (RFC 6177 §2).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) & (u128::MAX << 64)).to_be_bytes()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_counts_return_to_zero() {
        let lingering = Lingering::default();
        let [a, a2, b]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
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

    #[test]
    fn an_ipv4_address_is_one_in_both_spellings() {
        let [plain, mapped]: [IpAddr; 2] =
            ["192.0.2.1", "::ffff:192.0.2.1"].map(|text| text.parse().unwrap());
        assert_eq!(network(plain), network(mapped));
        assert_ne!(network(plain), network("192.0.2.2".parse().unwrap()));
    }
}
