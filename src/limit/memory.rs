//! Counts for one process.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Budget, Demand, Held, LimitStore, Standing, Take, Taken};
use crate::{Answer, UnixMillis};

/// Budgets must be this many, at least, before those that count nothing are looked for.
const MIN_SWEPT: usize = 1_024;

/// Counts what is taken, exactly, in the memory of one process. Clones count together.
///
/// It knows the budgets of this minute and this month and the open sessions; what no longer counts
/// is forgotten in time, so that its size follows what is in use. Time never goes back here: a
/// clock that does stands still until it has caught up.
///
/// ```
/// # futures_util::FutureExt::now_or_never(async {
/// use tower_realtime_auth::{
///     Budget, Counted, Demand, Environment, KeyId, LimitStore, MemoryLimits, Payer, Taken, UnixMillis,
/// };
///
/// let limits = MemoryLimits::new();
/// let payer = Payer::Line(KeyId::new("key_1"));
/// let budget = Budget::new(payer, Counted::OpenSessions, Environment::Live);
/// let one_of_one = [Demand::new(budget, 1, 1)];
/// let now = UnixMillis::new(0);
///
/// let Taken::Granted { held, .. } = limits.take(&one_of_one, now).await? else { panic!() };
/// assert!(matches!(limits.take(&one_of_one, now).await?, Taken::Refused { by: 0, .. }));
/// drop(held);
/// assert!(matches!(limits.take(&one_of_one, now).await?, Taken::Granted { .. }));
/// # Ok::<(), tower_realtime_auth::StoreError>(())
/// # }).expect("memory answers at once").unwrap();
/// ```
#[derive(Clone, Default)]
pub struct MemoryLimits(Arc<Mutex<Counts>>);

impl MemoryLimits {
    /// Nothing is taken.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many budgets it holds at the moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().by_budget.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Nothing in there panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, shares: &[Share]) {
        let mut counts = self.lock();
        for share in shares {
            counts.give_back(share);
        }
    }
}

impl LimitStore for MemoryLimits {
    fn take(&self, demands: &[Demand], now: UnixMillis) -> Take {
        let taken = self.lock().take(demands, now);
        Answer::ready(Ok(match taken {
            Ok((standings, shares)) if shares.is_empty() => {
                Taken::Granted { standings, held: Held::nothing() }
            }
            Ok((standings, shares)) => {
                let limits = self.clone();
                let held = Held::new(move || limits.give_back(&shares));
                Taken::Granted { standings, held }
            }
            Err((standings, by)) => Taken::Refused { standings, by },
        }))
    }
}

impl fmt::Debug for MemoryLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLimits").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// What somebody holds of a budget.
struct Share {
    budget: Budget,
    amount: u64,
    until: Option<UnixMillis>,
}

struct Counts {
    // Std's maps hash with a random seed, so that accounts cannot be named to collide.
    by_budget: HashMap<Budget, Count>,
    /// The latest time that was told.
    latest: UnixMillis,
    /// How many demands until the next sweep.
    until_sweep: usize,
}

struct Count {
    used: u64,
    /// When it counts no longer.
    until: Option<UnixMillis>,
}

impl Default for Counts {
    fn default() -> Self {
        let latest = UnixMillis::new(0);
        Self { by_budget: HashMap::new(), latest, until_sweep: MIN_SWEPT }
    }
}

impl Counts {
    #[expect(clippy::type_complexity, reason = "the two sides of `Taken`")]
    fn take(
        &mut self,
        demands: &[Demand],
        now: UnixMillis,
    ) -> Result<(Vec<Standing>, Vec<Share>), (Vec<Standing>, usize)> {
        self.latest = self.latest.max(now);
        // One after the other, because several may be of one budget; a refusal undoes them.
        for (number, demand) in demands.iter().enumerate() {
            if !self.add(demand) {
                for taken in demands.iter().take(number) {
                    self.subtract(taken.budget(), taken.amount());
                }
                return Err((self.standings(demands), number));
            }
        }
        let held =
            demands.iter().filter(|one| one.amount() > 0 && one.budget().counted().is_held());
        let shares = held.map(|demand| Share {
            budget: demand.budget().clone(),
            amount: demand.amount(),
            until: demand.budget().counted().until(self.latest),
        });
        let taken = (self.standings(demands), shares.collect());
        self.sweep(demands.len());
        Ok(taken)
    }

    /// Whether there was so much left.
    fn add(&mut self, demand: &Demand) -> bool {
        if demand.amount() == 0 {
            return true;
        }
        let until = demand.budget().counted().until(self.latest);
        let known = self.by_budget.get_mut(demand.budget());
        let used = known.as_ref().filter(|count| count.counts_at(self.latest));
        let used = used.map_or(0, |count| count.used).checked_add(demand.amount());
        let Some(used) = used.filter(|used| *used <= demand.limit()) else { return false };
        let count = Count { used, until };
        match known {
            Some(known) => *known = count,
            None => _ = self.by_budget.insert(demand.budget().clone(), count),
        }
        true
    }

    fn subtract(&mut self, budget: &Budget, amount: u64) {
        if let Some(count) = self.by_budget.get_mut(budget) {
            count.used = count.used.saturating_sub(amount);
            if count.used == 0 {
                self.by_budget.remove(budget);
            }
        }
    }

    fn give_back(&mut self, share: &Share) {
        // What was taken in a window that is over is no longer counted.
        let counts = self.by_budget.get(&share.budget);
        if counts.is_some_and(|count| count.until == share.until) {
            self.subtract(&share.budget, share.amount);
        }
    }

    /// How much of a budget is used now.
    fn used(&self, budget: &Budget) -> u64 {
        let count = self.by_budget.get(budget).filter(|count| count.counts_at(self.latest));
        count.map_or(0, |count| count.used)
    }

    fn standings(&self, demands: &[Demand]) -> Vec<Standing> {
        let standing = |demand: &Demand| {
            let remaining = demand.limit().saturating_sub(self.used(demand.budget()));
            Standing::new(demand.limit(), remaining, demand.budget().counted().until(self.latest))
        };
        demands.iter().map(standing).collect()
    }

    /// Forgets what no longer counts, once as many demands have come as there were budgets left the
    /// last time: a few steps for each demand, and never more than a few times what is in use.
    fn sweep(&mut self, demands: usize) {
        self.until_sweep = self.until_sweep.saturating_sub(demands);
        if self.until_sweep == 0 {
            self.by_budget.retain(|_, count| count.counts_at(self.latest));
            self.until_sweep = self.by_budget.len().max(MIN_SWEPT);
            self.by_budget.shrink_to(2 * self.until_sweep);
        }
    }
}

impl Count {
    fn counts_at(&self, now: UnixMillis) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}
