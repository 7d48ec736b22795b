//! One of the sessions that may be open at once.

use std::sync::{Arc, Weak};

use super::Held;

/// A place among the sessions at once: given back with its last clone.
#[derive(Debug, Clone)]
pub(crate) struct SessionPermit(Arc<Place>);

/// What is held, and the place that another layer has given before.
#[derive(Debug)]
#[expect(dead_code, reason = "it is there to be dropped")]
struct Place(Held, Option<SessionPermit>);

impl SessionPermit {
    pub(super) fn new(held: Held, before: Option<Self>) -> Self {
        Self(Arc::new(Place(held, before)))
    }

    pub(super) fn watch(&self) -> Watch {
        Watch(Arc::downgrade(&self.0))
    }
}

/// Sees whether a place is still held.
#[derive(Debug)]
pub(super) struct Watch(Weak<Place>);

impl Watch {
    pub(super) fn is_given_back(&self) -> bool {
        self.0.strong_count() == 0
    }
}
