//! How much a key may be used.

/// How much of each a key may use. The default bounds nothing.
///
/// It is part of a key's [`Grants`](crate::Grants) and stored with them;
/// [`Keys::set_plan`](crate::Keys::set_plan) changes it. `LimitLayer` (feature `limit`) counts, with
/// `MemoryLimits` in the memory of the process that serves, and refuses what is too much; without
/// it, nothing does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    requests_per_minute: Option<u32>,
    usage_per_month: Option<u64>,
    sessions_per_minute: Option<u32>,
    max_sessions: Option<u32>,
}

impl Plan {
    /// As much of everything as the service gives. The default.
    #[must_use]
    pub const fn unbounded() -> Self {
        Self {
            requests_per_minute: None,
            usage_per_month: None,
            sessions_per_minute: None,
            max_sessions: None,
        }
    }

    /// The same with at most so many requests in each minute of Unix time.
    #[must_use]
    pub const fn with_requests_per_minute(self, requests: u32) -> Self {
        Self { requests_per_minute: Some(requests), ..self }
    }

    /// The same with at most so many units of usage in each calendar month (UTC).
    #[must_use]
    pub const fn with_usage_per_month(self, usage: u64) -> Self {
        Self { usage_per_month: Some(usage), ..self }
    }

    /// The same with at most so many new sessions in each minute of Unix time.
    #[must_use]
    pub const fn with_sessions_per_minute(self, sessions: u32) -> Self {
        Self { sessions_per_minute: Some(sessions), ..self }
    }

    /// The same with at most so many sessions at once.
    #[must_use]
    pub const fn with_max_sessions(self, sessions: u32) -> Self {
        Self { max_sessions: Some(sessions), ..self }
    }

    /// Requests in each minute of Unix time.
    #[must_use]
    pub const fn requests_per_minute(&self) -> Option<u32> {
        self.requests_per_minute
    }

    /// Units of usage in each calendar month (UTC).
    #[must_use]
    pub const fn usage_per_month(&self) -> Option<u64> {
        self.usage_per_month
    }

    /// New sessions in each minute of Unix time.
    #[must_use]
    pub const fn sessions_per_minute(&self) -> Option<u32> {
        self.sessions_per_minute
    }

    /// Sessions at once.
    #[must_use]
    pub const fn max_sessions(&self) -> Option<u32> {
        self.max_sessions
    }
}
