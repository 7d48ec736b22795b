//! What is counted, for whom, and for how long.

use std::{sync::Arc, time::Duration};

use crate::{Environment, KeyId, UnixMillis};

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Counted {
    /// Requests, in each minute of Unix time.
    Requests,
    /// Sessions that begin, in each minute of Unix time.
    NewSessions,
    /// Sessions at once.
    OpenSessions,
    /// Units of usage, in each calendar month (UTC).
    Usage,
}

impl Counted {
    /// When what is taken at `now` counts no longer. `None`: when it is given back.
    #[must_use]
    pub const fn until(self, now: UnixMillis) -> Option<UnixMillis> {
        match self {
            Self::Requests | Self::NewSessions => Some(end_of_minute(now)),
            Self::OpenSessions => None,
            Self::Usage => Some(end_of_month(now)),
        }
    }

    /// Whether what is taken can be given back: what is [held](super::Held), then.
    #[must_use]
    pub const fn is_held(self) -> bool {
        matches!(self, Self::OpenSessions | Self::Usage)
    }
}

/// Whose budget it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Payer {
    /// A key, by its [line](crate::KeyRecord::line): its rotation opens no second budget.
    Line(KeyId),
    /// An account.
    Account(Arc<str>),
}

/// Under what a store counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Budget {
    payer: Payer,
    counted: Counted,
    environment: Environment,
}

impl Budget {
    /// A payer's budget of something. Live keys and test keys have budgets of their own.
    #[must_use]
    pub const fn new(payer: Payer, counted: Counted, environment: Environment) -> Self {
        Self { payer, counted, environment }
    }

    /// Who pays.
    #[must_use]
    pub const fn payer(&self) -> &Payer {
        &self.payer
    }

    /// What is counted.
    #[must_use]
    pub const fn counted(&self) -> Counted {
        self.counted
    }

    /// Live or test.
    #[must_use]
    pub const fn environment(&self) -> Environment {
        self.environment
    }
}

/// So much of a budget. Nothing of it asks how the budget stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    budget: Budget,
    limit: u64,
    amount: u64,
}

impl Demand {
    /// Asks for `amount` of a budget that has no more than `limit`.
    #[must_use]
    pub const fn new(budget: Budget, limit: u64, amount: u64) -> Self {
        Self { budget, limit, amount }
    }

    /// The same demand for another amount.
    #[must_use]
    pub fn with_amount(self, amount: u64) -> Self {
        Self { amount, ..self }
    }

    /// Of which budget.
    #[must_use]
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// How much the budget has, in one of its windows or at once.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// How much is asked for.
    #[must_use]
    pub const fn amount(&self) -> u64 {
        self.amount
    }
}

/// How a budget stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    limit: u64,
    remaining: u64,
    resets_at: Option<UnixMillis>,
}

impl Standing {
    /// So much is left, until then; `None` of what counts for as long as it is held.
    #[must_use]
    pub const fn new(limit: u64, remaining: u64, resets_at: Option<UnixMillis>) -> Self {
        Self { limit, remaining, resets_at }
    }

    /// How much the budget has.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// How much of it is left.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.remaining
    }

    /// When all of it is there again.
    #[must_use]
    pub const fn resets_at(&self) -> Option<UnixMillis> {
        self.resets_at
    }

    /// The same with so much more left.
    pub(super) fn given_back(self, amount: u64) -> Self {
        let remaining = self.remaining.saturating_add(amount).min(self.limit);
        Self { remaining, ..self }
    }

    /// How long it takes until something is left again: at least a second, in whole ones.
    pub(super) fn wait(&self, now: UnixMillis) -> Duration {
        let millis = self.resets_at.map_or(0, |at| at.get().saturating_sub(now.get()));
        Duration::from_secs(millis.div_ceil(1_000).max(1))
    }
}

const MINUTE: u64 = 60_000;
const DAY: u64 = 86_400_000;

pub(super) const fn end_of_minute(now: UnixMillis) -> UnixMillis {
    UnixMillis::new((now.get() / MINUTE).saturating_add(1).saturating_mul(MINUTE))
}

/// The first millisecond of the next calendar month, in UTC.
///
/// Days are counted from the 1st of March of the year 0, so that leap days end years, and in eras
/// of 400 years, which are all alike.
const fn end_of_month(now: UnixMillis) -> UnixMillis {
    const ERA: u64 = 146_097;
    // From there to 1970.
    const EPOCH: u64 = 719_468;
    let day = now.get() / DAY + EPOCH;
    let (era, day) = (day / ERA, day % ERA);
    // Of every 4 years one is longer, of every 100 not, of every 400 all the same.
    let year = (day - day / 1_460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // March is 0. Five months have 153 days, again and again.
    let month = (5 * day_of_year + 2) / 153;
    let next = if month < 11 {
        365 * year + year / 4 - year / 100 + (153 * (month + 1) + 2) / 5
    } else {
        let year = year + 1;
        365 * year + year / 4 - year / 100 + year / 400
    };
    UnixMillis::new((era * ERA + next - EPOCH).saturating_mul(DAY))
}
