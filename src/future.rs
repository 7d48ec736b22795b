//! What becomes of a request: looking up, then inner and what follows, or refused.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderValue, Request, Response, header::SEC_WEBSOCKET_PROTOCOL};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    KeyStore, MakeBody, Rejection, Use,
    duty::Guarded,
    handshake::Handshake,
    inquiry::{Accepted, Inquiry},
    judged::{Ending, Judged, Waiting},
    rejection::is_refused,
    service::Auth,
};

pin_project! {
    /// The response of [`RealtimeAuth`](crate::RealtimeAuth).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, P, R> {
        #[pin]
        judged: Judged<F, P, Completion<R>, R>,
    }
}

/// What is to be done once the inner service has completed a handshake.
pub(crate) struct Completion<R> {
    handshake: Handshake,
    /// The subprotocol to answer.
    protocol: Option<HeaderValue>,
    /// The use of the key to spend.
    reserved: Option<Use>,
    /// The session, if somebody must guard it.
    guarded: Option<Guarded<R>>,
}

impl<R> Completion<R> {
    /// `None` if there is nothing to do.
    pub(crate) fn new(
        handshake: Handshake,
        protocol: Option<HeaderValue>,
        reserved: Option<Use>,
        guarded: Option<Guarded<R>>,
    ) -> Option<Self> {
        let something = protocol.is_some() || reserved.is_some() || guarded.is_some();
        something.then_some(Self { handshake, protocol, reserved, guarded })
    }
}

impl<R> Ending<R> for Completion<R> {
    /// Names the subprotocol, unless the inner service named one, and spends the use. If no session
    /// begins with the response, or nobody guards one that must be, the use goes back to the key.
    fn apply(self, response: &mut Response<R>) {
        if !self.handshake.is_completed_by(response) {
            return;
        }
        let begins = !is_refused(response);
        if begins && self.guarded.is_some_and(|guarded| guarded.refuse(response)) {
            return;
        }
        if let Some(protocol) = self.protocol {
            response.headers_mut().entry(SEC_WEBSOCKET_PROTOCOL).or_insert(protocol);
        }
        if let Some(reserved) = self.reserved.filter(|_| begins) {
            reserved.commit();
        }
    }
}

impl<F, P, R> ResponseFuture<F, P, R> {
    pub(crate) fn parked(parked: P) -> Self {
        Self { judged: Judged::waiting(parked) }
    }

    pub(crate) const fn inner(future: F, completion: Option<Completion<R>>) -> Self {
        Self { judged: Judged::inner(future, completion) }
    }

    pub(crate) const fn refused(response: Response<R>) -> Self {
        Self { judged: Judged::refused(response) }
    }
}

/// A request that waits for the store, with the service that is ready for it.
pub struct Parked<I, S, M, B> {
    inner: I,
    auth: Auth<S, M>,
    request: Request<B>,
    inquiry: Inquiry,
    deadline: BoxFuture<'static, ()>,
}

impl<I, S, M, B> fmt::Debug for Parked<I, S, M, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parked(..)")
    }
}

impl<I, S: KeyStore, M, B> Parked<I, S, M, B> {
    pub(crate) fn new(inner: I, auth: Auth<S, M>, request: Request<B>, inquiry: Inquiry) -> Self {
        let deadline = auth.config.runtime.sleep(auth.config.lookup_deadline);
        Self { inner, auth, request, inquiry, deadline }
    }
}

impl<I, S, M, B, R> Waiting for Parked<I, S, M, B>
where
    I: Service<Request<B>, Response = Response<R>>,
    S: KeyStore,
    M: MakeBody<R>,
{
    type Decided = Result<Accepted, Rejection>;
    type Next = Judged<I::Future, Self, Completion<R>, R>;

    fn poll_decided(&mut self, cx: &mut Context<'_>) -> Poll<Self::Decided> {
        let answered = self.inquiry.poll(&self.auth, &self.request, Some(cx));
        if answered.is_pending() {
            ready!(self.deadline.poll_unpin(cx));
            return Poll::Ready(Err(self.inquiry.overdue()));
        }
        answered
    }

    fn go_on(self, decided: Self::Decided) -> Self::Next {
        let Self { mut inner, auth, mut request, inquiry, .. } = self;
        match decided {
            Ok(accepted) => {
                let completion = auth.admit(&mut request, accepted, &inquiry);
                Judged::inner(inner.call(request), completion)
            }
            Err(rejection) => Judged::refused(auth.refuse(request, &inquiry.refused(rejection))),
        }
    }
}

impl<I, S, M, B, R> Future for ResponseFuture<I::Future, Parked<I, S, M, B>, R>
where
    I: Service<Request<B>, Response = Response<R>>,
    S: KeyStore,
    M: MakeBody<R>,
{
    type Output = Result<Response<R>, I::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().judged.poll(cx)
    }
}

impl<F, P, R> fmt::Debug for ResponseFuture<F, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResponseFuture").field(&self.judged).finish()
    }
}
