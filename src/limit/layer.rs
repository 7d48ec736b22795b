//! Everything about limits that can be configured.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{Either, select},
};
use http::{Method, Uri};
use tower_layer::Layer;

use super::{
    Demand, LimitStore, Take, Taken,
    rules::{Rules, RulesOf},
    service::LimitService,
};
#[cfg(feature = "tokio")]
use crate::TokioRuntime;
use crate::{Answer, Clock, FromBytes, Runtime, StoreError, SystemClock, UnixMillis};

/// Holds every request to the [`Plan`](crate::Plan) of its key: past it, 429.
///
/// It stands behind [`RealtimeAuthLayer`](crate::RealtimeAuthLayer), whose
/// [`Principal`](crate::Principal) it reads; a request without one passes. All that a request
/// takes of its key's plan, and of the plan of the key that minted it, is taken in one step or not
/// at all. A plan that is changed ([`Keys::set_plan`](crate::Keys::set_plan)) holds from the next
/// request on.
///
/// A WebSocket handshake takes one of the key's sessions at once. That one is free again when the
/// last clone of the request's `Principal` is dropped, and of the guard that was made from it: a
/// session keeps one of them for as long as it lasts. (A handshake that completes when none of them
/// is left would not be counted: it is answered with 500.)
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http_body_util::Full;
/// use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
/// use tower_realtime_auth::{
///     Grants, Keys, LimitLayer, MemoryLimits, MemoryStore, NewKey, Plan, Profile,
///     RealtimeAuthLayer, bytes::Bytes, http::{Request, Response},
/// };
///
/// let keys = Keys::new(MemoryStore::new());
/// let plan = Plan::default().with_requests_per_minute(1);
/// let grants = Grants::default().with_plan(plan);
/// let issued = keys.issue(NewKey::secret("acme").with_grants(grants)).await?;
///
/// let greet = service_fn(async |_: Request<()>| {
///     Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("hello"))))
/// });
/// let service = ServiceBuilder::new()
///     .layer(RealtimeAuthLayer::new(keys).with_profile(Profile::svara()))
///     .layer(LimitLayer::new(MemoryLimits::new()))
///     .service(greet);
///
/// for status in [200, 429] {
///     let bearer = format!("Bearer {}", issued.key().expose());
///     let request = Request::builder().header("authorization", bearer).body(())?;
///     let response = service.clone().oneshot(request).await?;
///     assert_eq!(response.status(), status);
///     assert_eq!(response.headers()["x-ratelimit-limit"], "1");
///     assert_eq!(response.headers()["x-ratelimit-remaining"], "0");
/// }
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Clone)]
pub struct LimitLayer<M = FromBytes> {
    limits: Arc<Limits>,
    make_body: M,
}

/// What the layer and all its services share.
#[derive(Clone)]
pub(super) struct Limits {
    pub(super) store: Arc<dyn LimitStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) deadline: Duration,
    pub(super) failing_open: bool,
    pub(super) rules: Option<RulesOf>,
    pub(super) max_of_account: Option<u32>,
}

impl LimitLayer {
    /// Counts in this store.
    #[cfg(feature = "tokio")]
    pub fn new(store: impl LimitStore) -> Self {
        Self::new_with_runtime(store, TokioRuntime)
    }

    /// The same on a runtime other than tokio. Only its timer is used.
    pub fn new_with_runtime(store: impl LimitStore, runtime: impl Runtime) -> Self {
        let limits = Limits {
            store: Arc::new(store),
            clock: Arc::new(SystemClock),
            runtime: Arc::new(runtime),
            deadline: Duration::from_secs(1),
            failing_open: false,
            rules: None,
            max_of_account: None,
        };
        Self { limits: Arc::new(limits), make_body: FromBytes }
    }
}

impl<M> LimitLayer<M> {
    /// What each request is counted for, by its method and URI. Without this,
    /// [everything](Rules::all).
    pub fn with_rules(
        self,
        rules: impl Fn(&Method, &Uri) -> Rules + Send + Sync + 'static,
    ) -> Self {
        self.configure(|limits| limits.rules = Some(RulesOf::new(rules)))
    }

    /// How many sessions all keys of one account and environment may have open at once. Without
    /// this, any number.
    pub fn with_max_sessions_per_account(self, sessions: u32) -> Self {
        self.configure(|limits| limits.max_of_account = Some(sessions))
    }

    /// Whether requests pass uncounted while the store fails. By default they are refused with 503.
    pub fn with_failing_open(self, failing_open: bool) -> Self {
        self.configure(|limits| limits.failing_open = failing_open)
    }

    /// How long the store may take to answer; after that, it has failed. One second by default.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        self.configure(|limits| limits.deadline = deadline)
    }

    /// Another clock than that of the system.
    pub fn with_clock(self, clock: impl Clock) -> Self {
        self.configure(|limits| limits.clock = Arc::new(clock))
    }

    /// How the bodies of refusals are made, for body types without `From<Bytes>`.
    pub fn with_body<N>(self, make_body: N) -> LimitLayer<N> {
        LimitLayer { limits: self.limits, make_body }
    }

    fn configure(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(Arc::make_mut(&mut self.limits));
        self
    }
}

impl<I, M: Clone> Layer<I> for LimitLayer<M> {
    type Service = LimitService<I, M>;

    fn layer(&self, inner: I) -> Self::Service {
        LimitService::new(inner, Arc::clone(&self.limits), self.make_body.clone())
    }
}

/// Asks the store. A panic of the store is an error of the store.
pub(super) fn take(limits: &Limits, demands: &[Demand], now: UnixMillis) -> Take {
    let asked = catch_unwind(AssertUnwindSafe(|| limits.store.take(demands, now)));
    asked.unwrap_or_else(|_| Answer::ready(Err(panicked())))
}

/// The store's answer that is still to come, or that it did not come in time.
pub(super) fn in_time(
    limits: &Limits,
    take: Take,
) -> impl Future<Output = Result<Taken, StoreError>> + Send + 'static {
    let deadline = limits.runtime.sleep(limits.deadline);
    async move {
        match select(AssertUnwindSafe(take).catch_unwind(), deadline).await {
            Either::Left((answer, _)) => answer.unwrap_or_else(|_| Err(panicked())),
            Either::Right(_) => Err(StoreError::new("no answer within the deadline")),
        }
    }
}

fn panicked() -> StoreError {
    StoreError::new("the store of limits panicked")
}

impl<M> fmt::Debug for LimitLayer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitLayer").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("rules", &self.rules)
            .field("max_sessions_per_account", &self.max_of_account)
            .field("failing_open", &self.failing_open)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
