//! When keys were last used: remembered, and written once in a while.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{fault::Fault, writes};
use crate::{KeyId, KeyRecord, UnixMillis};

/// How often they are written.
const EVERY: Duration = Duration::from_secs(30);
/// Of how many keys a use is remembered between; of others it is lost.
const MAX: usize = 65_536;
/// How many are written at once, so that a revocation does not wait for all.
const AT_ONCE: usize = 2_048;

pub(super) struct Uses(Mutex<State>);

struct State {
    noted: HashMap<KeyId, UnixMillis>,
    due: Instant,
}

impl Default for Uses {
    fn default() -> Self {
        Self(Mutex::new(State { noted: HashMap::new(), due: Instant::now() + EVERY }))
    }
}

impl Uses {
    pub(super) fn note(&self, id: &KeyId, at: UnixMillis) {
        let mut state = self.lock();
        if let Some(noted) = state.noted.get_mut(id) {
            *noted = at.max(*noted);
        } else if state.noted.len() < MAX {
            state.noted.insert(id.clone(), at);
        }
    }

    /// Puts into a record what is not written yet.
    pub(super) fn show(&self, record: &KeyRecord) {
        if let Some(at) = self.lock().noted.get(record.id()) {
            record.note_use(*at);
        }
    }

    pub(super) fn due_in(&self) -> Duration {
        self.lock().due.saturating_duration_since(Instant::now())
    }

    /// Writes some in a transaction; answers whether more are left that can be.
    pub(super) fn write(
        &self,
        transaction: impl FnOnce(&dyn Fn(&Connection) -> Result<(), Fault>) -> Result<(), Fault>,
    ) -> bool {
        let some: Vec<_> = {
            let state = self.lock();
            let noted = state.noted.iter().take(AT_ONCE);
            noted.map(|(id, at)| (id.clone(), *at)).collect()
        };
        let written = some.is_empty()
            || transaction(&|connection| {
                some.iter().try_for_each(|(id, at)| writes::last_used(connection, id, *at))
            })
            .is_ok();
        let mut state = self.lock();
        if written {
            for (id, at) in &some {
                // Not if it was used again meanwhile.
                if state.noted.get(id) == Some(at) {
                    state.noted.remove(id);
                }
            }
        }
        let is_more = written && some.len() == AT_ONCE;
        if !is_more {
            state.due = Instant::now() + EVERY;
        }
        is_more
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyDigest, KeyKind};

    const DISK_FULL: Fault = Fault::new("the disk is full");

    fn id(number: usize) -> KeyId {
        KeyId::new(format!("key_{number}"))
    }

    fn shown(uses: &Uses, number: usize) -> Option<u64> {
        let digest = KeyDigest::from_bytes([0; 32]);
        let record =
            KeyRecord::new(id(number), digest, "acme", KeyKind::Secret, UnixMillis::new(0));
        uses.show(&record);
        record.last_used_at().map(UnixMillis::get)
    }

    #[test]
    fn a_use_is_forgotten_once_it_is_written_and_not_before() {
        let uses = Uses::default();
        for at in [5, 9, 7] {
            uses.note(&id(1), UnixMillis::new(at));
        }
        uses.note(&id(2), UnixMillis::new(3));
        assert_eq!([1, 2, 3].map(|key| shown(&uses, key)), [Some(9), Some(3), None]);

        assert!(!uses.write(|_| Err(DISK_FULL)));
        assert_eq!([1, 2].map(|key| shown(&uses, key)), [Some(9), Some(3)]);
        let used_meanwhile = |_: &dyn Fn(&Connection) -> Result<(), Fault>| {
            uses.note(&id(2), UnixMillis::new(11));
            Ok(())
        };
        assert!(!uses.write(used_meanwhile));
        assert_eq!([1, 2].map(|key| shown(&uses, key)), [None, Some(11)]);
        assert!(!uses.due_in().is_zero());
    }

    #[test]
    fn as_many_are_remembered_as_it_says_and_written_in_parts() {
        let uses = Uses::default();
        for number in 0..MAX + 10 {
            uses.note(&id(number), UnixMillis::new(1));
        }
        assert_eq!([MAX - 1, MAX].map(|key| shown(&uses, key)), [Some(1), None]);
        let mut parts = 1;
        while uses.write(|_| Ok(())) {
            parts += 1;
        }
        // The last part is the one that finds nothing left.
        assert_eq!(parts, MAX / AT_ONCE + 1);
        assert_eq!(shown(&uses, 0), None);
    }
}
