//! The trail of what was changed, when and by whom.

use std::{fmt, sync::Arc};

use crate::{KeyId, Plan, UnixMillis};

/// When something is changed, and by whom. Stands in the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    at: UnixMillis,
    by: Option<Arc<str>>,
}

impl Stamp {
    /// A change at that time, by nobody in particular.
    #[must_use]
    pub const fn new(at: UnixMillis) -> Self {
        Self { at, by: None }
    }

    /// The same by somebody: a person, a program, whatever the operator will know again.
    #[must_use]
    pub fn with_by(self, by: Option<Arc<str>>) -> Self {
        Self { by, ..self }
    }

    /// When.
    #[must_use]
    pub const fn at(&self) -> UnixMillis {
        self.at
    }

    /// By whom, if that is known.
    #[must_use]
    pub fn by(&self) -> Option<&str> {
        self.by.as_deref()
    }
}

/// What was done to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditAction {
    /// It was issued or imported.
    Created,
    /// Another one took its place.
    Rotated {
        /// That other one.
        successor: KeyId,
    },
    /// It got another plan.
    Replanned {
        /// The one that it had.
        from: Plan,
        /// The one that it has since.
        to: Plan,
    },
    /// It was taken back.
    Revoked,
    /// Its record was removed.
    Removed,
}

impl AuditAction {
    /// `created`, `rotated`, `replanned`, `revoked` or `removed`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Rotated { .. } => "rotated",
            Self::Replanned { .. } => "replanned",
            Self::Revoked => "revoked",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    number: u64,
    stamp: Stamp,
    action: AuditAction,
    key_id: KeyId,
    account: Option<Arc<str>>,
}

impl AuditEntry {
    /// The entry with this number. Numbers go up, not always by one.
    #[must_use]
    pub const fn new(
        number: u64,
        stamp: Stamp,
        action: AuditAction,
        key_id: KeyId,
        account: Option<Arc<str>>,
    ) -> Self {
        Self { number, stamp, action, key_id, account }
    }

    /// Where it stands in the trail.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// When, and by whom.
    #[must_use]
    pub const fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// What was done.
    #[must_use]
    pub const fn action(&self) -> &AuditAction {
        &self.action
    }

    /// To which key.
    #[must_use]
    pub const fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// Whose key that is. `None` if the store did not know the key, as of a token that it has
    /// forgotten.
    #[must_use]
    pub const fn account(&self) -> Option<&Arc<str>> {
        self.account.as_ref()
    }
}

/// Which entries to read, the oldest first. The default reads all.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AuditFilter {
    /// Only those about keys of this account.
    pub account: Option<Arc<str>>,
    /// Only those about this key.
    pub key_id: Option<KeyId>,
    /// Only those behind the entry with this number.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: Option<usize>,
}

impl AuditFilter {
    /// The entries about keys of one account.
    #[must_use]
    pub fn account(account: impl Into<Arc<str>>) -> Self {
        Self { account: Some(account.into()), ..Self::default() }
    }

    /// The entries about one key.
    #[must_use]
    pub fn key(id: KeyId) -> Self {
        Self { key_id: Some(id), ..Self::default() }
    }

    /// The same, at most `limit` of those behind the entry `after`.
    #[must_use]
    pub fn with_page(self, after: Option<u64>, limit: usize) -> Self {
        Self { after, limit: Some(limit), ..self }
    }

    /// Whether an entry is one of those, [`limit`](Self::limit) aside.
    #[must_use]
    pub fn fits(&self, entry: &AuditEntry) -> bool {
        self.account.as_ref().is_none_or(|account| entry.account() == Some(account))
            && self.key_id.as_ref().is_none_or(|id| entry.key_id() == id)
            && self.after.is_none_or(|after| entry.number() > after)
    }
}
