//! Where keys are kept: the traits a store implements, and what it answers.

mod memory;
mod revocations;

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;

pub use self::{
    memory::MemoryStore,
    revocations::{Revocation, Revocations, Revoked},
};
use crate::{DigestAlgorithm, KeyDigest, KeyId, KeyRecord, UnixMillis};

/// An answer that is there already, or a future of it.
///
/// A store that has the answer in memory boxes nothing; one that must ask elsewhere boxes once.
#[must_use = "an answer that is not awaited may not have been asked for"]
pub struct Answer<'a, T>(State<'a, T>);

enum State<'a, T> {
    Ready(Option<T>),
    Pending(BoxFuture<'a, T>),
}

impl<'a, T> Answer<'a, T> {
    /// An answer that is there.
    pub const fn ready(value: T) -> Self {
        Self(State::Ready(Some(value)))
    }

    /// An answer that is still to come.
    pub fn pending(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self(State::Pending(Box::pin(future)))
    }

    /// Takes the answer if it is there, without waiting.
    ///
    /// # Errors
    /// Gives the answer back if it is still to come.
    pub fn try_now(self) -> Result<T, Self> {
        match self.0 {
            State::Ready(Some(value)) => Ok(value),
            state => Err(Self(state)),
        }
    }
}

impl<T: Unpin> Future for Answer<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            // A future polled after its end is a bug of the caller; waiting is the mildest reply.
            State::Ready(value) => value.take().map_or(Poll::Pending, Poll::Ready),
            State::Pending(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for Answer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Ready(_) => "Answer::Ready(..)",
            State::Pending(_) => "Answer::Pending(..)",
        })
    }
}

/// The answer to a lookup: the record, `None` if no key has this digest, or a broken store.
pub type Lookup = Answer<'static, Result<Option<Arc<KeyRecord>>, StoreError>>;

/// The answer to a question of the write side.
pub type Write<'a, T> = Answer<'a, Result<T, StoreError>>;

/// The store could not answer. This never means that a key is bad.
#[derive(Debug)]
pub struct StoreError(Box<dyn Error + Send + Sync>);

impl StoreError {
    /// The store's own error, or a sentence about what is wrong.
    #[must_use]
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key store could not answer")
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// Finds keys. All that authentication asks of a store.
///
/// A store never sees a key, only its digest. It answers the record as it stands at that moment,
/// together with the state of its parent; whether the key is good is decided elsewhere.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{collections::HashMap, sync::Arc};
/// use http_body_util::Full;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_realtime_auth::{
///     Answer, KeyDigest, KeyRecord, KeyStore, Keys, Lookup, MemoryStore, NewKey,
///     RealtimeAuthLayer, bytes::Bytes, http::{Request, Response},
/// };
///
/// struct Fixed(HashMap<KeyDigest, Arc<KeyRecord>>);
///
/// impl KeyStore for Fixed {
///     fn lookup(&self, digest: &KeyDigest) -> Lookup {
///         Answer::ready(Ok(self.0.get(digest).cloned()))
///     }
/// }
///
/// let issued = Keys::new(MemoryStore::new()).issue(NewKey::secret("acme")).await?;
/// let record = Arc::clone(issued.record());
/// let store = Fixed([(*record.digest(), record)].into());
///
/// let greet = service_fn(async |_: Request<()>| {
///     Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("hello"))))
/// });
/// let service = RealtimeAuthLayer::new(store).layer(greet);
/// for (key, status) in [(issued.key().expose(), 200), ("wrong", 401)] {
///     let request = Request::builder().header("authorization", format!("Bearer {key}"));
///     let response = service.clone().oneshot(request.body(())?).await?;
///     assert_eq!(response.status(), status);
/// }
/// # Ok(())
/// # }
/// ```
///
/// One that must ask a database, and the rest of these methods: [the guide](crate::guide::stores).
pub trait KeyStore: Send + Sync + 'static {
    /// The record with this digest.
    ///
    /// `Ok(None)` is a key that nobody has (401). `Err` is a store that cannot tell (503): so is
    /// an answer that comes too late, and a panic.
    fn lookup(&self, digest: &KeyDigest) -> Lookup;

    /// The record with either digest: a key's under the current pepper, and under the one before.
    ///
    /// Asked while a pepper is being replaced. The default asks for both at once; a store that can
    /// answer in one round trip should.
    fn lookup_either(&self, current: &KeyDigest, previous: &KeyDigest) -> Lookup {
        let previous = self.lookup(previous);
        match self.lookup(current).try_now() {
            Ok(Ok(None)) => previous,
            Ok(answer) => Answer::ready(answer),
            Err(current) => Answer::pending(async move {
                match current.await? {
                    None => previous.await,
                    found => Ok(found),
                }
            }),
        }
    }

    /// Takes one of the uses that the key's grants allow; `None` if none is left.
    ///
    /// The count must be exact: of any number that ask at once, as many get one as are left. The
    /// default refuses, so that a store that does not count never lets a limited key through.
    fn redeem(&self, record: &Arc<KeyRecord>) -> Redeemed {
        let _ = record;
        Answer::ready(Err(StoreError::new("this store does not count uses")))
    }

    /// Where this store tells of revocations, the same at every call. Without one, which is the
    /// default, [`Principal::revoked`](crate::Principal::revoked) waits for ever.
    fn revocations(&self) -> Option<&Revocations> {
        None
    }
}

/// The answer to [`KeyStore::redeem`].
pub type Redeemed = Answer<'static, Result<Option<Use>, StoreError>>;

/// One use of a key, taken and not yet spent. Dropped, it goes back to the key.
#[must_use = "a use that is dropped goes back to the key"]
pub struct Use(Option<Box<dyn FnOnce() + Send>>);

impl Use {
    /// A use that `give_back` returns to the key.
    pub fn new(give_back: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(give_back)))
    }

    /// Spends the use for good.
    pub fn commit(mut self) {
        self.0 = None;
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if let Some(give_back) = self.0.take() {
            give_back();
        }
    }
}

impl fmt::Debug for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Use(..)")
    }
}

/// The write side of a store. It handles records only, never the text of a key.
pub trait KeyAdmin: KeyStore {
    /// Adds a record and overwrites none.
    ///
    /// With `max_children`, the store counts the parent's ephemeral keys that are neither expired
    /// (at the new record's time of creation) nor revoked, and adds no further one past that.
    fn insert(&self, record: KeyRecord, max_children: Option<u32>) -> Write<'_, Inserted>;

    /// The record with this id as it is stored, never from a cache.
    fn find(&self, id: &KeyId) -> Write<'_, Option<Arc<KeyRecord>>>;

    /// Takes keys back, their children too; answers how many records that touched.
    ///
    /// Once this has answered, no lookup that begins afterwards shows one of them unrevoked, and
    /// the store's [`Revocations`] were told, if it has them. A key that was revoked before keeps
    /// its first time of revocation.
    fn revoke(&self, what: &Revocation, at: UnixMillis) -> Write<'_, u64>;

    /// The records that fit `filter`, the oldest first.
    fn list(&self, filter: &KeyFilter) -> Write<'_, Vec<Arc<KeyRecord>>>;
}

/// What became of a record to insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inserted {
    /// It is stored.
    Yes,
    /// There is a record with this id or digest; it stays as it is.
    Taken,
    /// The parent has as many live children as it may have.
    TooManyChildren,
}

/// Which records to list. The default lists all.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct KeyFilter {
    /// Only this account's.
    pub account: Option<Arc<str>>,
    /// Only those whose digest was made by this.
    pub algorithm: Option<DigestAlgorithm>,
}

impl KeyFilter {
    /// The records of one account.
    #[must_use]
    pub fn account(account: impl Into<Arc<str>>) -> Self {
        Self { account: Some(account.into()), ..Self::default() }
    }

    /// The records that still depend on this algorithm, a former pepper for instance.
    #[must_use]
    pub fn made_by(algorithm: DigestAlgorithm) -> Self {
        Self { algorithm: Some(algorithm), ..Self::default() }
    }
}

macro_rules! through_pointer {
    ($($pointer:ident),*) => {$(
        impl<S: KeyStore + ?Sized> KeyStore for $pointer<S> {
            fn lookup(&self, digest: &KeyDigest) -> Lookup {
                (**self).lookup(digest)
            }

            fn lookup_either(&self, current: &KeyDigest, previous: &KeyDigest) -> Lookup {
                (**self).lookup_either(current, previous)
            }

            fn redeem(&self, record: &Arc<KeyRecord>) -> Redeemed {
                (**self).redeem(record)
            }

            fn revocations(&self) -> Option<&Revocations> {
                (**self).revocations()
            }
        }

        impl<S: KeyAdmin + ?Sized> KeyAdmin for $pointer<S> {
            fn insert(&self, record: KeyRecord, max_children: Option<u32>) -> Write<'_, Inserted> {
                (**self).insert(record, max_children)
            }

            fn find(&self, id: &KeyId) -> Write<'_, Option<Arc<KeyRecord>>> {
                (**self).find(id)
            }

            fn revoke(&self, what: &Revocation, at: UnixMillis) -> Write<'_, u64> {
                (**self).revoke(what, at)
            }

            fn list(&self, filter: &KeyFilter) -> Write<'_, Vec<Arc<KeyRecord>>> {
                (**self).list(filter)
            }
        }
    )*};
}

through_pointer!(Arc, Box);
