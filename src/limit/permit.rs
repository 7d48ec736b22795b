//! One of the sessions that may be open at once.

use std::sync::Arc;

use super::Held;

/// A place among the sessions at once: given back with its last clone.
#[derive(Debug, Clone)]
pub(crate) struct SessionPermit(
    #[expect(dead_code, reason = "it is there to be dropped")] Arc<Place>,
);

/// What is held, and the place that another layer has given before.
#[derive(Debug)]
#[expect(dead_code, reason = "it is there to be dropped")]
struct Place(Held, Option<SessionPermit>);

impl SessionPermit {
    pub(super) fn new(held: Held, before: Option<Self>) -> Self {
        Self(Arc::new(Place(held, before)))
    }
}
