//! What can be set of a store in a file.

use std::time::Duration;

/// How a [`SqliteStore`](crate::SqliteStore) goes about its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqliteOptions {
    pub(super) revoked_within: Duration,
    pub(super) patience: Duration,
    pub(super) busy_deadline: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            revoked_within: Duration::from_millis(250),
            patience: Duration::from_secs(60),
            busy_deadline: Duration::from_secs(5),
        }
    }
}

impl SqliteOptions {
    /// The same, where open sessions hear within this time of keys that another process has
    /// revoked. The default is 250 ms; the file is looked at four times as often.
    ///
    /// It is about sessions that are open: new ones are refused from the moment that the key is
    /// revoked, in every process.
    #[must_use]
    pub fn with_revoked_within(self, revoked_within: Duration) -> Self {
        Self { revoked_within, ..self }
    }

    /// The same, where every open session is told that its key may be revoked once the file could
    /// not be read for this long. The default is 60 seconds.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same, where nobody waits longer than this for a lock that another process has on the
    /// file. The default is 5 seconds.
    #[must_use]
    pub fn with_busy_deadline(self, busy_deadline: Duration) -> Self {
        Self { busy_deadline, ..self }
    }
}
