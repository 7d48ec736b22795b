//! The way of a request through its limits.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Version};
use tower_service::Service;

use super::{
    Counted, Demand, Held, LimitHeaders, Standing, Take, Taken, Usage,
    future::{LimitFuture, Parked},
    headers::{Told, tightest},
    layer::{Limits, take},
    permit::{SessionPermit, Watch},
    rules::{Rules, RulesOf, demands},
};
use crate::{
    FromBytes, MakeBody, Principal, Profile, Rejection, RejectionKind, StoreError, UnixMillis,
    event,
    handshake::Handshake,
    judged::Ending,
    rejection::{self, is_refused},
    service::Refused,
};

/// The service that [`LimitLayer`](super::LimitLayer) makes.
#[must_use]
#[derive(Clone)]
pub struct LimitService<I, M = FromBytes> {
    inner: I,
    gate: Gate<M>,
}

/// What holds a request to its limits, apart from the service that it is for.
#[derive(Clone)]
pub(super) struct Gate<M> {
    pub(super) limits: Arc<Limits>,
    make_body: M,
}

impl<I, M> LimitService<I, M> {
    pub(super) const fn new(inner: I, limits: Arc<Limits>, make_body: M) -> Self {
        Self { inner, gate: Gate { limits, make_body } }
    }
}

impl<I, M, B, R> Service<Request<B>> for LimitService<I, M>
where
    I: Service<Request<B>, Response = Response<R>> + Clone,
    M: MakeBody<R>,
{
    type Response = Response<R>;
    type Error = I::Error;
    type Future = LimitFuture<I::Future, Parked<I, M, B>, M, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some((asking, take)) = self.gate.ask(&request) else {
            return LimitFuture::inner(self.inner.call(request), None);
        };
        // Most answers are there at once; only a pending one needs the request to be parked.
        match take.try_now() {
            Ok(answer) => match self.gate.judge(&mut request, asking, answer) {
                Ok(ending) => LimitFuture::inner(self.inner.call(request), Some(ending)),
                Err(refused) => LimitFuture::refused(refused),
            },
            Err(take) => {
                // The service that was polled ready goes with the request; its clone stays.
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                LimitFuture::parked(Parked::new(ready, self.gate.clone(), request, asking, take))
            }
        }
    }
}

/// What the store was asked for one request.
pub(super) struct Asking {
    handshake: Handshake,
    profile: Arc<Profile>,
    demands: Vec<Demand>,
    at: UnixMillis,
}

/// What the answer to a request tells at its end, when its usage is known.
pub(crate) struct LimitEnding<M> {
    headers: LimitHeaders,
    usage: Usage,
    counted: Option<CountedSession<M>>,
}

/// A session that may not begin without its place: one that nobody holds would not be counted.
struct CountedSession<M> {
    place: Watch,
    /// What is answered if nobody does.
    refused: Refused,
    is_http1: bool,
    make_body: M,
}

impl<M: MakeBody<R>, R> Ending<R> for LimitEnding<M> {
    fn apply(self, response: &mut Response<R>) {
        if let Some(CountedSession { place, refused, is_http1, make_body }) = self.counted
            && refused.handshake.is_completed_by(response)
            && !is_refused(response)
            && place.is_given_back()
        {
            event::uncounted();
            *response = rejection::respond(&refused, is_http1, &make_body);
        }
        self.headers.tell(&self.usage.told(), response.headers_mut());
    }
}

impl<M> Gate<M> {
    /// Asks the store for all that a request takes; nothing for one that nobody pays for.
    fn ask<B>(&self, request: &Request<B>) -> Option<(Asking, Take)> {
        let principal = request.extensions().get::<Principal>()?;
        let Limits { clock, rules, max_of_account, .. } = &*self.limits;
        let rules = rules.as_ref();
        let rules =
            rules.map_or(Rules::all(), |says: &RulesOf| says.of(request.method(), request.uri()));
        let handshake = Handshake::at(request);
        // One that was done wrong does not get here. If it did, it would count.
        let is_session = handshake != Handshake::None;
        let demands = demands(principal.record(), rules, is_session, *max_of_account);
        let at = clock.now();
        let take = if demands.is_empty() {
            Take::ready(Ok(Taken::Granted { standings: Vec::new(), held: Held::nothing() }))
        } else {
            take(&self.limits, &demands, at)
        };
        let profile = principal.profile().cloned().unwrap_or_default();
        Some((Asking { handshake, profile, demands, at }, take))
    }

    /// Prepares the request for the inner service, or answers it.
    pub(super) fn judge<B, R>(
        &self,
        request: &mut Request<B>,
        asking: Asking,
        answer: Result<Taken, StoreError>,
    ) -> Result<LimitEnding<M>, Response<R>>
    where
        M: MakeBody<R>,
    {
        let Asking { profile, demands, at, .. } = &asking;
        let told = |standings: &[Standing]| Told {
            requests: tightest(Counted::Requests, demands, standings),
            usage: tightest(Counted::Usage, demands, standings),
            at: *at,
        };
        let (standings, held) = match answer {
            Ok(Taken::Granted { standings, held }) => (standings, held),
            Ok(Taken::Refused { standings, by }) => {
                let kind = demands.get(by).map_or(RejectionKind::RateLimited, Demand::refusal);
                let wait = standings.get(by).map(|standing| standing.wait(*at));
                return Err(self.refuse(request, &asking, kind, wait, Some(told(&standings))));
            }
            Err(error) => {
                event::limits_failed(&error);
                if !self.limits.failing_open {
                    let kind = RejectionKind::LimitsUnavailable;
                    return Err(self.refuse(request, &asking, kind, None, None));
                }
                (Vec::new(), Held::nothing())
            }
        };
        let (mut source, mut place) = (None, None);
        if let Some(principal) = request.extensions_mut().get_mut::<Principal>() {
            source = Some(principal.source());
            if !held.is_nothing() {
                principal.hold(|before| {
                    let permit = SessionPermit::new(held, before);
                    place = Some(permit.watch());
                    permit
                });
            }
        }
        let counted = place.map(|place| {
            let rejection = Rejection::new(RejectionKind::Uncounted, source);
            let refused = Refused::further_in(rejection, asking.handshake, Arc::clone(profile));
            let is_http1 = request.version() <= Version::HTTP_11;
            CountedSession { place, refused, is_http1, make_body: self.make_body.clone() }
        });
        let headers = profile.limit_headers();
        let of = (Arc::clone(profile), source);
        let told = told(&standings);
        let usage = Usage::of(Arc::clone(&self.limits), asking.demands, told, of);
        request.extensions_mut().insert(usage.clone());
        Ok(LimitEnding { headers, usage, counted })
    }

    fn refuse<B, R>(
        &self,
        request: &mut Request<B>,
        asking: &Asking,
        kind: RejectionKind,
        wait: Option<Duration>,
        told: Option<Told>,
    ) -> Response<R>
    where
        M: MakeBody<R>,
    {
        let principal = request.extensions().get::<Principal>();
        let rejection = Rejection::new(kind, principal.map(Principal::source));
        let rejection = rejection.with_retry_after(wait);
        event::limited(rejection, principal);
        let Asking { handshake, profile, .. } = asking;
        let refused = Refused::further_in(rejection, *handshake, Arc::clone(profile));
        // The connection goes with it, so that the handshake of a browser can be closed.
        let mut handed = Request::new(());
        *handed.version_mut() = request.version();
        let config = principal.and_then(Principal::config).cloned();
        mem::swap(handed.headers_mut(), request.headers_mut());
        mem::swap(handed.extensions_mut(), request.extensions_mut());
        let mut response = rejection::answer(handed, &refused, config.as_deref(), &self.make_body);
        if let Some(told) = told {
            refused.profile.limit_headers().tell(&told, response.headers_mut());
        }
        response
    }
}

impl Demand {
    /// Why a request is refused for which so much is not left.
    const fn refusal(&self) -> RejectionKind {
        match self.budget().counted() {
            Counted::Requests | Counted::NewSessions => RejectionKind::RateLimited,
            Counted::OpenSessions => RejectionKind::TooManySessions,
            Counted::Usage => RejectionKind::UsageSpent,
        }
    }
}

impl<I: fmt::Debug, M> fmt::Debug for LimitService<I, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitService")
            .field("inner", &self.inner)
            .field("limits", &self.gate.limits)
            .finish_non_exhaustive()
    }
}
