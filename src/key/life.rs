//! The life of a key: made or taken in, found, rotated, taken back, removed.

use std::{sync::Arc, time::Duration};

use super::{
    ApiKey, DigestAlgorithm, Environment, Issued, KeyDigest, KeyError, KeyHint, KeyId, KeyKind,
    KeyRecord, Keys, KeysOfAccount, NewKey, Plan, random_base62,
};
use crate::{
    AuditEntry, AuditFilter, Inserted, KeyAdmin, KeyFilter, Revocation, Rotated, StoreError,
    UnixMillis,
};

/// Base62 characters of a key's public id: 119 bits, so that ids do not meet.
const KEY_ID_LEN: usize = 20;

impl<S: KeyAdmin> Keys<S> {
    /// Makes a key and stores its digest. The key itself is in the answer and nowhere else.
    ///
    /// # Errors
    /// If the store cannot answer, or the operating system has no random numbers.
    pub async fn issue(&self, new: NewKey) -> Result<Issued, KeyError> {
        let key = self.generate(KeyKind::Secret, new.environment)?;
        let record = self.new_record(&key, new.account.clone(), KeyKind::Secret)?;
        Ok(Issued::new(key, self.insert(record, new).await?, None))
    }

    /// Takes in a key that was made elsewhere.
    ///
    /// # Errors
    /// As [`Keys::issue`]; [`KeyError::Taken`] if the key is known already; [`KeyError::Invalid`]
    /// if it looks like a key issued here but its checksum is wrong, or like a signed twin.
    pub async fn import(&self, key: &ApiKey, new: NewKey) -> Result<Arc<KeyRecord>, KeyError> {
        let record = self.new_record(key, new.account.clone(), KeyKind::Secret)?;
        // One that is known by the digest of the pepper before would live on after either record
        // of it is revoked.
        let previous = self.hasher().digests(key.expose().as_bytes()).previous;
        if let Some(previous) = previous
            && self.store().lookup(&previous).await?.is_some()
        {
            return Err(KeyError::Taken);
        }
        self.insert(record, new).await
    }

    /// Takes in a key that was made elsewhere, of which only the digest is known.
    ///
    /// # Errors
    /// As [`Keys::import`]; [`KeyError::Algorithm`] if keys are not digested in this way here, so
    /// that it would never be found.
    pub async fn import_digest(
        &self,
        digest: KeyDigest,
        algorithm: DigestAlgorithm,
        new: NewKey,
    ) -> Result<Arc<KeyRecord>, KeyError> {
        if !self.hasher().makes(algorithm) {
            return Err(KeyError::Algorithm(algorithm));
        }
        let (id, account) = (new_id()?, new.account.clone());
        let record = KeyRecord::new(id, digest, account, KeyKind::Secret, self.now());
        self.insert(record.with_algorithm(algorithm), new).await
    }

    async fn insert(&self, record: KeyRecord, new: NewKey) -> Result<Arc<KeyRecord>, KeyError> {
        let record = record
            .with_environment(new.environment)
            .with_expires_at(expiry(self.now(), new.lifetime))
            .with_grants(new.grants);
        match self.store().insert(record.clone(), None, &self.stamp()).await? {
            Inserted::Yes => Ok(Arc::new(record)),
            Inserted::Taken | Inserted::TooManyChildren => Err(KeyError::Taken),
        }
    }

    /// What is known of a key, as it is stored.
    ///
    /// # Errors
    /// If the store cannot answer.
    pub async fn find(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        self.store().find(id).await
    }

    /// The keys that fit `filter`, the oldest first.
    ///
    /// # Errors
    /// If the store cannot answer.
    pub async fn list(&self, filter: &KeyFilter) -> Result<Vec<Arc<KeyRecord>>, StoreError> {
        self.store().list(filter).await
    }

    /// Makes a key in the place of another, with the same grants and, if that one expires, the
    /// same lifetime from now on. The other one expires after `overlap`, if not before; its tokens
    /// keep their own expiry.
    ///
    /// [`Keys::revoke`] of either takes back both. Of a key with few uses, the new one has as many
    /// again.
    ///
    /// # Errors
    /// As [`Keys::issue`]; [`KeyError::Unknown`] if there is no such key, [`KeyError::NotASecretKey`]
    /// if it is a token, [`KeyError::Gone`] if it is revoked or has expired, [`KeyError::Replaced`]
    /// if it was rotated before.
    pub async fn rotate(&self, id: &KeyId, overlap: Duration) -> Result<Issued, KeyError> {
        let old = self.find(id).await?.ok_or(KeyError::Unknown)?;
        if old.kind() != KeyKind::Secret {
            return Err(KeyError::NotASecretKey);
        }
        let key = self.generate(KeyKind::Secret, old.environment())?;
        let record = self.new_record(&key, old.account().clone(), KeyKind::Secret)?;
        let now = record.created_at();
        let lifetime = old.expires_at().map(|expires_at| expires_at.since(old.created_at()));
        let record = record
            .with_environment(old.environment())
            .with_expires_at(expiry(now, lifetime))
            .with_line(old.line().clone())
            .with_grants(old.grants().clone());
        let old_expires_at = now.saturating_add(overlap);
        match self.store().rotate(id, record.clone(), old_expires_at, &self.stamp()).await? {
            Rotated::Yes => Ok(Issued::new(key, record.into(), None)),
            Rotated::Unknown => Err(KeyError::Unknown),
            Rotated::Gone => Err(KeyError::Gone),
            Rotated::Replaced => Err(KeyError::Replaced),
            Rotated::Taken => Err(KeyError::Taken),
        }
    }

    /// Takes a key back: with it those before and after it in its line of rotations, and the
    /// ephemeral keys that these minted. Answers how many that were.
    ///
    /// Once this has answered, no new connection is accepted with any of them in this process, and
    /// open sessions were told (see [`Principal::revoked`](crate::Principal::revoked)).
    ///
    /// # Errors
    /// If the store cannot answer. The key may or may not be revoked then: ask again.
    pub async fn revoke(&self, id: &KeyId) -> Result<u64, StoreError> {
        self.revoke_what(&Revocation::Key(id.clone())).await
    }

    /// Takes one key back with the ephemeral keys that it minted, and leaves those before and after
    /// it in its line.
    ///
    /// # Errors
    /// As [`Keys::revoke`].
    pub async fn revoke_alone(&self, id: &KeyId) -> Result<u64, StoreError> {
        self.revoke_what(&Revocation::Alone(id.clone())).await
    }

    /// Takes back every key that an account has now.
    ///
    /// # Errors
    /// As [`Keys::revoke`].
    pub async fn revoke_account(&self, account: impl Into<Arc<str>>) -> Result<u64, StoreError> {
        self.revoke_what(&Revocation::Account(account.into())).await
    }

    /// Takes back the keys of an account that were made before a time: what is left after a leak
    /// was found and new keys are out.
    ///
    /// # Errors
    /// As [`Keys::revoke`].
    pub async fn revoke_issued_before(
        &self,
        account: impl Into<Arc<str>>,
        at: UnixMillis,
    ) -> Result<u64, StoreError> {
        self.revoke_what(&Revocation::IssuedBefore { account: account.into(), at }).await
    }

    async fn revoke_what(&self, what: &Revocation) -> Result<u64, StoreError> {
        self.store().revoke(what, &self.stamp()).await
    }

    /// Takes a key back and forgets it and its ephemeral keys; answers whether there was one. What
    /// is left of it is the audit trail.
    ///
    /// # Errors
    /// As [`Keys::revoke`].
    pub async fn remove(&self, id: &KeyId) -> Result<bool, StoreError> {
        self.store().remove(id, &self.stamp()).await
    }

    /// Gives a key another plan, and with it those before and after it in its line of rotations;
    /// answers whether there is such a key.
    ///
    /// It holds from the next request on, for the tokens of these keys as well: they draw on what
    /// their parent may, whatever is theirs. What was counted before stays counted, so that a higher
    /// limit adds to what is left; what was not limited was not counted. Sessions that are open stay
    /// open, and go on by the limit of usage that they began with.
    ///
    /// # Errors
    /// If the store cannot answer. The plan may or may not be the new one then: ask again.
    pub async fn set_plan(&self, id: &KeyId, plan: Plan) -> Result<bool, StoreError> {
        self.store().set_plan(id, plan, &self.stamp()).await
    }

    /// What was changed, the oldest first.
    ///
    /// # Errors
    /// If the store cannot answer.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        self.store().audit(filter).await
    }

    /// The keys of one account alone, for whoever may manage no others.
    pub fn of_account(&self, account: impl Into<Arc<str>>) -> KeysOfAccount<S> {
        KeysOfAccount::new(self.clone(), account.into())
    }

    pub(crate) fn generate(
        &self,
        kind: KeyKind,
        environment: Environment,
    ) -> Result<ApiKey, KeyError> {
        self.format().generate(kind, environment).map_err(|_| KeyError::Random)
    }

    /// A record of `key` under a fresh id, made now.
    pub(crate) fn new_record(
        &self,
        key: &ApiKey,
        account: Arc<str>,
        kind: KeyKind,
    ) -> Result<KeyRecord, KeyError> {
        let digest = self.digest(key.expose().as_bytes())?;
        let record = KeyRecord::new(new_id()?, digest, account, kind, self.now());
        let hint = KeyHint::of(key.expose());
        Ok(record.with_algorithm(self.hasher().algorithm()).with_hint(hint))
    }
}

fn new_id() -> Result<KeyId, KeyError> {
    let mut id = String::from("key_");
    random_base62(KEY_ID_LEN, &mut id).map_err(|_| KeyError::Random)?;
    Ok(KeyId::new(id))
}

fn expiry(now: UnixMillis, lifetime: Option<Duration>) -> Option<UnixMillis> {
    lifetime.map(|lifetime| now.saturating_add(lifetime))
}
