//! When a key was last used.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::UnixMillis;

/// Shared by all copies of a record. Zero stands for never.
#[derive(Debug, Clone, Default)]
pub(super) struct LastUsed(Arc<AtomicU64>);

impl LastUsed {
    pub(super) fn at(at: Option<UnixMillis>) -> Self {
        Self(Arc::new(AtomicU64::new(at.map_or(0, UnixMillis::get))))
    }

    pub(super) fn get(&self) -> Option<UnixMillis> {
        let millis = self.0.load(Ordering::Relaxed);
        (millis != 0).then(|| UnixMillis::new(millis))
    }

    /// The latest time stands, whoever comes last.
    pub(super) fn note(&self, at: UnixMillis) {
        // A plain load first: many requests of one key in one millisecond then share the line.
        if self.0.load(Ordering::Relaxed) < at.get() {
            self.0.fetch_max(at.get(), Ordering::Relaxed);
        }
    }
}
