//! The keys of one account, for a tenant who manages their own.

use std::{fmt, sync::Arc, time::Duration};

use super::{Issued, KeyError, KeyId, KeyRecord, Keys, NewKey, Plan};
use crate::{AuditEntry, AuditFilter, KeyAdmin, KeyFilter, StoreError, UnixMillis};

/// The keys of one account: what [`Keys`] can do, within it.
///
/// A key of another account is answered exactly as one that nobody has.
///
/// ```
/// # futures_util::FutureExt::now_or_never(async {
/// use tower_realtime_auth::{KeyFilter, Keys, MemoryStore, NewKey};
///
/// let keys = Keys::new(MemoryStore::new());
/// let theirs = keys.issue(NewKey::secret("other")).await?;
///
/// let acme = keys.of_account("acme");
/// let issued = acme.issue(NewKey::secret("acme")).await?;
/// assert_eq!(acme.list(&KeyFilter::default()).await?.len(), 1);
/// assert_eq!(acme.revoke(issued.record().id()).await?, 1);
///
/// assert!(acme.find(theirs.record().id()).await?.is_none());
/// assert_eq!(acme.revoke(theirs.record().id()).await?, 0);
/// # Ok::<(), tower_realtime_auth::KeyError>(())
/// # }).expect("a store in memory answers at once").unwrap();
/// ```
pub struct KeysOfAccount<S> {
    keys: Keys<S>,
    account: Arc<str>,
}

impl<S: KeyAdmin> KeysOfAccount<S> {
    pub(super) const fn new(keys: Keys<S>, account: Arc<str>) -> Self {
        Self { keys, account }
    }

    /// As [`Keys::issue`], for this account whatever `new` says.
    ///
    /// # Errors
    /// As there.
    pub async fn issue(&self, new: NewKey) -> Result<Issued, KeyError> {
        self.keys.issue(NewKey { account: Arc::clone(&self.account), ..new }).await
    }

    /// As [`Keys::find`].
    ///
    /// # Errors
    /// As there.
    pub async fn find(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        // The account of a key never changes, so that what was asked once holds for what follows.
        let found = self.keys.find(id).await?;
        Ok(found.filter(|record| *record.account() == self.account))
    }

    /// As [`Keys::list`], whatever account `filter` names.
    ///
    /// # Errors
    /// As there.
    pub async fn list(&self, filter: &KeyFilter) -> Result<Vec<Arc<KeyRecord>>, StoreError> {
        let account = Some(Arc::clone(&self.account));
        self.keys.list(&KeyFilter { account, ..filter.clone() }).await
    }

    /// As [`Keys::rotate`].
    ///
    /// # Errors
    /// As there.
    pub async fn rotate(&self, id: &KeyId, overlap: Duration) -> Result<Issued, KeyError> {
        self.find(id).await?.ok_or(KeyError::Unknown)?;
        self.keys.rotate(id, overlap).await
    }

    /// As [`Keys::revoke`].
    ///
    /// # Errors
    /// As there.
    pub async fn revoke(&self, id: &KeyId) -> Result<u64, StoreError> {
        match self.find(id).await? {
            Some(_) => self.keys.revoke(id).await,
            None => Ok(0),
        }
    }

    /// As [`Keys::revoke_account`].
    ///
    /// # Errors
    /// As there.
    pub async fn revoke_all(&self) -> Result<u64, StoreError> {
        self.keys.revoke_account(Arc::clone(&self.account)).await
    }

    /// As [`Keys::revoke_issued_before`].
    ///
    /// # Errors
    /// As there.
    pub async fn revoke_issued_before(&self, at: UnixMillis) -> Result<u64, StoreError> {
        self.keys.revoke_issued_before(Arc::clone(&self.account), at).await
    }

    /// As [`Keys::remove`].
    ///
    /// # Errors
    /// As there.
    pub async fn remove(&self, id: &KeyId) -> Result<bool, StoreError> {
        match self.find(id).await? {
            Some(_) => self.keys.remove(id).await,
            None => Ok(false),
        }
    }

    /// As [`Keys::set_plan`].
    ///
    /// # Errors
    /// As there.
    pub async fn set_plan(&self, id: &KeyId, plan: Plan) -> Result<bool, StoreError> {
        match self.find(id).await? {
            Some(_) => self.keys.set_plan(id, plan).await,
            None => Ok(false),
        }
    }

    /// As [`Keys::audit`], whatever account `filter` names.
    ///
    /// # Errors
    /// As there.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        let account = Some(Arc::clone(&self.account));
        self.keys.audit(&AuditFilter { account, ..filter.clone() }).await
    }
}

impl<S> Clone for KeysOfAccount<S> {
    fn clone(&self) -> Self {
        Self { keys: self.keys.clone(), account: Arc::clone(&self.account) }
    }
}

impl<S: fmt::Debug> fmt::Debug for KeysOfAccount<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeysOfAccount")
            .field("account", &self.account)
            .field("keys", &self.keys)
            .finish()
    }
}
