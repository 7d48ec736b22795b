//! Usage: reserved before it is spent, so that nobody spends more than is there.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::Response;

use super::{
    Counted, Demand, Held, LimitHeaders, Standing, Taken,
    headers::{Told, rate_limits_updated, tightest},
    layer::{Limits, in_time, take},
};
use crate::{
    CredentialSource, Environment, FromBytes, MakeBody, Profile, Rejection, RejectionKind,
    StoreError, UnixMillis, event, handshake::Handshake, rejection, service::Refused,
};

/// The usage of whoever sent a request: in the extensions of every request with a
/// [`Principal`](crate::Principal) that [`LimitLayer`](super::LimitLayer) lets through. Cheap to
/// clone.
///
/// ```
/// use tower_realtime_auth::{Usage, UsageRefused};
///
/// /// One unit for each byte of text, if it can be spoken.
/// async fn speak(usage: &Usage, text: &str) -> Result<(), UsageRefused> {
///     let reserved = usage.reserve(text.len() as u64).await?;
///     if synthesize(text).is_ok() {
///         reserved.commit();
///     } // Else it is given back.
///     Ok(())
/// }
/// # fn synthesize(text: &str) -> Result<(), ()> { Ok(()) }
/// ```
#[derive(Clone)]
pub struct Usage(Arc<Inner>);

struct Inner {
    limits: Arc<Limits>,
    /// What the request itself took. None of usage where nothing limits it.
    demands: Vec<Demand>,
    /// As it stood when the request came.
    told: Told,
    /// The tightest usage, as the store last told this request.
    standing: Mutex<Option<Standing>>,
    profile: Arc<Profile>,
    source: Option<CredentialSource>,
    /// How many events were made.
    events: AtomicU32,
}

impl Usage {
    /// Of a request with these demands.
    pub(super) fn of(
        limits: Arc<Limits>,
        demands: Vec<Demand>,
        told: Told,
        (profile, source): (Arc<Profile>, Option<CredentialSource>),
    ) -> Self {
        let (standing, events) = (Mutex::new(told.usage), AtomicU32::new(1));
        Self(Arc::new(Inner { limits, demands, told, standing, profile, source, events }))
    }

    /// How the month's usage stands, as this request was last told. `None`: without a limit. To a
    /// test key, which spends nothing, all of it is left.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        *self.lock()
    }

    /// How the requests of the minute stand, as its headers tell this request. `None`: without a
    /// limit.
    #[must_use]
    pub fn requests(&self) -> Option<Standing> {
        self.0.told.requests
    }

    /// All that is told of it at the end.
    pub(super) fn told(&self) -> Told {
        Told { usage: self.standing(), ..self.0.told }
    }

    /// Takes so much of the month's usage, until it is [committed](Reservation::commit) or given
    /// back.
    ///
    /// # Errors
    /// If so much is not left, of the key's plan or of that which its parent has; and if the store
    /// fails or does not answer in time, unless the layer
    /// [lets pass](super::LimitLayer::with_failing_open) then.
    pub async fn reserve(&self, amount: u64) -> Result<Reservation, UsageRefused> {
        let reserved =
            |held| Reservation { usage: self.clone(), amount, standing: self.standing(), held };
        let limits = &self.0.limits;
        let mut demands = self.demands(Counted::Usage, amount);
        // A rehearsal spends nothing.
        demands.retain(|demand| demand.budget().environment() != Environment::Test);
        if demands.is_empty() {
            return Ok(reserved(Held::nothing()));
        }
        let now = limits.clock.now();
        match self.take(&demands, now).await {
            Ok(Taken::Granted { standings, held }) => {
                *self.lock() = tightest(Counted::Usage, &demands, &standings);
                Ok(reserved(held))
            }
            Ok(Taken::Refused { standings, by }) => {
                *self.lock() = tightest(Counted::Usage, &demands, &standings);
                let wait = standings.get(by).map(|standing| standing.wait(now));
                let rejection = self.rejection(RejectionKind::UsageSpent);
                Err(self.refused(rejection.with_retry_after(wait)))
            }
            Err(error) => {
                event::limits_failed(&error);
                if limits.failing_open {
                    return Ok(reserved(Held::nothing()));
                }
                Err(self.refused(self.rejection(RejectionKind::LimitsUnavailable)))
            }
        }
    }

    /// The event `rate_limits.updated`, by which OpenAI's servers tell, at the beginning of each
    /// response of a session, how the requests of this minute stand now.
    ///
    /// `None` where [the profile](LimitHeaders) tells nothing by it, where nothing limits the
    /// requests, and while the store fails: a session need not end for that.
    pub async fn rate_limits_updated(&self) -> Option<String> {
        let Inner { limits, profile, events, .. } = &*self.0;
        if profile.limit_headers() != LimitHeaders::OpenAi {
            return None;
        }
        let demands = self.demands(Counted::Requests, 0);
        if demands.is_empty() {
            return None;
        }
        let now = limits.clock.now();
        match self.take(&demands, now).await {
            Ok(Taken::Granted { standings, .. } | Taken::Refused { standings, .. }) => {
                let requests = tightest(Counted::Requests, &demands, &standings)?;
                Some(rate_limits_updated(events.fetch_add(1, Relaxed), &requests, now))
            }
            Err(error) => {
                event::limits_failed(&error);
                None
            }
        }
    }

    /// Demands for `amount` of everything of this kind that the request draws on.
    fn demands(&self, counted: Counted, amount: u64) -> Vec<Demand> {
        let of_kind = self.0.demands.iter().filter(|demand| demand.budget().counted() == counted);
        of_kind.map(|demand| demand.clone().with_amount(amount)).collect()
    }

    async fn take(&self, demands: &[Demand], now: UnixMillis) -> Result<Taken, StoreError> {
        let limits = &self.0.limits;
        match take(limits, demands, now).try_now() {
            Ok(answer) => answer,
            Err(take) => in_time(limits, take).await,
        }
    }

    fn rejection(&self, kind: RejectionKind) -> Rejection {
        Rejection::new(kind, self.0.source)
    }

    fn refused(&self, rejection: Rejection) -> UsageRefused {
        UsageRefused { rejection, profile: Arc::clone(&self.0.profile) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Standing>> {
        self.0.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Usage").field("standing", &self.standing()).finish_non_exhaustive()
    }
}

/// Usage that is taken and not yet spent. Dropped, it is given back.
#[must_use = "a reservation that is dropped is given back"]
#[derive(Debug)]
pub struct Reservation {
    usage: Usage,
    amount: u64,
    /// As it was when this was taken.
    standing: Option<Standing>,
    held: Held,
}

impl Reservation {
    /// How much it is.
    #[must_use]
    pub const fn amount(&self) -> u64 {
        self.amount
    }

    /// Spends it for good.
    pub fn commit(mut self) {
        std::mem::take(&mut self.held).keep();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.held.is_nothing() {
            return;
        }
        drop(std::mem::take(&mut self.held));
        let mut standing = self.usage.lock();
        // Nothing goes back into a month that has begun since.
        let month = self.standing.map(|standing| standing.resets_at());
        if standing.map(|standing| standing.resets_at()) == month {
            *standing = standing.map(|standing| standing.given_back(self.amount));
        }
    }
}

/// Why usage was not reserved: what was asked for is not left (429), or nobody can tell (503).
#[derive(Clone)]
pub struct UsageRefused {
    rejection: Rejection,
    profile: Arc<Profile>,
}

impl UsageRefused {
    /// The reason, and when trying again may help.
    #[must_use]
    pub const fn rejection(&self) -> &Rejection {
        &self.rejection
    }

    /// What to answer, in the words of the profile.
    #[must_use]
    pub fn response<B>(&self) -> Response<B>
    where
        B: From<Bytes>,
    {
        self.response_by(&FromBytes)
    }

    /// The same, for bodies without `From<Bytes>`.
    #[must_use]
    pub fn response_by<M, B>(&self, make_body: &M) -> Response<B>
    where
        M: MakeBody<B>,
    {
        let profile = Arc::clone(&self.profile);
        let refused = Refused::further_in(self.rejection, Handshake::None, profile);
        rejection::respond(&refused, false, make_body)
    }
}

impl fmt::Display for UsageRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rejection.fmt(f)
    }
}

impl fmt::Debug for UsageRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UsageRefused").field(&self.rejection).finish()
    }
}

impl std::error::Error for UsageRefused {}
