//! Bodies of the responses that are made here, in whatever type the inner service uses.

use bytes::Bytes;

/// Makes a body of type `B` from bytes.
///
/// The default, [`FromBytes`], serves every `B: From<Bytes>` (axum's `Body`, `Full<Bytes>`). For
/// other types a closure does:
///
/// ```
/// use http_body_util::{BodyExt, Full, combinators::BoxBody};
/// use std::convert::Infallible;
/// use tower_realtime_auth::{MemoryStore, RealtimeAuthLayer, bytes::Bytes};
///
/// let layer = RealtimeAuthLayer::new(MemoryStore::new())
///     .with_body(|bytes: Bytes| -> BoxBody<Bytes, Infallible> { Full::new(bytes).boxed() });
/// ```
pub trait MakeBody<B>: Clone {
    /// A body of these bytes.
    fn make(&self, bytes: Bytes) -> B;
}

/// Makes bodies by `From<Bytes>`.
#[derive(Debug, Clone, Copy, Default)]
pub struct FromBytes;

impl<B: From<Bytes>> MakeBody<B> for FromBytes {
    fn make(&self, bytes: Bytes) -> B {
        bytes.into()
    }
}

impl<B, F> MakeBody<B> for F
where
    F: Fn(Bytes) -> B + Clone,
{
    fn make(&self, bytes: Bytes) -> B {
        self(bytes)
    }
}
