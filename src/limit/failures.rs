//! How many wrong keys may come from one source.

use std::{
    fmt,
    hash::RandomState,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hashlink::LruCache;
use http::Request;

use super::{Standing, budget::end_of_minute};
use crate::{ClientAddress, UnixMillis, address::Source};

/// Limits how many wrong keys one source may present in a minute: further ones are answered with
/// 429, or where a browser cannot read that by a Close with 4029. A valid key passes all the same,
/// because every key is looked up, so that nobody can lock out whoever shares an address with them.
///
/// One source is an IPv4 address, or an IPv6 network of 64 bits; all requests of
/// [unknown address](ClientAddress) are one, too. A minute is one of Unix time, by the clock of
/// the [`Keys`](crate::Keys).
///
/// What counts is a refused request with a credential that is no key's: one that nobody has, that
/// is mistyped, or that no key could be ([`RejectionKind::Unknown`](crate::RejectionKind::Unknown),
/// [`RejectionKind::Malformed`](crate::RejectionKind::Malformed)). It counts once, however many it
/// presents. Whose key has expired, been revoked or used up, or does not grant what was asked for,
/// has not guessed it: that counts for nothing, and the client is told so even past the limit and
/// can fetch a new one. Nor does a request count that is let through.
///
/// It knows the sources that failed last, [65,536](Self::with_max_sources) at most. For one more,
/// it forgets the one whose last failure is the oldest, which then starts afresh. Each takes about
/// 75 bytes, all of them 5 MB.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::num::NonZeroUsize;
/// use http_body_util::Full;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_realtime_auth::{
///     ClientAddress, FailureLimit, Keys, MemoryStore, NewKey, RealtimeAuthLayer, bytes::Bytes,
///     http::{Request, Response},
/// };
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
///
/// let greet = service_fn(async |_: Request<()>| {
///     Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("hello"))))
/// });
/// // One proxy stands in front and writes down where requests come from.
/// let limit = FailureLimit::new(2).with_address(ClientAddress::forwarded_for(NonZeroUsize::MIN));
/// let service = RealtimeAuthLayer::new(keys).with_failure_limit(limit)?.layer(greet);
///
/// for (key, from, status) in [
///     ("wrong", "192.0.2.1", 401),
///     ("WRONG", "192.0.2.1", 401),
///     // Enough for this minute ...
///     ("guess", "192.0.2.1", 429),
///     // ... which is nothing to others, nor to who has a key.
///     ("guess", "192.0.2.2", 401),
///     (issued.key().expose(), "192.0.2.1", 200),
/// ] {
///     let request = Request::builder()
///         .header("x-api-key", key)
///         .header("x-forwarded-for", from)
///         .body(())?;
///     let response = service.clone().oneshot(request).await?;
///     assert_eq!(response.status(), status);
///     assert_eq!(response.headers().contains_key("retry-after"), status == 429);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct FailureLimit {
    per_minute: u32,
    address: Option<ClientAddress>,
    failures: Arc<Mutex<Failures>>,
}

const DEFAULT_MAX_SOURCES: usize = 65_536;

impl FailureLimit {
    /// So many wrong keys of each source in each minute are answered as such. Clones count
    /// together.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute, address: None, failures: Failures::of_at_most(DEFAULT_MAX_SOURCES) }
    }

    /// Where the address of a client stands. To be said: there is no default.
    pub fn with_address(self, address: ClientAddress) -> Self {
        Self { address: Some(address), ..self }
    }

    /// How many sources are known at most. It then counts apart from what it was made from.
    pub fn with_max_sources(self, max_sources: NonZeroUsize) -> Self {
        Self { failures: Failures::of_at_most(max_sources.get()), ..self }
    }

    /// How many sources it knows at the moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().by_source.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) const fn has_address(&self) -> bool {
        self.address.is_some()
    }

    /// Counts a failure for where the request comes from. If there were as many as there may be
    /// before, answers how long the minute lasts.
    pub(crate) fn fail<B>(&self, request: &Request<B>, now: UnixMillis) -> Option<Duration> {
        let source = self.address.as_ref().and_then(|address| address.source_of(request));
        self.lock().add(source, self.per_minute.into(), now)
    }

    fn lock(&self) -> MutexGuard<'_, Failures> {
        // Nothing in there panics half-way.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FailureLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureLimit")
            .field("per_minute", &self.per_minute)
            .field("address", &self.address)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

struct Failures {
    // A random seed, so that addresses cannot be chosen to collide.
    by_source: LruCache<Option<Source>, Count, RandomState>,
    /// The latest time that was told: no minute that is over comes back.
    latest: UnixMillis,
}

/// The failures of one source in the minute of its last one.
struct Count {
    failures: u64,
    until: UnixMillis,
}

impl Failures {
    fn of_at_most(max_sources: usize) -> Arc<Mutex<Self>> {
        let by_source = LruCache::with_hasher(max_sources, RandomState::new());
        Arc::new(Mutex::new(Self { by_source, latest: UnixMillis::new(0) }))
    }

    fn add(&mut self, source: Option<Source>, limit: u64, now: UnixMillis) -> Option<Duration> {
        self.latest = self.latest.max(now);
        let until = end_of_minute(self.latest);
        let known = self.by_source.peek(&source).filter(|count| count.until == until);
        let before = known.map_or(0, |count| count.failures);
        let failures = before.saturating_add(1);
        // Makes it the youngest, too.
        self.by_source.insert(source, Count { failures, until });
        let is_over = before >= limit;
        is_over.then(|| Standing::new(limit, 0, Some(until)).wait(self.latest))
    }
}
