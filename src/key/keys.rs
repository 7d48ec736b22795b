//! A store together with what turns a key into something the store knows: form, digest, clock.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

#[cfg(feature = "jwt")]
use super::{
    ApiKey, KeyError, KeyRecord,
    signer::{TokenSigner, is_jwt},
};
use super::{Digests, InvalidKey, KeyDigest, KeyFormat, KeyHasher};
use crate::{Clock, KeyStore, RejectionKind, Stamp, SystemClock, UnixMillis};

/// A store, bound to the form of its keys and to a clock.
///
/// The layer, the mint endpoint and administration are all made from one `Keys`; a clone shares
/// the store.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use http_body_util::Full;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_realtime_auth::{
///     Keys, MemoryStore, NewKey, RealtimeAuthLayer, bytes::Bytes,
///     http::{Request, Response, StatusCode},
/// };
///
/// let keys = Keys::new(MemoryStore::new());
/// let new = NewKey::secret("acme").with_lifetime(Duration::from_secs(86_400));
/// let issued = keys.issue(new).await?;
/// println!("shown once: {}", issued.key().expose());
///
/// let greet = service_fn(async |_: Request<()>| {
///     Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("hello"))))
/// });
/// let service = RealtimeAuthLayer::new(keys.clone()).layer(greet);
/// let bearer = format!("Bearer {}", issued.key().expose());
///
/// let request = Request::builder().header("authorization", &bearer).body(())?;
/// assert_eq!(service.clone().oneshot(request).await?.status(), StatusCode::OK);
///
/// keys.revoke(issued.record().id()).await?;
/// let request = Request::builder().header("authorization", &bearer).body(())?;
/// assert_eq!(service.oneshot(request).await?.status(), StatusCode::UNAUTHORIZED);
/// # Ok(())
/// # }
/// ```
pub struct Keys<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: Arc<S>,
    clock: Arc<dyn Clock>,
    /// The latest time that the clock has told.
    latest: Arc<AtomicU64>,
    format: KeyFormat,
    hasher: KeyHasher,
    #[cfg(feature = "jwt")]
    signer: Option<Arc<TokenSigner>>,
    actor: Option<Arc<str>>,
}

impl<S> Clone for Inner<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            latest: Arc::clone(&self.latest),
            format: self.format.clone(),
            hasher: self.hasher.clone(),
            #[cfg(feature = "jwt")]
            signer: self.signer.clone(),
            actor: self.actor.clone(),
        }
    }
}

impl<S: KeyStore> Keys<S> {
    /// Keys in `store`, in the default form, by the system's clock.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self(Arc::new(Inner {
            store: Arc::new(store),
            clock: Arc::new(SystemClock),
            latest: Arc::default(),
            format: KeyFormat::default(),
            hasher: KeyHasher::default(),
            #[cfg(feature = "jwt")]
            signer: None,
            actor: None,
        }))
    }

    /// The same keys by another clock.
    #[must_use]
    pub fn with_clock(self, clock: impl Clock) -> Self {
        let (clock, latest) = (Arc::new(clock), Arc::default());
        Self(Arc::new(Inner { clock, latest, ..Inner::clone(&self.0) }))
    }

    /// The same keys, new ones in another form.
    #[must_use]
    pub fn with_format(self, format: KeyFormat) -> Self {
        Self(Arc::new(Inner { format, ..Inner::clone(&self.0) }))
    }

    /// The same keys, digested in another way. The default is [`KeyHasher::plain`].
    #[must_use]
    pub fn with_hasher(self, hasher: KeyHasher) -> Self {
        Self(Arc::new(Inner { hasher, ..Inner::clone(&self.0) }))
    }

    /// The same keys, whose tokens have signed twins, which sign in as well.
    ///
    /// From then on a JWT is a twin or refused: keys taken in from elsewhere cannot be JWTs.
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn with_signer(self, signer: TokenSigner) -> Self {
        Self(Arc::new(Inner { signer: Some(Arc::new(signer)), ..Inner::clone(&self.0) }))
    }

    /// The same keys, with `actor` named in the audit trail of what is changed through this.
    #[must_use]
    pub fn with_actor(self, actor: impl Into<Arc<str>>) -> Self {
        Self(Arc::new(Inner { actor: Some(actor.into()), ..Inner::clone(&self.0) }))
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.0.store
    }

    /// The time by which keys expire. It never goes back: while the clock does, it stands still, so
    /// that no key that has expired comes to life again.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        let (now, latest) = (self.0.clock.now().get(), self.0.latest.load(Ordering::Relaxed));
        if now > latest {
            // Another thread may have seen a later time meanwhile.
            return UnixMillis::new(now.max(self.0.latest.fetch_max(now, Ordering::Relaxed)));
        }
        UnixMillis::new(latest)
    }

    /// The digests under which the store may know a presented text, or why it need not be asked.
    pub(crate) fn digests(&self, text: &[u8]) -> Result<Digests, RejectionKind> {
        #[cfg(feature = "jwt")]
        if let Some(signer) = self.signer_of(text) {
            let current = signer.verify(text, self.now())?;
            return Ok(Digests { current, previous: None });
        }
        if self.0.format.is_mistyped(text) {
            return Err(RejectionKind::Unknown);
        }
        Ok(self.0.hasher.digests(text))
    }

    /// Whoever signed a text of this form, if anybody.
    #[cfg(feature = "jwt")]
    fn signer_of(&self, text: &[u8]) -> Option<&TokenSigner> {
        self.0.signer.as_deref().filter(|_| is_jwt(text))
    }

    /// The signed form of a token to mint, if the keys have a signer. `Err` if it would be longer
    /// than a credential may be.
    #[cfg(feature = "jwt")]
    pub(crate) fn twin(&self, record: &KeyRecord) -> Result<Option<ApiKey>, KeyError> {
        let Some(signer) = &self.0.signer else { return Ok(None) };
        let text = signer.sign(record).ok_or(KeyError::Random)?;
        Ok(Some(ApiKey::new(text)?))
    }

    /// The digest to store of a key that is to be taken in.
    pub(super) fn digest(&self, text: &[u8]) -> Result<KeyDigest, InvalidKey> {
        #[cfg(feature = "jwt")]
        if self.signer_of(text).is_some() {
            return Err(InvalidKey::Jwt);
        }
        if self.0.format.is_mistyped(text) {
            return Err(InvalidKey::Checksum);
        }
        Ok(self.0.hasher.digests(text).current)
    }

    pub(super) fn format(&self) -> &KeyFormat {
        &self.0.format
    }

    pub(super) fn hasher(&self) -> &KeyHasher {
        &self.0.hasher
    }

    /// Now, by whom this is used.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::new(self.now()).with_by(self.0.actor.clone())
    }
}

impl<S> Clone for Keys<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: KeyStore> From<S> for Keys<S> {
    fn from(store: S) -> Self {
        Self::new(store)
    }
}

impl<S: fmt::Debug> fmt::Debug for Keys<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("store", &self.0.store)
            .field("format", &self.0.format)
            .finish_non_exhaustive()
    }
}
