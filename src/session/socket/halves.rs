//! The tasks that a socket wakes: the one that reads, and the one that writes.

use std::{
    sync::Arc,
    task::{Context, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// After a split, two tasks poll one socket, and what one of them has polled last may be what the
/// other waits for. So whatever is polled here wakes both.
#[derive(Debug, Default)]
pub(super) struct Halves {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Halves {
    /// What wakes both, now that this task reads.
    pub(super) fn reading(self: &Arc<Self>, cx: &Context<'_>) -> Waker {
        self.reader.register(cx.waker());
        Arc::clone(self).into()
    }

    /// What wakes both, now that this task writes.
    pub(super) fn writing(self: &Arc<Self>, cx: &Context<'_>) -> Waker {
        self.writer.register(cx.waker());
        Arc::clone(self).into()
    }
}

impl Wake for Halves {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}
