//! Asking the store about each credential that may decide, until one does.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::FutureExt as _;
use http::Uri;

use crate::{
    KeyRecord, KeyStore, Lookup, Principal, Rejection, RejectionKind, StoreError,
    credential::{Candidate, Candidates},
    decision::decide,
    event,
    handshake::Handshake,
    service::Auth,
};

/// Where the question who is calling stands for one request.
pub(crate) struct Inquiry {
    pub(crate) handshake: Handshake,
    candidates: Candidates,
    next: usize,
    lookup: Option<Lookup>,
    /// What is answered if no candidate is good: the first one's refusal.
    refusal: Option<Rejection>,
}

impl Inquiry {
    pub(crate) const fn new(handshake: Handshake, candidates: Candidates) -> Self {
        Self { handshake, candidates, next: 0, lookup: None, refusal: None }
    }

    /// How many places held a credential.
    pub(crate) const fn presented(&self) -> u8 {
        self.candidates.presented
    }

    /// Goes on as far as the store's answers reach. Without a context, only as far as they are
    /// there at once.
    pub(crate) fn poll<S: KeyStore, M>(
        &mut self,
        auth: &Auth<S, M>,
        uri: &Uri,
        mut cx: Option<&mut Context<'_>>,
    ) -> Poll<Result<Principal, Rejection>> {
        while let Some(candidate) = self.candidates.get(self.next) {
            let reject = |kind| Rejection::new(kind, Some(candidate.source));
            let rejection = match candidate.digest {
                None => reject(RejectionKind::Unknown),
                Some(digest) => {
                    let answer = ready!(self.answer(auth, candidate, cx.as_deref_mut()));
                    let now = auth.keys.now();
                    match answer.map(|record| decide(&digest, record, now, self.handshake, uri)) {
                        Ok(Ok(good)) => {
                            let principal = Principal::of(good, candidate.source, now);
                            return Poll::Ready(Ok(principal));
                        }
                        Ok(Err(kind)) => reject(kind),
                        // Whether this key or the next would do cannot be known now.
                        Err(error) => {
                            event::store_failed(&error);
                            return Poll::Ready(Err(reject(RejectionKind::StoreUnavailable)));
                        }
                    }
                }
            };
            self.refusal.get_or_insert(rejection);
            self.next += 1;
        }
        let missing = Rejection::new(RejectionKind::Missing, None);
        Poll::Ready(Err(self.refusal.unwrap_or(missing)))
    }

    /// The refusal of a request whose answer has not come in time.
    pub(crate) fn overdue(&self) -> Rejection {
        event::store_failed(&StoreError::new("no answer within the lookup deadline"));
        let source = self.candidates.get(self.next).map(|candidate| candidate.source);
        Rejection::new(RejectionKind::StoreUnavailable, source)
    }

    /// The store's answer for `candidate`. A panic of the store is an error of the store.
    fn answer<S: KeyStore, M>(
        &mut self,
        auth: &Auth<S, M>,
        candidate: Candidate,
        cx: Option<&mut Context<'_>>,
    ) -> Poll<Result<Option<Arc<KeyRecord>>, StoreError>> {
        let panicked = || StoreError::new("the store panicked");
        let Some(digest) = candidate.digest else { return Poll::Ready(Ok(None)) };
        let asked = match self.lookup.take() {
            Some(lookup) => Ok(lookup),
            None => catch_unwind(AssertUnwindSafe(|| auth.keys.store().lookup(&digest))),
        };
        let Ok(asked) = asked else { return Poll::Ready(Err(panicked())) };
        let mut lookup = match asked.try_now() {
            Ok(answer) => return Poll::Ready(answer),
            Err(lookup) => lookup,
        };
        let Some(cx) = cx else {
            self.lookup = Some(lookup);
            return Poll::Pending;
        };
        match catch_unwind(AssertUnwindSafe(|| lookup.poll_unpin(cx))) {
            Ok(Poll::Ready(answer)) => Poll::Ready(answer),
            Ok(Poll::Pending) => {
                self.lookup = Some(lookup);
                Poll::Pending
            }
            Err(_) => Poll::Ready(Err(panicked())),
        }
    }
}
