//! Who counts.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{Demand, Standing};
use crate::{Answer, StoreError, UnixMillis};

/// Counts what is taken of budgets.
///
/// [`MemoryLimits`](super::MemoryLimits) counts for one process; one that several processes share
/// can answer in one round trip.
pub trait LimitStore: Send + Sync + 'static {
    /// Takes all that is demanded, or nothing.
    ///
    /// In one atomic step: of any number that ask at once, no more pass than the limits allow, and
    /// who is refused leaves every budget as it was. A demand for nothing is always granted. The
    /// windows are those of [`Counted::until`](super::Counted::until); a budget's window may end,
    /// but none that has ended comes back, though `now` goes back.
    ///
    /// What was taken of budgets that are [held](super::Counted::is_held) goes back, into the
    /// window that it was taken from, when [`Held`] is dropped: also that of an answer for which
    /// nobody waited long enough.
    fn take(&self, demands: &[Demand], now: UnixMillis) -> Take;
}

/// The answer to [`LimitStore::take`].
pub type Take = Answer<'static, Result<Taken, StoreError>>;

/// Whether what was demanded was there.
///
/// The standings are those of the demands' budgets, in the order of the demands, after what was
/// taken.
#[derive(Debug)]
#[non_exhaustive]
pub enum Taken {
    /// All of it was, and is taken.
    Granted {
        /// How the budgets stand.
        standings: Vec<Standing>,
        /// What can go back.
        held: Held,
    },
    /// Nothing is taken.
    Refused {
        /// How the budgets stand.
        standings: Vec<Standing>,
        /// The number of the first demand that could not be met, from 0.
        by: usize,
    },
}

/// What was taken and can be given back. Dropped, it is.
#[must_use = "what is dropped is given back"]
#[derive(Default)]
pub struct Held(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Held {
    /// What `give_back` gives back.
    pub fn new(give_back: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(give_back)))
    }

    /// Nothing that could be given back.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Spends it for good.
    pub fn keep(mut self) {
        self.0 = None;
    }

    pub(super) const fn is_nothing(&self) -> bool {
        self.0.is_none()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(give_back) = self.0.take() {
            // Where a session panics, a store that panics too would end the process.
            let _ = catch_unwind(AssertUnwindSafe(give_back));
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_nothing() { "Held(nothing)" } else { "Held(..)" })
    }
}

macro_rules! through_pointer {
    ($($pointer:ident),*) => {$(
        impl<L: LimitStore + ?Sized> LimitStore for $pointer<L> {
            fn take(&self, demands: &[Demand], now: UnixMillis) -> Take {
                (**self).take(demands, now)
            }
        }
    )*};
}

through_pointer!(Arc, Box);
