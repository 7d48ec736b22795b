//! The trail of what was changed, as far back as it is kept.

use std::{collections::VecDeque, sync::Arc};

use super::{AuditEntry, AuditFilter, Stamp};
use crate::{AuditAction, KeyId};

/// How many entries are kept.
const MAX_ENTRIES: usize = 10_000;

#[derive(Default)]
pub(super) struct Trail {
    entries: VecDeque<AuditEntry>,
    last_number: u64,
}

impl Trail {
    pub(super) fn fitting(&self, filter: &AuditFilter) -> Vec<AuditEntry> {
        let fitting = self.entries.iter().filter(|entry| filter.fits(entry));
        fitting.take(filter.limit.unwrap_or(usize::MAX)).cloned().collect()
    }

    pub(super) fn note(
        &mut self,
        stamp: &Stamp,
        action: AuditAction,
        key_id: KeyId,
        account: Option<Arc<str>>,
    ) {
        if self.entries.len() == MAX_ENTRIES {
            self.entries.pop_front();
        }
        self.last_number += 1;
        let entry = AuditEntry::new(self.last_number, stamp.clone(), action, key_id, account);
        self.entries.push_back(entry);
    }
}
