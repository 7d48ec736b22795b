//! A store together with what turns a key into something the store knows: form, digest, clock.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    ApiKey, Digests, Environment, Grants, InvalidKey, KeyFormat, KeyHasher, KeyId, KeyKind,
    KeyRecord, random_base62,
};
use crate::{Clock, Inserted, KeyAdmin, KeyStore, Revocation, StoreError, SystemClock, UnixMillis};

/// Base62 characters of a key's public id: 119 bits, so that ids do not meet.
const KEY_ID_LEN: usize = 20;

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
    format: KeyFormat,
    hasher: KeyHasher,
}

impl<S> Clone for Inner<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            format: self.format.clone(),
            hasher: self.hasher.clone(),
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
            format: KeyFormat::default(),
            hasher: KeyHasher::default(),
        }))
    }

    /// The same keys by another clock.
    #[must_use]
    pub fn with_clock(self, clock: impl Clock) -> Self {
        Self(Arc::new(Inner { clock: Arc::new(clock), ..Inner::clone(&self.0) }))
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

    /// The store.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.0.store
    }

    /// The time by which keys expire.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.0.clock.now()
    }

    /// The digests under which the store may know a presented text; `None` if it can be no key of
    /// ours.
    pub(crate) fn digests(&self, text: &[u8]) -> Option<Digests> {
        (!self.0.format.is_mistyped(text)).then(|| self.0.hasher.digests(text))
    }
}

impl<S: KeyAdmin> Keys<S> {
    /// Makes a key and stores its digest. The key itself is in the answer and nowhere else.
    ///
    /// # Errors
    /// If the store cannot answer, or the operating system has no random numbers.
    pub async fn issue(&self, new: NewKey) -> Result<Issued, KeyError> {
        let key = self.generate(KeyKind::Secret, new.environment)?;
        let record = self.import(&key, new).await?;
        Ok(Issued { key, record })
    }

    /// Takes in a key that was made elsewhere.
    ///
    /// # Errors
    /// As [`Keys::issue`]; [`KeyError::Taken`] if the key is known already; [`KeyError::Invalid`]
    /// if it looks like a key issued here but its checksum is wrong.
    pub async fn import(&self, key: &ApiKey, new: NewKey) -> Result<Arc<KeyRecord>, KeyError> {
        let now = self.now();
        let record = self
            .new_record(key, new.account, KeyKind::Secret)?
            .with_environment(new.environment)
            .with_expires_at(new.lifetime.map(|lifetime| now.saturating_add(lifetime)))
            .with_grants(new.grants);
        match self.store().insert(record.clone(), None).await? {
            Inserted::Yes => Ok(Arc::new(record)),
            Inserted::Taken | Inserted::TooManyChildren => Err(KeyError::Taken),
        }
    }

    /// Takes a key back, and the ephemeral keys that it minted; answers how many that were.
    ///
    /// Once this has answered, no new connection is accepted with any of them in this process, and
    /// open sessions were told (see [`Principal::revoked`](crate::Principal::revoked)).
    ///
    /// # Errors
    /// If the store cannot answer. The key may or may not be revoked then: ask again.
    pub async fn revoke(&self, id: &KeyId) -> Result<u64, StoreError> {
        self.store().revoke(&Revocation::Key(id.clone()), self.now()).await
    }

    pub(crate) fn generate(
        &self,
        kind: KeyKind,
        environment: Environment,
    ) -> Result<ApiKey, KeyError> {
        self.0.format.generate(kind, environment).map_err(|_| KeyError::Random)
    }

    /// A record of `key` under a fresh id, made now.
    pub(crate) fn new_record(
        &self,
        key: &ApiKey,
        account: Arc<str>,
        kind: KeyKind,
    ) -> Result<KeyRecord, KeyError> {
        let digests = self.digests(key.expose().as_bytes()).ok_or(InvalidKey::Checksum)?;
        let mut id = String::from("key_");
        random_base62(KEY_ID_LEN, &mut id).map_err(|_| KeyError::Random)?;
        let record = KeyRecord::new(KeyId::new(id), digests.current, account, kind, self.now());
        Ok(record.with_algorithm(self.0.hasher.algorithm()))
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

/// What a new secret key is to be.
#[derive(Debug, Clone)]
pub struct NewKey {
    account: Arc<str>,
    environment: Environment,
    lifetime: Option<Duration>,
    grants: Grants,
}

impl NewKey {
    /// A secret key of `account`: live, without expiry, granting everything.
    #[must_use]
    pub fn secret(account: impl Into<Arc<str>>) -> Self {
        Self {
            account: account.into(),
            environment: Environment::Live,
            lifetime: None,
            grants: Grants::default(),
        }
    }

    /// The same in another environment.
    #[must_use]
    pub fn with_environment(self, environment: Environment) -> Self {
        Self { environment, ..self }
    }

    /// The same, expiring `lifetime` after it is made.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime: Some(lifetime), ..self }
    }

    /// The same with these grants.
    #[must_use]
    pub fn with_grants(self, grants: Grants) -> Self {
        Self { grants, ..self }
    }
}

/// A key that was just made, with its record.
#[derive(Debug)]
pub struct Issued {
    key: ApiKey,
    record: Arc<KeyRecord>,
}

impl Issued {
    #[cfg(feature = "mint")]
    pub(crate) const fn new(key: ApiKey, record: Arc<KeyRecord>) -> Self {
        Self { key, record }
    }

    /// The key. It cannot be had a second time.
    #[must_use]
    pub const fn key(&self) -> &ApiKey {
        &self.key
    }

    /// What the store keeps of it.
    #[must_use]
    pub const fn record(&self) -> &Arc<KeyRecord> {
        &self.record
    }
}

/// Why a key was not made or taken in.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyError {
    /// The store could not answer.
    Store(StoreError),
    /// The operating system gave no random numbers.
    Random,
    /// There is such a key already; it stays as it is.
    Taken,
    /// The text cannot be a key here.
    Invalid(InvalidKey),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Random => f.write_str("the operating system gave no random numbers"),
            Self::Taken => f.write_str("there is such a key already"),
            Self::Invalid(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for KeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Random | Self::Taken | Self::Invalid(_) => None,
        }
    }
}

impl From<StoreError> for KeyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<InvalidKey> for KeyError {
    fn from(error: InvalidKey) -> Self {
        Self::Invalid(error)
    }
}
