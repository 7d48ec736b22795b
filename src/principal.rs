//! Who is calling.

use std::{fmt, sync::Arc};

use http::HeaderValue;

#[cfg(feature = "limit")]
use crate::limit::SessionPermit;
#[cfg(feature = "session")]
use crate::session::Held;
use crate::{
    CredentialSource, Environment, Grants, KeyId, KeyKind, KeyRecord, Profile, Revocations,
    Revoked, UnixMillis, decision::Good, duty::Duty, layer::Config,
};

/// Who is calling, as one request proved it. In the extensions of every request that the layer
/// lets through.
///
/// Cheap to clone. It never holds the key.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http_body_util::{BodyExt, Full};
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_realtime_auth::{
///     Environment, KeyKind, Keys, MemoryStore, NewKey, Principal, RealtimeAuthLayer,
///     bytes::Bytes, http::{Request, Response, StatusCode},
/// };
///
/// /// Lets only secret keys of the live environment go on.
/// async fn admin(request: Request<()>) -> Result<Response<Full<Bytes>>, &'static str> {
///     let principal = request.extensions().get::<Principal>().ok_or("no layer")?;
///     let mut response = Response::new(Full::default());
///     match (principal.kind(), principal.environment()) {
///         (KeyKind::Secret, Environment::Live) => {
///             *response.body_mut() = format!("hello, {}", principal.account()).into();
///         }
///         _ => *response.status_mut() = StatusCode::FORBIDDEN,
///     }
///     Ok(response)
/// }
///
/// let keys = Keys::new(MemoryStore::new());
/// let live = keys.issue(NewKey::secret("acme")).await?;
/// let test = keys.issue(NewKey::secret("acme").with_environment(Environment::Test)).await?;
/// let service = RealtimeAuthLayer::new(keys).layer(service_fn(admin));
///
/// let bearer = format!("Bearer {}", live.key().expose());
/// let request = Request::builder().header("authorization", bearer).body(())?;
/// let response = service.clone().oneshot(request).await?;
/// assert_eq!(response.into_body().collect().await?.to_bytes(), "hello, acme");
///
/// let bearer = format!("Bearer {}", test.key().expose());
/// let request = Request::builder().header("authorization", bearer).body(())?;
/// assert_eq!(service.oneshot(request).await?.status(), StatusCode::FORBIDDEN);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Principal {
    record: Arc<KeyRecord>,
    source: CredentialSource,
    accepted_at: UnixMillis,
    model: Option<Arc<str>>,
    protocol: Option<HeaderValue>,
    /// Where revocations are told, and the epoch from before the lookup.
    hub: Option<(Revocations, u64)>,
    /// How the client speaks; as the default profile says if that was not said.
    profile: Option<Arc<Profile>>,
    /// There if somebody must guard the session.
    duty: Option<Duty>,
    /// There if the session is one of few.
    #[cfg(feature = "limit")]
    permit: Option<SessionPermit>,
    /// How the layer closes handshakes, for those who refuse them further in.
    #[cfg(feature = "limit")]
    config: Option<Arc<Config>>,
}

impl Principal {
    /// A principal for tests of what stands behind the layer.
    #[must_use]
    pub fn new(record: Arc<KeyRecord>, source: CredentialSource, accepted_at: UnixMillis) -> Self {
        Self {
            record,
            source,
            accepted_at,
            model: None,
            protocol: None,
            hub: None,
            profile: None,
            duty: None,
            #[cfg(feature = "limit")]
            permit: None,
            #[cfg(feature = "limit")]
            config: None,
        }
    }

    /// Of a good key, for a session that goes by the rules of `profile`, let in by a layer with
    /// `config`.
    #[cfg_attr(not(feature = "limit"), expect(unused_variables))]
    pub(crate) fn of(
        good: Good,
        source: CredentialSource,
        accepted_at: UnixMillis,
        hub: Option<(Revocations, u64)>,
        profile: &Arc<Profile>,
        config: &Arc<Config>,
    ) -> Self {
        let Good { record, model } = good;
        #[cfg(feature = "session")]
        let needs_guard = {
            let (grants, rules) = (record.grants(), profile.session_rules());
            grants.max_session().is_some()
                || !Held::by(grants, model.as_deref(), rules).is_nothing()
                || rules.lock_when_begun()
        };
        #[cfg(not(feature = "session"))]
        let needs_guard = false;
        Self {
            model,
            hub,
            profile: Some(Arc::clone(profile)),
            duty: needs_guard.then(Duty::default),
            #[cfg(feature = "limit")]
            config: Some(Arc::clone(config)),
            ..Self::new(record, source, accepted_at)
        }
    }

    /// How the layer that let it in is configured.
    #[cfg(feature = "limit")]
    pub(crate) const fn config(&self) -> Option<&Arc<Config>> {
        self.config.as_ref()
    }

    /// Holds a place among the sessions at once, and with it the one that was held before.
    #[cfg(feature = "limit")]
    pub(crate) fn hold(&mut self, permit: impl FnOnce(Option<SessionPermit>) -> SessionPermit) {
        self.permit = Some(permit(self.permit.take()));
    }

    /// There if the session must be guarded.
    pub(crate) const fn duty(&self) -> Option<&Duty> {
        self.duty.as_ref()
    }

    pub(crate) fn with_protocol(mut self, protocol: Option<HeaderValue>) -> Self {
        self.protocol = protocol;
        self
    }

    /// Whose key it is.
    #[must_use]
    pub fn account(&self) -> &str {
        self.record.account()
    }

    /// The public name of the key.
    #[must_use]
    pub fn key_id(&self) -> &KeyId {
        self.record.id()
    }

    /// Secret or ephemeral.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.record.kind()
    }

    /// Live or test.
    #[must_use]
    pub fn environment(&self) -> Environment {
        self.record.environment()
    }

    /// Where the credential stood.
    #[must_use]
    pub const fn source(&self) -> CredentialSource {
        self.source
    }

    /// When the request was accepted.
    #[must_use]
    pub const fn accepted_at(&self) -> UnixMillis {
        self.accepted_at
    }

    /// How the client speaks. `None` for that of a [`Principal::new`].
    #[must_use]
    pub const fn profile(&self) -> Option<&Arc<Profile>> {
        self.profile.as_ref()
    }

    /// What the key may do.
    #[must_use]
    pub fn grants(&self) -> &Grants {
        self.record.grants()
    }

    /// The record of the key.
    #[must_use]
    pub const fn record(&self) -> &Arc<KeyRecord> {
        &self.record
    }

    /// The model that this session is bound to, if the key grants certain models only. `None`
    /// leaves the choice to the service.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The subprotocol with which the handshake is answered unless the inner service names one
    /// itself. `None` if there is none, or none but the entry that carried the credential.
    #[must_use]
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_ref().and_then(|protocol| protocol.to_str().ok())
    }

    /// Ready once the key is taken back, or the one that minted it, or its account; from the lookup
    /// of this request on, so that nothing is missed. If the store tells of no revocations, it
    /// waits for ever, and so does that of a [`Principal::new`] (unless its record is revoked).
    ///
    /// A session asks for it once, keeps it, and ends when it is ready. It must be polled together
    /// with the socket: a session that does not poll it is not ended. `GuardedSocket::end_when` does that
    /// for you. Asked for late, after more than 1,024
    /// revocations of any keys, it is ready at once, because it cannot know.
    ///
    /// ```
    /// use futures_util::{Stream, StreamExt, future::{Either, select}};
    /// use tower_realtime_auth::Principal;
    ///
    /// async fn session(principal: Principal, mut socket: impl Stream<Item = String> + Unpin) {
    ///     let mut revoked = principal.revoked();
    ///     // First, so that a busy socket cannot outshout it.
    ///     while let Either::Right((Some(event), _)) = select(&mut revoked, socket.next()).await {
    ///         println!("{}: {event}", principal.account());
    ///     }
    ///     // Gone, or revoked: close the socket.
    /// }
    /// ```
    pub fn revoked(&self) -> Revoked {
        Revoked::new(Arc::clone(&self.record), self.hub.clone())
    }

    /// The guard that keeps a session of this principal to what its key has locked. Who asks for
    /// it takes on to let all that the client sends go through it, best in a
    /// [`GuardedSocket`](crate::GuardedSocket).
    ///
    /// **To be asked for before the handshake is answered.** If the key locks anything or limits
    /// the session, and the handshake completes before anybody has asked, the layer answers 500
    /// instead: a lock that nobody enforces is a hole. (Over HTTP/1.1, hyper gives the connection
    /// to whoever holds its `OnUpgrade` even after another answer than 101. So a service that gets
    /// this answer has to be mended: a client that ignores it could still talk to its session.)
    #[cfg(feature = "session")]
    #[must_use]
    pub fn guard(&self) -> crate::SessionGuard {
        self.waive_guard();
        let rules = self.profile.as_ref().map(|profile| Arc::clone(profile.session_rules()));
        let rules = rules.unwrap_or_default();
        let guard = crate::SessionGuard::with_rules(self.grants(), self.model.clone(), rules);
        #[cfg(feature = "limit")]
        let guard = guard.with_permit(self.permit.clone());
        guard
    }

    /// Says that the session needs no guard of ours, because something else keeps it to what its
    /// key has locked.
    #[cfg(feature = "session")]
    pub fn waive_guard(&self) {
        if let Some(duty) = &self.duty {
            duty.take_on();
        }
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("account", &self.account())
            .field("key_id", self.key_id())
            .field("kind", &self.kind())
            .field("source", &self.source)
            .field("model", &self.model)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}
