//! Everything that can be configured.

use std::{fmt, sync::Arc, time::Duration};

use http::{Method, Uri};
use tower_layer::Layer;

#[cfg(feature = "tokio")]
use crate::TokioRuntime;
#[cfg(feature = "close")]
use crate::{Closing, RefusalMode};
#[cfg(feature = "limit")]
use crate::{ConfigError, FailureLimit};
use crate::{
    Conflicts, Decision, Environment, FromBytes, KeyStore, Keys, Policy, Profile, RealtimeAuth,
    Runtime, event::Audit, policy::Policies,
};

/// Lets requests with a good key through, with a [`Principal`](crate::Principal) in their
/// extensions, and refuses all others.
///
/// Put it round the whole service, outside of whatever logs requests or remembers their URI: see
/// [the order of layers](crate::guide::axum#the-order-of-layers).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http_body_util::Full;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_realtime_auth::{
///     Keys, MemoryStore, NewKey, Principal, RealtimeAuthLayer, bytes::Bytes,
///     http::{Request, Response, StatusCode},
/// };
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
///
/// let greet = service_fn(async |request: Request<()>| {
///     let principal = request.extensions().get::<Principal>().ok_or("no layer")?;
///     let text = format!("hello, {}", principal.account());
///     Ok::<_, &str>(Response::new(Full::new(Bytes::from(text))))
/// });
/// let service = RealtimeAuthLayer::new(keys).layer(greet);
///
/// // A good key is let through ...
/// let bearer = format!("Bearer {}", issued.key().expose());
/// let request = Request::builder().header("authorization", bearer).body(())?;
/// let response = service.clone().oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::OK);
///
/// // ... and everything else is refused.
/// let request = Request::builder().header("authorization", "Bearer wrong").body(())?;
/// let response = service.clone().oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct RealtimeAuthLayer<S, M = FromBytes> {
    keys: Keys<S>,
    config: Arc<Config>,
    make_body: M,
}

/// What the layer and all its services share.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) profile: Arc<Profile>,
    pub(crate) policies: Option<Policies>,
    pub(crate) environment: Option<Environment>,
    pub(crate) on_decision: Option<Audit>,
    pub(crate) conflicts: Conflicts,
    #[cfg(feature = "close")]
    pub(crate) refusal: RefusalMode,
    #[cfg(feature = "close")]
    pub(crate) closing: Closing,
    #[cfg(feature = "limit")]
    pub(crate) failure_limit: Option<FailureLimit>,
    pub(crate) lookup_deadline: Duration,
    pub(crate) runtime: Arc<dyn Runtime>,
}

impl<S: KeyStore> RealtimeAuthLayer<S> {
    /// Lets requests with one of these keys through. Takes a [`Keys`] or a store.
    #[cfg(feature = "tokio")]
    pub fn new(keys: impl Into<Keys<S>>) -> Self {
        Self::new_with_runtime(keys, TokioRuntime)
    }

    /// The same on a runtime other than tokio.
    pub fn new_with_runtime(keys: impl Into<Keys<S>>, runtime: impl Runtime) -> Self {
        let config = Config {
            profile: Arc::default(),
            policies: None,
            environment: None,
            on_decision: None,
            conflicts: Conflicts::default(),
            #[cfg(feature = "close")]
            refusal: RefusalMode::default(),
            #[cfg(feature = "close")]
            closing: Closing::default(),
            #[cfg(feature = "limit")]
            failure_limit: None,
            lookup_deadline: Duration::from_secs(1),
            runtime: Arc::new(runtime),
        };
        Self { keys: keys.into(), config: Arc::new(config), make_body: FromBytes }
    }
}

impl<S, M> RealtimeAuthLayer<S, M> {
    /// How the clients speak. The default is [`Profile::default`].
    pub fn with_profile(self, profile: Profile) -> Self {
        self.configure(|config| config.profile = Arc::new(profile))
    }

    /// What each request needs, by its method and URI: which routes are public, where a key is
    /// optional, and which profile holds where. Without this, every request needs a key.
    ///
    /// ```
    /// use tower_realtime_auth::{MemoryStore, Policy, RealtimeAuthLayer};
    ///
    /// let layer = RealtimeAuthLayer::new(MemoryStore::new()).with_policy(|_method, uri| {
    ///     if uri.path() == "/" { Policy::Public } else { Policy::Protected }
    /// });
    /// ```
    pub fn with_policy(
        self,
        policy: impl Fn(&Method, &Uri) -> Policy + Send + Sync + 'static,
    ) -> Self {
        self.configure(|config| config.policies = Some(Policies::new(policy)))
    }

    /// Lets requests without any credential through, without a `Principal`. A bad credential is
    /// refused all the same.
    pub fn optional(self) -> Self {
        self.with_policy(|_, _| Policy::Optional)
    }

    /// Lets only keys of this environment through. The default takes those of all.
    pub fn with_environment(self, environment: Environment) -> Self {
        self.configure(|config| config.environment = Some(environment))
    }

    /// Calls `listener` once for every decision, with what was decided and nothing secret. It runs
    /// on the way of the request: hand work on that takes time.
    pub fn on_decision(self, listener: impl Fn(&Decision<'_>) + Send + Sync + 'static) -> Self {
        self.configure(|config| config.on_decision = Some(Audit::new(listener)))
    }

    /// Which credential decides if there are several. The default is
    /// [`Conflicts::FirstPresent`].
    pub fn with_conflicts(self, conflicts: Conflicts) -> Self {
        self.configure(|config| config.conflicts = conflicts)
    }

    /// By which door refused handshakes leave. The default is [`RefusalMode::Auto`].
    #[cfg(feature = "close")]
    pub fn with_refusal(self, refusal: RefusalMode) -> Self {
        self.configure(|config| config.refusal = refusal)
    }

    /// How refused handshakes are closed. The default is [`Closing::default`].
    #[cfg(feature = "close")]
    pub fn with_closing(self, closing: Closing) -> Self {
        self.configure(|config| config.closing = closing)
    }

    /// How many wrong keys may come from one source. Without this, any number.
    ///
    /// # Errors
    /// If nobody has said where the address of a client stands ([`FailureLimit::with_address`]).
    #[cfg(feature = "limit")]
    pub fn with_failure_limit(self, limit: FailureLimit) -> Result<Self, ConfigError> {
        if !limit.has_address() {
            return Err(ConfigError::NoClientAddress);
        }
        Ok(self.configure(|config| config.failure_limit = Some(limit)))
    }

    /// How long the store may take to answer for one request; past it, the request is refused with
    /// 503. The default is one second.
    pub fn with_lookup_deadline(self, deadline: Duration) -> Self {
        self.configure(|config| config.lookup_deadline = deadline)
    }

    /// How the bodies of refusals are made, for body types without `From<Bytes>`.
    pub fn with_body<N>(self, make_body: N) -> RealtimeAuthLayer<S, N> {
        RealtimeAuthLayer { keys: self.keys, config: self.config, make_body }
    }

    /// How many refused handshakes are waiting for their peer's Close right now.
    #[cfg(feature = "close")]
    #[must_use]
    pub fn lingering(&self) -> usize {
        self.config.closing.lingering()
    }

    fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl<I, S, M: Clone> Layer<I> for RealtimeAuthLayer<S, M> {
    type Service = RealtimeAuth<I, S, M>;

    fn layer(&self, inner: I) -> Self::Service {
        RealtimeAuth::new(
            inner,
            self.keys.clone(),
            Arc::clone(&self.config),
            self.make_body.clone(),
        )
    }
}

impl<S, M: Clone> Clone for RealtimeAuthLayer<S, M> {
    fn clone(&self) -> Self {
        Self {
            keys: self.keys.clone(),
            config: Arc::clone(&self.config),
            make_body: self.make_body.clone(),
        }
    }
}

impl<S, M> fmt::Debug for RealtimeAuthLayer<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealtimeAuthLayer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Config");
        debug
            .field("profile", &self.profile)
            .field("policies", &self.policies)
            .field("environment", &self.environment)
            .field("conflicts", &self.conflicts)
            .field("lookup_deadline", &self.lookup_deadline);
        #[cfg(feature = "close")]
        debug.field("refusal", &self.refusal).field("closing", &self.closing);
        #[cfg(feature = "limit")]
        debug.field("failure_limit", &self.failure_limit);
        debug.finish_non_exhaustive()
    }
}
