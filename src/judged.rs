//! What becomes of a request that a layer judges: it waits for a store's answer, then goes on to the
//! inner service and what follows, or it is refused.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

pin_project! {
    #[project = JudgedProj]
    pub(crate) enum Judged<F, P, E, R> {
        Waiting { parked: Option<Box<P>> },
        Inner { #[pin] future: F, ending: Option<E> },
        Refused { response: Option<Response<R>> },
    }
}

/// A request that waits for a store, with the service that is ready for it.
pub(crate) trait Waiting {
    type Decided;
    /// The same request, decided.
    type Next;

    fn poll_decided(&mut self, cx: &mut Context<'_>) -> Poll<Self::Decided>;

    fn go_on(self, decided: Self::Decided) -> Self::Next;
}

/// What is to be done with the response of the inner service.
pub(crate) trait Ending<R> {
    fn apply(self, response: &mut Response<R>);
}

impl<F, P, E, R> Judged<F, P, E, R> {
    pub(crate) fn waiting(parked: P) -> Self {
        Self::Waiting { parked: Some(Box::new(parked)) }
    }

    pub(crate) const fn inner(future: F, ending: Option<E>) -> Self {
        Self::Inner { future, ending }
    }

    pub(crate) const fn refused(response: Response<R>) -> Self {
        Self::Refused { response: Some(response) }
    }
}

impl<F, P, E, R, Error> Future for Judged<F, P, E, R>
where
    F: Future<Output = Result<Response<R>, Error>>,
    P: Waiting<Next = Self>,
    E: Ending<R>,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                JudgedProj::Waiting { parked } => {
                    let Some(waiting) = parked else { return Poll::Pending };
                    let decided = ready!(waiting.poll_decided(cx));
                    let Some(waiting) = parked.take() else { return Poll::Pending };
                    self.set(waiting.go_on(decided));
                }
                JudgedProj::Inner { future, ending } => {
                    let mut response = ready!(future.poll(cx))?;
                    if let Some(ending) = ending.take() {
                        ending.apply(&mut response);
                    }
                    return Poll::Ready(Ok(response));
                }
                JudgedProj::Refused { response } => {
                    // Polled again after its end, it waits for ever, as the mildest reply.
                    return response
                        .take()
                        .map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
                }
            }
        }
    }
}

impl<F, P, E, R> fmt::Debug for Judged<F, P, E, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting { .. } => "Waiting",
            Self::Inner { .. } => "Inner",
            Self::Refused { .. } => "Refused",
        })
    }
}
