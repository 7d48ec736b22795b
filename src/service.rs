//! The way of a request, from top to bottom.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, Version};
use tower_service::Service;

use crate::{
    CredentialSource, KeyStore, Keys, MakeBody, Policy, Principal, Rejection, RejectionKind,
    ResponseFuture, UnixMillis,
    credential::{Candidates, Places, Unusable, consumed_entry, strip},
    event,
    future::{Completion, Parked},
    handshake::{Handshake, Selection, select},
    inquiry::{Accepted, Inquiry},
    layer::Config,
    profile::Profile,
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
            Err(Settled::Pass(profile, handshake)) => {
                let (request, completion) = self.auth.pass(request, &profile, handshake);
                return ResponseFuture::inner(self.inner.call(request), completion);
            }
            Err(Settled::Refuse(refused)) => {
                return ResponseFuture::refused(self.auth.refuse(request, &refused));
            }
        };
        // Most answers are there at once; only a pending one needs the request to be parked.
        match inquiry.poll(&self.auth, &request, None) {
            Poll::Ready(Ok(accepted)) => {
                let (request, completion) = self.auth.admit(request, accepted, &inquiry);
                ResponseFuture::inner(self.inner.call(request), completion)
            }
            Poll::Ready(Err(rejection)) => {
                let response = self.auth.refuse(request, &inquiry.refused(rejection));
                ResponseFuture::refused(response)
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

/// What becomes of a request about which the store need not be asked.
enum Settled {
    /// It needs no key and carries none that counts.
    Pass(Arc<Profile>, Handshake),
    Refuse(Refused),
}

/// A refused request, apart from itself.
pub(crate) struct Refused {
    pub(crate) rejection: Rejection,
    pub(crate) handshake: Handshake,
    pub(crate) profile: Arc<Profile>,
    pub(crate) presented: u8,
    pub(crate) began: Option<UnixMillis>,
}

impl<S: KeyStore, M> Auth<S, M> {
    /// What the request is, what it needs, and whom it claims to come from.
    fn examine<B>(&self, request: &Request<B>) -> Result<Inquiry, Settled> {
        let Config { profile, policies, conflicts, on_decision, .. } = &*self.config;
        let policy = policies
            .as_ref()
            .map_or(Policy::Protected, |policies| policies.of(request.method(), request.uri()));
        let profile = match &policy {
            Policy::ProtectedBy(profile) => Arc::clone(profile),
            Policy::Public | Policy::Optional | Policy::Protected => Arc::clone(profile),
        };
        let handshake = Handshake::of(request);
        if matches!(policy, Policy::Public) {
            return Err(Settled::Pass(profile, handshake));
        }
        // The clock is read for the time taken only if somebody wants to know it.
        let began = on_decision.as_ref().map(|_| self.keys.now());
        let refuse = |unusable: Unusable, profile| {
            Err(Settled::Refuse(Refused {
                rejection: Rejection::new(unusable.kind, unusable.source),
                handshake,
                profile,
                presented: unusable.presented,
                began,
            }))
        };
        match Candidates::of(request, handshake, &profile, *conflicts, &self.keys) {
            Ok(candidates) => Ok(Inquiry::new(handshake, profile, candidates, began)),
            Err(Unusable { kind: RejectionKind::Missing, .. })
                if matches!(policy, Policy::Optional) =>
            {
                if handshake == Handshake::Unrecognised {
                    let kind = RejectionKind::Handshake;
                    return refuse(Unusable { kind, source: None, presented: 0 }, profile);
                }
                Err(Settled::Pass(profile, handshake))
            }
            Err(unusable) => refuse(unusable, profile),
        }
    }

    /// Prepares a request that needs no key for the inner service.
    fn pass<B>(
        &self,
        mut request: Request<B>,
        profile: &Profile,
        handshake: Handshake,
    ) -> (Request<B>, Option<Completion>) {
        request.extensions_mut().remove::<Principal>();
        let selection = selection(&request, profile, handshake, None);
        let (mut parts, body) = request.into_parts();
        strip(&mut parts, profile, Places::ALL, false);
        let protocol = match selection {
            Selection::Protocol(protocol) => Some(protocol),
            Selection::Credential | Selection::Nothing => None,
        };
        let completion = Completion::new(handshake, protocol, None);
        (Request::from_parts(parts, body), completion)
    }

    /// Prepares an accepted request for the inner service: principal in, credentials out.
    pub(crate) fn admit<B>(
        &self,
        request: Request<B>,
        accepted: Accepted,
        inquiry: &Inquiry,
    ) -> (Request<B>, Option<Completion>) {
        let Accepted { principal, reserved } = accepted;
        event::accepted(&principal, inquiry, &self.config, || self.keys.now());
        let Inquiry { profile, handshake, .. } = inquiry;
        let selection = selection(&request, profile, *handshake, Some(principal.source()));
        let (mut parts, body) = request.into_parts();
        let keep_entry = matches!(selection, Selection::Credential);
        let consumed = strip(&mut parts, profile, inquiry.to_strip(), keep_entry);
        let (shown, answered) = match selection {
            Selection::Protocol(protocol) => (Some(protocol.clone()), Some(protocol)),
            Selection::Credential => (None, consumed),
            Selection::Nothing => (None, None),
        };
        parts.extensions.insert(principal.with_protocol(shown));
        let completion = Completion::new(*handshake, answered, reserved);
        (Request::from_parts(parts, body), completion)
    }

    /// Answers a refused request, by the door that its client can see through.
    pub(crate) fn refuse<B, R>(&self, request: Request<B>, refused: &Refused) -> Response<R>
    where
        M: MakeBody<R>,
    {
        event::refused(refused, &self.config, || self.keys.now());
        let is_http1 = request.version() <= Version::HTTP_11;
        #[cfg(feature = "close")]
        if let Some(response) =
            rejection::try_close(request, refused, &self.config, &self.make_body)
        {
            return response;
        }
        rejection::respond(refused, is_http1, &self.make_body)
    }
}

/// The subprotocol to answer, where `source` is where the accepted credential stood.
fn selection<B>(
    request: &Request<B>,
    profile: &Profile,
    handshake: Handshake,
    source: Option<CredentialSource>,
) -> Selection {
    if !handshake.is_websocket() {
        return Selection::Nothing;
    }
    select(request.headers(), profile, || {
        source.and_then(|source| consumed_entry(request, source, profile))
    })
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
