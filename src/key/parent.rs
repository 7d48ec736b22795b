//! What a key knows of the one that minted it.

use super::{KeyId, KeyRecord, Plan};
use crate::UnixMillis;

/// The key that minted another one, as far as that one's fate hangs on it.
///
/// A store answers it together with the child's record, as it is at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    id: KeyId,
    /// If that is another key's id.
    line: Option<KeyId>,
    plan: Plan,
    revoked_at: Option<UnixMillis>,
}

impl Parent {
    /// The parent `id`, which was never rotated, may be used without bounds and is not revoked.
    #[must_use]
    pub const fn new(id: KeyId) -> Self {
        Self { id, line: None, plan: Plan::unbounded(), revoked_at: None }
    }

    /// The parent that has this record.
    #[must_use]
    pub fn of(record: &KeyRecord) -> Self {
        Self::new(record.id().clone())
            .with_line(record.line().clone())
            .with_plan(*record.grants().plan())
            .with_revoked_at(record.revoked_at())
    }

    /// The same parent, of another line of rotations.
    #[must_use]
    pub fn with_line(self, line: KeyId) -> Self {
        Self { line: Some(line).filter(|line| *line != self.id), ..self }
    }

    /// The same parent with another plan.
    #[must_use]
    pub fn with_plan(self, plan: Plan) -> Self {
        Self { plan, ..self }
    }

    /// The same parent, revoked at that time if any.
    #[must_use]
    pub fn with_revoked_at(self, revoked_at: Option<UnixMillis>) -> Self {
        Self { revoked_at, ..self }
    }

    /// Which key it is.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// The [line](KeyRecord::line) of rotations that the key belongs to.
    #[must_use]
    pub fn line(&self) -> &KeyId {
        self.line.as_ref().unwrap_or(&self.id)
    }

    /// How much the key may be used, and with it all that it minted.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Since when it is revoked.
    #[must_use]
    pub const fn revoked_at(&self) -> Option<UnixMillis> {
        self.revoked_at
    }
}
