//! Where keys are kept: the traits a store implements, and what it answers.

mod admin;
mod answer;
mod audit;
mod carrier;
mod memory;
mod revocations;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod stored;

use std::{fmt, sync::Arc};

#[cfg(feature = "sqlite")]
pub use self::sqlite::{SqliteOptions, SqliteStore};
pub use self::{
    admin::{Inserted, KeyAdmin, KeyFilter, Revocation, Rotated},
    answer::{Answer, Lookup, StoreError, Write},
    audit::{AuditAction, AuditEntry, AuditFilter, Stamp},
    carrier::{Heard, NewsCarrier},
    memory::MemoryStore,
    revocations::{News, Revocations, Revoked},
};
use crate::{KeyDigest, KeyId, KeyRecord, Plan, UnixMillis};

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
    /// Asked while a pepper is being replaced. The default asks for one after the other; a store
    /// that can answer in one round trip should.
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

    /// Notes that a key opened something at that time. Asked for every request that is let through,
    /// so it must be quick and must not wait: a store that keeps the time elsewhere writes it down
    /// later, within a minute. The default notes nothing.
    fn note_use(&self, record: &Arc<KeyRecord>, at: UnixMillis) {
        let _ = (record, at);
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

            fn note_use(&self, record: &Arc<KeyRecord>, at: UnixMillis) {
                (**self).note_use(record, at);
            }

            fn revocations(&self) -> Option<&Revocations> {
                (**self).revocations()
            }
        }

        impl<S: KeyAdmin + ?Sized> KeyAdmin for $pointer<S> {
            fn insert(
                &self,
                record: KeyRecord,
                max_children: Option<u32>,
                stamp: &Stamp,
            ) -> Write<'_, Inserted> {
                (**self).insert(record, max_children, stamp)
            }

            fn find(&self, id: &KeyId) -> Write<'_, Option<Arc<KeyRecord>>> {
                (**self).find(id)
            }

            fn list(&self, filter: &KeyFilter) -> Write<'_, Vec<Arc<KeyRecord>>> {
                (**self).list(filter)
            }

            fn rotate(
                &self,
                old: &KeyId,
                new: KeyRecord,
                old_expires_at: UnixMillis,
                stamp: &Stamp,
            ) -> Write<'_, Rotated> {
                (**self).rotate(old, new, old_expires_at, stamp)
            }

            fn revoke(&self, what: &Revocation, stamp: &Stamp) -> Write<'_, u64> {
                (**self).revoke(what, stamp)
            }

            fn remove(&self, id: &KeyId, stamp: &Stamp) -> Write<'_, bool> {
                (**self).remove(id, stamp)
            }

            fn set_plan(&self, id: &KeyId, plan: Plan, stamp: &Stamp) -> Write<'_, bool> {
                (**self).set_plan(id, plan, stamp)
            }

            fn audit(&self, filter: &AuditFilter) -> Write<'_, Vec<AuditEntry>> {
                (**self).audit(filter)
            }
        }
    )*};
}

through_pointer!(Arc, Box);
