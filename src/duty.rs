//! The duty to guard a session, which the layer gives and the inner service takes on.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use http::Response;

use crate::{KeyId, event};

/// Whether somebody keeps a session to what its key has locked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Duty(Arc<AtomicBool>);

impl Duty {
    /// Somebody does, or has said that nobody need.
    pub(crate) fn take_on(&self) {
        // Told by the same task as is asked, or by one that it waits for.
        self.0.store(true, Relaxed);
    }

    fn is_taken_on(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// A handshake that may not complete before somebody guards its session: a lock that nobody
/// enforces is a hole.
pub(crate) struct Guarded<R> {
    duty: Duty,
    key_id: KeyId,
    /// What is answered if nobody does.
    refusal: Box<Response<R>>,
}

impl<R> Guarded<R> {
    pub(crate) fn new(duty: Duty, key_id: KeyId, refusal: Response<R>) -> Self {
        Self { duty, key_id, refusal: Box::new(refusal) }
    }

    /// Refuses a completed handshake whose session nobody guards. Answers whether it did.
    pub(crate) fn refuse(self, completed: &mut Response<R>) -> bool {
        if self.duty.is_taken_on() {
            return false;
        }
        event::unguarded(&self.key_id);
        *completed = *self.refusal;
        true
    }
}

impl<R> fmt::Debug for Guarded<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("duty", &self.duty).finish_non_exhaustive()
    }
}
