//! The way of a request, from top to bottom.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, Version};
use tower_service::Service;

use crate::{
    CredentialSource, KeyStore, Keys, MakeBody, Policy, Principal, Rejection, RejectionKind,
    ResponseFuture, UnixMillis,
    credential::{Candidates, Places, Unusable, strip},
    duty::Guarded,
    event,
    future::{Completion, Parked},
    handshake::Handshake,
    inquiry::{Accepted, Inquiry},
    layer::Config,
    look::Look,
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut inquiry = match self.auth.examine(&request) {
            Ok(inquiry) => inquiry,
            Err(Settled::Pass(profile, handshake)) => {
                let completion = pass(&mut request, &profile, handshake);
                return ResponseFuture::inner(self.inner.call(request), completion);
            }
            Err(Settled::Refuse(refused)) => {
                return ResponseFuture::refused(self.auth.refuse(request, &refused));
            }
        };
        // Most answers are there at once; only a pending one needs the request to be parked.
        match inquiry.poll(&self.auth, &request, None) {
            Poll::Ready(Ok(accepted)) => {
                let completion = self.auth.admit(&mut request, accepted, &inquiry);
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
    /// Whether one of its credentials may have been guessed.
    #[cfg_attr(not(feature = "limit"), allow(dead_code, reason = "nobody counts"))]
    pub(crate) guessed: bool,
    pub(crate) began: Option<UnixMillis>,
}

#[cfg(feature = "limit")]
impl Refused {
    /// One that was let in by its one good credential, and is refused further in.
    pub(crate) const fn further_in(
        rejection: Rejection,
        handshake: Handshake,
        profile: Arc<Profile>,
    ) -> Self {
        Self { rejection, handshake, profile, presented: 1, guessed: false, began: None }
    }
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
        let look = Look::at(request, &profile);
        let handshake = look.handshake;
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
                guessed: unusable.kind.is_guess(),
                began,
            }))
        };
        match Candidates::of(request, look, &profile, *conflicts, &self.keys) {
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

    /// Prepares an accepted request for the inner service: principal in, credentials out.
    pub(crate) fn admit<B, R>(
        &self,
        request: &mut Request<B>,
        accepted: Accepted,
        inquiry: &Inquiry,
    ) -> Option<Completion<R>>
    where
        M: MakeBody<R>,
    {
        let Accepted { principal, reserved } = accepted;
        event::accepted(&principal, inquiry, &self.config, || self.keys.now());
        let Inquiry { profile, handshake, .. } = inquiry;
        let source = Some(principal.source());
        let (protocol, entry) = clear(request, profile, *handshake, inquiry.to_strip(), source);
        let principal = principal.with_protocol(protocol.clone());
        let duty = principal.duty().filter(|_| handshake.is_websocket()).cloned();
        let guarded = duty.map(|duty| {
            let rejection = Rejection::new(RejectionKind::Unguarded, source);
            let is_http1 = request.version() <= Version::HTTP_11;
            let refusal =
                rejection::respond(&inquiry.refused(rejection), is_http1, &self.make_body);
            Guarded::new(duty, principal.key_id().clone(), refusal)
        });
        request.extensions_mut().insert(principal);
        Completion::new(*handshake, protocol.or(entry), reserved, guarded)
    }

    /// Answers a refused request, by the door that its client can see through.
    pub(crate) fn refuse<B, R>(&self, request: Request<B>, refused: &Refused) -> Response<R>
    where
        M: MakeBody<R>,
    {
        #[cfg(feature = "limit")]
        let limited = self.limited(&request, refused);
        #[cfg(feature = "limit")]
        let refused = limited.as_ref().unwrap_or(refused);
        event::refused(refused, &self.config, || self.keys.now());
        rejection::answer(request, refused, Some(&self.config), &self.make_body)
    }

    /// The refusal that stands in the place of another one, of which its source has had enough.
    #[cfg(feature = "limit")]
    fn limited<B>(&self, request: &Request<B>, refused: &Refused) -> Option<Refused> {
        let limit = self.config.failure_limit.as_ref().filter(|_| refused.guessed)?;
        let wait = limit.fail(request, self.keys.now())?;
        let source = refused.rejection.source();
        let rejection = Rejection::new(RejectionKind::TooManyFailures, source);
        let rejection = rejection.with_retry_after(Some(wait));
        Some(Refused { rejection, profile: Arc::clone(&refused.profile), ..*refused })
    }
}

/// Prepares a request that needs no key for the inner service.
fn pass<B, R>(
    request: &mut Request<B>,
    profile: &Profile,
    handshake: Handshake,
) -> Option<Completion<R>> {
    request.extensions_mut().remove::<Principal>();
    let (protocol, _) = clear(request, profile, handshake, &Places::ALL, None);
    Completion::new(handshake, protocol, None, None)
}

/// Takes the credentials out of a request whose accepted one stood at `source`. Answers what the
/// handshake may be answered with: a subprotocol that the service speaks and the client offered,
/// or else the entry that carried the credential, because browsers insist on an answer (xAI's
/// clients offer only this).
fn clear<B>(
    request: &mut Request<B>,
    profile: &Profile,
    handshake: Handshake,
    places: &Places,
    source: Option<CredentialSource>,
) -> (Option<HeaderValue>, Option<HeaderValue>) {
    let offered = places.offered(request.headers(), profile);
    let protocol = offered.protocol(profile).filter(|_| handshake.is_websocket()).cloned();
    let echo = protocol.is_none() && source == Some(CredentialSource::Subprotocol);
    let entry = strip(request, profile, places, offered, echo);
    (protocol, entry)
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
