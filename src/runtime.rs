//! What the crate needs of an async runtime: to wait, and to run a task beside the request.

use std::time::Duration;

use futures_util::future::BoxFuture;

/// Waits and spawns. Needed for the lookup deadline and for refusals that close a socket.
///
/// With the feature `tokio` (default), [`TokioRuntime`] is what
/// [`RealtimeAuthLayer::new`](crate::RealtimeAuthLayer::new) uses.
pub trait Runtime: Send + Sync + 'static {
    /// A future that is ready once `duration` has passed.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs `task` to its end, beside the caller. A task that cannot be run may be dropped.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// The tokio runtime in whose context the request is served.
///
/// Outside of such a context nothing can wait: a pending lookup counts as overdue at once and a
/// spawned task is dropped, so that requests are refused and none is let through.
#[cfg(feature = "tokio")]
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioRuntime;

#[cfg(feature = "tokio")]
impl Runtime for TokioRuntime {
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        match tokio::runtime::Handle::try_current() {
            Ok(_) => Box::pin(tokio::time::sleep(duration)),
            Err(_) => Box::pin(std::future::ready(())),
        }
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            handle.spawn(task);
        }
    }
}
