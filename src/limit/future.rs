//! What becomes of a request: asking, then inner and what follows, or refused.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    Take, Taken,
    layer::in_time,
    service::{Asking, Ending, Gate},
};
use crate::{MakeBody, StoreError};

pin_project! {
    /// The response of [`LimitService`](super::LimitService).
    #[must_use = "futures do nothing unless polled"]
    pub struct LimitFuture<F, P, M, R> {
        #[pin]
        state: State<F, P, M, R>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, P, M, R> {
        Asking { parked: Option<Box<P>> },
        Inner { #[pin] future: F, ending: Option<Ending<M>> },
        Refused { response: Option<Response<R>> },
    }
}

impl<F, P, M, R> LimitFuture<F, P, M, R> {
    pub(super) fn parked(parked: P) -> Self {
        Self { state: State::Asking { parked: Some(Box::new(parked)) } }
    }

    pub(super) const fn inner(future: F, ending: Option<Ending<M>>) -> Self {
        Self { state: State::Inner { future, ending } }
    }

    pub(super) const fn refused(response: Response<R>) -> Self {
        Self { state: State::Refused { response: Some(response) } }
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

impl<I, M, B, R> Future for LimitFuture<I::Future, Parked<I, M, B>, M, R>
where
    I: Service<Request<B>, Response = Response<R>>,
    M: MakeBody<R>,
{
    type Output = Result<Response<R>, I::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Asking { parked } => {
                    let Some(waiting) = parked else { return Poll::Pending };
                    let answer = ready!(waiting.answer.poll_unpin(cx));
                    let Some(waiting) = parked.take() else { return Poll::Pending };
                    let Parked { mut inner, gate, mut request, asking, .. } = *waiting;
                    let next = match gate.judge(&mut request, asking, answer) {
                        Ok(ending) => {
                            State::Inner { future: inner.call(request), ending: Some(ending) }
                        }
                        Err(refused) => State::Refused { response: Some(refused) },
                    };
                    this.state.set(next);
                }
                StateProj::Inner { future, ending } => {
                    let mut response = ready!(future.poll(cx))?;
                    if let Some(ending) = ending.take() {
                        ending.apply(&mut response);
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProj::Refused { response } => {
                    // Polled again after its end, it waits for ever, as the mildest reply.
                    return response
                        .take()
                        .map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
                }
            }
        }
    }
}

impl<F, P, M, R> fmt::Debug for LimitFuture<F, P, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Asking { .. } => "Asking",
            State::Inner { .. } => "Inner",
            State::Refused { .. } => "Refused",
        };
        f.debug_tuple("LimitFuture").field(&state).finish()
    }
}
