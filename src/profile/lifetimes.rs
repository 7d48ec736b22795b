//! How long the tokens of a provider live.

use std::{ops::RangeInclusive, time::Duration};

use crate::ConfigError;

/// How long minted tokens may live.
///
/// ```
/// use std::time::Duration;
/// use tower_realtime_auth::Lifetimes;
///
/// let secs = Duration::from_secs;
/// let openai = Lifetimes::new(secs(10)..=secs(7_200), secs(600))?;
/// assert!(Lifetimes::new(secs(10)..=secs(60), secs(600)).is_err());
/// # Ok::<(), tower_realtime_auth::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifetimes {
    range: RangeInclusive<Duration>,
    default: Duration,
}

impl Default for Lifetimes {
    /// 1 to 7,200 seconds; 60 where a request names none.
    fn default() -> Self {
        Self::seconds(1, 7_200, 60)
    }
}

impl Lifetimes {
    /// Lifetimes within `range`, counted in whole seconds; `default` where a request names none.
    ///
    /// # Errors
    /// If the shortest is under a second, or `default` is not within the range.
    pub fn new(range: RangeInclusive<Duration>, default: Duration) -> Result<Self, ConfigError> {
        if *range.start() < Duration::from_secs(1) || !range.contains(&default) {
            return Err(ConfigError::Lifetime);
        }
        Ok(Self { range, default })
    }

    pub(crate) const fn seconds(min: u64, max: u64, default: u64) -> Self {
        let range = Duration::from_secs(min)..=Duration::from_secs(max);
        Self { range, default: Duration::from_secs(default) }
    }

    /// The shortest and the longest.
    #[must_use]
    pub const fn range(&self) -> &RangeInclusive<Duration> {
        &self.range
    }

    /// Where a request names none.
    #[must_use]
    pub const fn default_lifetime(&self) -> Duration {
        self.default
    }
}
