//! Asking the store about each credential that may decide, until one does.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::FutureExt as _;
use http::Request;

use crate::{
    Answer, CredentialSource, KeyRecord, KeyStore, Lookup, Principal, Redeemed, Rejection,
    RejectionKind, Revocations, StoreError, UnixMillis, Use,
    credential::{Candidate, Candidates, Places},
    decision::{Asked, Good, decide},
    event,
    handshake::Handshake,
    profile::Profile,
    service::{Auth, Refused},
};

/// Where the question who is calling stands for one request.
pub(crate) struct Inquiry {
    pub(crate) handshake: Handshake,
    pub(crate) profile: Arc<Profile>,
    candidates: Candidates,
    /// How many of them were passed over.
    next: usize,
    step: Step,
    /// That of the store's revocations before it was last asked for a record.
    epoch: u64,
    /// What is answered if no candidate is good: the first one's refusal.
    refusal: Option<Rejection>,
    /// Whether one of those that were passed over may have been guessed.
    guessed: bool,
    /// When the request came, if somebody listens to decisions.
    pub(crate) began: Option<UnixMillis>,
}

/// What the store was last asked about the candidate.
enum Step {
    /// Nothing yet.
    Next,
    LookingUp(Lookup),
    Redeeming(Good, Redeemed),
}

/// A request that is let through: who is calling, and the use that this takes of the key.
pub(crate) struct Accepted {
    pub(crate) principal: Principal,
    pub(crate) reserved: Option<Use>,
}

impl Inquiry {
    pub(crate) const fn new(
        handshake: Handshake,
        profile: Arc<Profile>,
        candidates: Candidates,
        began: Option<UnixMillis>,
    ) -> Self {
        Self {
            handshake,
            profile,
            candidates,
            next: 0,
            step: Step::Next,
            epoch: 0,
            refusal: None,
            guessed: false,
            began,
        }
    }

    /// How many places held a credential.
    pub(crate) const fn presented(&self) -> u8 {
        self.candidates.presented
    }

    /// Where the request may hold credentials, those that do not decide included.
    pub(crate) const fn to_strip(&self) -> &Places {
        &self.candidates.to_strip
    }

    /// Goes on as far as the store's answers reach. Without a context, only as far as they are
    /// there at once.
    pub(crate) fn poll<S: KeyStore, M, B>(
        &mut self,
        auth: &Auth<S, M>,
        request: &Request<B>,
        mut cx: Option<&mut Context<'_>>,
    ) -> Poll<Result<Accepted, Rejection>> {
        let store = auth.keys.store();
        loop {
            let Some(Candidate { source, digests }) = self.candidates.get(self.next) else {
                let missing = Rejection::new(RejectionKind::Missing, None);
                return Poll::Ready(Err(self.refusal.unwrap_or(missing)));
            };
            let source = *source;
            let digests = match digests {
                Ok(digests) => digests,
                Err(kind) => {
                    let kind = *kind;
                    self.pass_over(source, kind);
                    continue;
                }
            };
            match mem::replace(&mut self.step, Step::Next) {
                Step::Next => {
                    let lookup = ask(|| {
                        self.epoch = store.revocations().map_or(0, Revocations::epoch);
                        match &digests.previous {
                            None => store.lookup(&digests.current),
                            Some(previous) => store.lookup_either(&digests.current, previous),
                        }
                    });
                    self.step = Step::LookingUp(lookup);
                }
                Step::LookingUp(lookup) => {
                    let record = match settle(lookup, cx.as_deref_mut()) {
                        Ok(Ok(record)) => record,
                        Ok(Err(error)) => return Poll::Ready(Err(failed(source, &error))),
                        Err(lookup) => {
                            self.step = Step::LookingUp(lookup);
                            return Poll::Pending;
                        }
                    };
                    let asked = Asked::by(request, self.handshake);
                    let now = auth.keys.now();
                    match decide(digests, record, now, auth.config.environment, asked) {
                        Err(kind) => self.pass_over(source, kind),
                        Ok(good) => {
                            let limited = good.record.grants().uses().is_some();
                            if limited && self.handshake.is_websocket() {
                                let redeemed = ask(|| store.redeem(&good.record));
                                self.step = Step::Redeeming(good, redeemed);
                            } else {
                                let principal = self.principal(good, source, now, auth);
                                return Poll::Ready(Ok(Accepted { principal, reserved: None }));
                            }
                        }
                    }
                }
                Step::Redeeming(good, redeemed) => match settle(redeemed, cx.as_deref_mut()) {
                    Ok(Ok(Some(reserved))) => {
                        let principal = self.principal(good, source, auth.keys.now(), auth);
                        let reserved = Some(reserved);
                        return Poll::Ready(Ok(Accepted { principal, reserved }));
                    }
                    Ok(Ok(None)) => self.pass_over(source, RejectionKind::Spent),
                    Ok(Err(error)) => return Poll::Ready(Err(failed(source, &error))),
                    Err(redeemed) => {
                        self.step = Step::Redeeming(good, redeemed);
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// The request, refused.
    pub(crate) fn refused(&self, rejection: Rejection) -> Refused {
        Refused {
            rejection,
            handshake: self.handshake,
            profile: Arc::clone(&self.profile),
            presented: self.presented(),
            guessed: self.guessed,
            began: self.began,
        }
    }

    /// The refusal of a request whose answer has not come in time.
    pub(crate) fn overdue(&self) -> Rejection {
        let source = self.candidates.get(self.next).map(|candidate| candidate.source);
        event::store_failed(&StoreError::new("no answer within the lookup deadline"));
        Rejection::new(RejectionKind::StoreUnavailable, source)
    }

    /// Who is calling by a good key.
    fn principal<S: KeyStore, M>(
        &self,
        good: Good,
        source: CredentialSource,
        now: UnixMillis,
        auth: &Auth<S, M>,
    ) -> Principal {
        let store = auth.keys.store();
        note_use(store, &good.record, now);
        let hub = store.revocations().map(|hub| (hub.clone(), self.epoch));
        Principal::of(good, source, now, hub, &self.profile, &auth.config)
    }

    fn pass_over(&mut self, source: CredentialSource, kind: RejectionKind) {
        self.refusal.get_or_insert(Rejection::new(kind, Some(source)));
        self.guessed |= kind.is_guess();
        self.next += 1;
    }
}

/// A failed store ends the inquiry: whether this key or the next would do cannot be known now.
fn failed(source: CredentialSource, error: &StoreError) -> Rejection {
    event::store_failed(error);
    Rejection::new(RejectionKind::StoreUnavailable, Some(source))
}

type Asking<T> = Answer<'static, Result<T, StoreError>>;

/// Asks the store. A panic of the store is an error of the store.
fn ask<T>(question: impl FnOnce() -> Asking<T>) -> Asking<T> {
    catch_unwind(AssertUnwindSafe(question)).unwrap_or_else(|_| Answer::ready(Err(panicked())))
}

/// The store's answer, or what is to be asked again later.
fn settle<T: Unpin>(
    answer: Asking<T>,
    cx: Option<&mut Context<'_>>,
) -> Result<Result<T, StoreError>, Asking<T>> {
    let mut pending = match answer.try_now() {
        Ok(answer) => return Ok(answer),
        Err(pending) => pending,
    };
    let Some(cx) = cx else { return Err(pending) };
    match catch_unwind(AssertUnwindSafe(|| pending.poll_unpin(cx))) {
        Ok(Poll::Ready(answer)) => Ok(answer),
        Ok(Poll::Pending) => Err(pending),
        Err(_) => Ok(Err(panicked())),
    }
}

/// Whether a use is noted changes nothing for the request.
// Inlined, it would keep `principal` from being so, at twice the instructions.
#[inline(never)]
fn note_use(store: &impl KeyStore, record: &Arc<KeyRecord>, now: UnixMillis) {
    let _ = catch_unwind(AssertUnwindSafe(|| store.note_use(record, now)));
}

fn panicked() -> StoreError {
    StoreError::new("the store panicked")
}
