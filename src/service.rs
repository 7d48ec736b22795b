//! The way of a request, from top to bottom.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, Version};
use tower_service::Service;

use crate::{
    KeyStore, Keys, MakeBody, Principal, Rejection, ResponseFuture,
    credential::{Candidates, consumed_entry, strip},
    event,
    future::{Echo, Parked},
    handshake::{Handshake, Selection, select},
    inquiry::Inquiry,
    layer::Config,
    rejection,
};

/// The service that [`RealtimeAuthLayer`](crate::RealtimeAuthLayer) makes.
#[must_use]
pub struct RealtimeAuth<I, S, M = crate::FromBytes> {
    inner: I,
    auth: Auth<S, M>,
}

/// What judges a request, apart from the service that it is for.
pub(crate) struct Auth<S, M> {
    pub(crate) keys: Keys<S>,
    pub(crate) config: Arc<Config>,
    make_body: M,
}

impl<I, S, M> RealtimeAuth<I, S, M> {
    pub(crate) const fn new(inner: I, keys: Keys<S>, config: Arc<Config>, make_body: M) -> Self {
        Self { inner, auth: Auth { keys, config, make_body } }
    }
}

impl<I, S, M, B, R> Service<Request<B>> for RealtimeAuth<I, S, M>
where
    I: Service<Request<B>, Response = Response<R>> + Clone,
    S: KeyStore,
    M: MakeBody<R>,
{
    type Response = Response<R>;
    type Error = I::Error;
    type Future = ResponseFuture<I::Future, Parked<I, S, M, B>, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inquiry = match self.auth.examine(&request) {
            Ok(inquiry) => inquiry,
            Err((rejection, handshake)) => {
                return ResponseFuture::refused(self.auth.refuse(request, rejection, handshake));
            }
        };
        // Most answers are there at once; only a pending one needs the request to be parked.
        match inquiry.poll(&self.auth, request.uri(), None) {
            Poll::Ready(Ok(principal)) => {
                let (request, echo) = self.auth.admit(request, principal, &inquiry);
                ResponseFuture::inner(self.inner.call(request), echo)
            }
            Poll::Ready(Err(rejection)) => {
                let handshake = inquiry.handshake;
                ResponseFuture::refused(self.auth.refuse(request, rejection, handshake))
            }
            Poll::Pending => {
                // The service that was polled ready goes with the request; its clone stays.
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                ResponseFuture::parked(Parked::new(ready, self.auth.clone(), request, inquiry))
            }
        }
    }
}

impl<S: KeyStore, M> Auth<S, M> {
    /// What the request is, and whom it claims to come from.
    fn examine<B>(&self, request: &Request<B>) -> Result<Inquiry, (Rejection, Handshake)> {
        let Config { profile, conflicts, .. } = &*self.config;
        let handshake = Handshake::of(request);
        match Candidates::of(request, handshake, profile, *conflicts, &self.keys) {
            Ok(candidates) => Ok(Inquiry::new(handshake, candidates)),
            Err(unusable) => Err((Rejection::new(unusable.kind, unusable.source), handshake)),
        }
    }

    /// Prepares an accepted request for the inner service: principal in, credentials out.
    pub(crate) fn admit<B>(
        &self,
        request: Request<B>,
        principal: Principal,
        inquiry: &Inquiry,
    ) -> (Request<B>, Option<Echo>) {
        event::accepted(&principal, inquiry.presented());
        let profile = &self.config.profile;
        let handshake = inquiry.handshake;
        let selection = if handshake.is_websocket() {
            let consumed = consumed_entry(&request, principal.source(), profile);
            select(request.headers(), profile, consumed)
        } else {
            Selection::Nothing
        };
        let (mut parts, body) = request.into_parts();
        let keep_entry = matches!(selection, Selection::Credential);
        let consumed = strip(&mut parts, profile, keep_entry);
        let (protocol, echo) = match selection {
            Selection::Protocol(protocol) => (Some(protocol.clone()), Some(protocol)),
            Selection::Credential => (None, consumed),
            Selection::Nothing => (None, None),
        };
        parts.extensions.insert(principal.with_protocol(protocol));
        let echo = echo.map(|protocol| Echo { protocol, handshake });
        (Request::from_parts(parts, body), echo)
    }

    /// Answers a refused request, by the door that its client can see through.
    pub(crate) fn refuse<B, R>(
        &self,
        request: Request<B>,
        rejection: Rejection,
        handshake: Handshake,
    ) -> Response<R>
    where
        M: MakeBody<R>,
    {
        event::refused(rejection);
        let is_http1 = request.version() <= Version::HTTP_11;
        #[cfg(feature = "close")]
        if let Some(response) =
            rejection::try_close(request, handshake, rejection, &self.config, &self.make_body)
        {
            return response;
        }
        rejection::respond(rejection, handshake, is_http1, &self.make_body)
    }
}

impl<I: Clone, S, M: Clone> Clone for RealtimeAuth<I, S, M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), auth: self.auth.clone() }
    }
}

impl<S, M: Clone> Clone for Auth<S, M> {
    fn clone(&self) -> Self {
        Self {
            keys: self.keys.clone(),
            config: Arc::clone(&self.config),
            make_body: self.make_body.clone(),
        }
    }
}

impl<I: fmt::Debug, S, M> fmt::Debug for RealtimeAuth<I, S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealtimeAuth")
            .field("inner", &self.inner)
            .field("config", &self.auth.config)
            .finish_non_exhaustive()
    }
}
