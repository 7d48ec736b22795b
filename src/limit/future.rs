//! What becomes of a request: asking, then inner and what follows, or refused.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    Take, Taken,
    layer::in_time,
    service::{Asking, Gate, LimitEnding},
};
use crate::{
    MakeBody, StoreError,
    judged::{Judged, Waiting},
};

pin_project! {
    /// The response of [`LimitService`](super::LimitService).
    #[must_use = "futures do nothing unless polled"]
    pub struct LimitFuture<F, P, M, R> {
        #[pin]
        judged: Judged<F, P, LimitEnding<M>, R>,
    }
}

impl<F, P, M, R> LimitFuture<F, P, M, R> {
    pub(super) fn parked(parked: P) -> Self {
        Self { judged: Judged::waiting(parked) }
    }

    pub(super) const fn inner(future: F, ending: Option<LimitEnding<M>>) -> Self {
        Self { judged: Judged::inner(future, ending) }
    }

    pub(super) const fn refused(response: Response<R>) -> Self {
        Self { judged: Judged::refused(response) }
    }
}

/// A request that waits for the store, with the service that is ready for it.
pub struct Parked<I, M, B> {
    inner: I,
    gate: Gate<M>,
    request: Request<B>,
    asking: Asking,
    answer: BoxFuture<'static, Result<Taken, StoreError>>,
}

impl<I, M, B> Parked<I, M, B> {
    pub(super) fn new(
        inner: I,
        gate: Gate<M>,
        request: Request<B>,
        asking: Asking,
        take: Take,
    ) -> Self {
        let answer = in_time(&gate.limits, take).boxed();
        Self { inner, gate, request, asking, answer }
    }
}

impl<I, M, B> fmt::Debug for Parked<I, M, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parked(..)")
    }
}

impl<I, M, B, R> Waiting for Parked<I, M, B>
where
    I: Service<Request<B>, Response = Response<R>>,
    M: MakeBody<R>,
{
    type Decided = Result<Taken, StoreError>;
    type Next = Judged<I::Future, Self, LimitEnding<M>, R>;

    fn poll_decided(&mut self, cx: &mut Context<'_>) -> Poll<Self::Decided> {
        self.answer.poll_unpin(cx)
    }

    fn go_on(self, answer: Self::Decided) -> Self::Next {
        let Self { mut inner, gate, mut request, asking, .. } = self;
        match gate.judge(&mut request, asking, answer) {
            Ok(ending) => Judged::inner(inner.call(request), Some(ending)),
            Err(refused) => Judged::refused(refused),
        }
    }
}

impl<I, M, B, R> Future for LimitFuture<I::Future, Parked<I, M, B>, M, R>
where
    I: Service<Request<B>, Response = Response<R>>,
    M: MakeBody<R>,
{
    type Output = Result<Response<R>, I::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().judged.poll(cx)
    }
}

impl<F, P, M, R> fmt::Debug for LimitFuture<F, P, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LimitFuture").field(&self.judged).finish()
    }
}
