//! What a store answers, at once or later.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;

use crate::KeyRecord;

/// An answer that is there already, or a future of it.
///
/// A store that has the answer in memory boxes nothing; one that must ask elsewhere boxes once.
#[must_use = "an answer that is not awaited may not have been asked for"]
pub struct Answer<'a, T>(State<'a, T>);

enum State<'a, T> {
    Ready(Option<T>),
    Pending(BoxFuture<'a, T>),
}

impl<'a, T> Answer<'a, T> {
    /// An answer that is there.
    pub const fn ready(value: T) -> Self {
        Self(State::Ready(Some(value)))
    }

    /// An answer that is still to come.
    pub fn pending(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self(State::Pending(Box::pin(future)))
    }

    /// Takes the answer if it is there, without waiting.
    ///
    /// # Errors
    /// Gives the answer back if it is still to come.
    pub fn try_now(self) -> Result<T, Self> {
        match self.0 {
            State::Ready(Some(value)) => Ok(value),
            state => Err(Self(state)),
        }
    }
}

impl<T: Unpin> Future for Answer<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            // A future polled after its end is a bug of the caller; waiting is the mildest reply.
            State::Ready(value) => value.take().map_or(Poll::Pending, Poll::Ready),
            State::Pending(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for Answer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Ready(_) => "Answer::Ready(..)",
            State::Pending(_) => "Answer::Pending(..)",
        })
    }
}

/// The answer to a lookup: the record, `None` if no key has this digest, or a broken store.
pub type Lookup = Answer<'static, Result<Option<Arc<KeyRecord>>, StoreError>>;

/// The answer to a question of the write side.
pub type Write<'a, T> = Answer<'a, Result<T, StoreError>>;

/// The store could not answer. This never means that a key is bad.
#[derive(Debug)]
pub struct StoreError(Box<dyn Error + Send + Sync>);

impl StoreError {
    /// The store's own error, or a sentence about what is wrong.
    #[must_use]
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key store could not answer")
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}
