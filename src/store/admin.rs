//! The write side of a store.

use std::sync::Arc;

use super::{AuditEntry, AuditFilter, KeyStore, Stamp, Write};
use crate::{DigestAlgorithm, KeyId, KeyKind, KeyRecord, Plan, UnixMillis};

/// The write side of a store. It handles records only, never the text of a key.
///
/// Every method does all of what it says or nothing. What it changes of secret keys, every
/// revocation and every change of a plan goes into an audit trail together with the change itself.
pub trait KeyAdmin: KeyStore {
    /// Adds a record and overwrites none.
    ///
    /// With `max_children`, the store counts the parent's ephemeral keys that are neither expired
    /// (at the new record's time of creation) nor revoked, and adds no further one past that.
    fn insert(
        &self,
        record: KeyRecord,
        max_children: Option<u32>,
        stamp: &Stamp,
    ) -> Write<'_, Inserted>;

    /// The record with this id as it is stored, never from a cache.
    fn find(&self, id: &KeyId) -> Write<'_, Option<Arc<KeyRecord>>>;

    /// The records that fit `filter`, the oldest first.
    fn list(&self, filter: &KeyFilter) -> Write<'_, Vec<Arc<KeyRecord>>>;

    /// Adds the record `new`, which is of the line of `old`, has its plan, and is its successor, and
    /// lets `old` expire at `old_expires_at` unless it does so earlier.
    ///
    /// Its tokens keep their own expiry. Against a revocation at the same time: whichever comes
    /// second sees the other, so that no key of a revoked line is left. The same of a change of the
    /// plan, so that a line has one.
    fn rotate(
        &self,
        old: &KeyId,
        new: KeyRecord,
        old_expires_at: UnixMillis,
        stamp: &Stamp,
    ) -> Write<'_, Rotated>;

    /// Takes keys back, their children too; answers how many records are revoked by it, those that
    /// were before included.
    ///
    /// Once this has answered, no lookup that begins afterwards shows one of them unrevoked, and
    /// the store's [`Revocations`](super::Revocations) were told, if it has them. A key that was
    /// revoked before keeps its first time of revocation.
    fn revoke(&self, what: &Revocation, stamp: &Stamp) -> Write<'_, u64>;

    /// Takes a key back, and forgets it and its children; answers whether there was one.
    fn remove(&self, id: &KeyId, stamp: &Stamp) -> Write<'_, bool>;

    /// Gives another plan to a key and to all before and after it in its line of rotations, because
    /// they draw on one budget; answers whether there is such a key. Expired and revoked ones get
    /// it as well.
    ///
    /// Once this has answered, every lookup that begins afterwards shows it, in the records of those
    /// keys and as the plan of the [`Parent`](crate::Parent) in those of their children, whose own
    /// plans stay as they are. Where a key has this plan already, nothing is changed.
    fn set_plan(&self, id: &KeyId, plan: Plan, stamp: &Stamp) -> Write<'_, bool>;

    /// The entries of the audit trail that fit `filter`, the oldest first.
    ///
    /// Minted tokens are not in it: their records name parent and time.
    fn audit(&self, filter: &AuditFilter) -> Write<'_, Vec<AuditEntry>>;
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

/// What became of a key to rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rotated {
    /// The new one is stored, and the old one expires.
    Yes,
    /// There is no such key.
    Unknown,
    /// The key is revoked, or had expired when the new one was made.
    Gone,
    /// The key has a successor already.
    Replaced,
    /// There is a record with the new one's id or digest.
    Taken,
}

/// Which keys to take back, each with the ephemeral keys that it minted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revocation {
    /// One key, and those before and after it in its line of rotations.
    Key(KeyId),
    /// One key, and none of its line.
    Alone(KeyId),
    /// Every key of an account.
    Account(Arc<str>),
    /// The keys of an account that were made before a time.
    IssuedBefore {
        /// Whose keys.
        account: Arc<str>,
        /// Before when.
        at: UnixMillis,
    },
}

/// Which records to list. The default lists all.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct KeyFilter {
    /// Only this account's.
    pub account: Option<Arc<str>>,
    /// Only those whose digest was made by this.
    pub algorithm: Option<DigestAlgorithm>,
    /// Only those of this kind.
    pub kind: Option<KeyKind>,
    /// Only those whose [`KeyHint`](crate::KeyHint) has this prefix.
    pub prefix: Option<Box<str>>,
    /// Only those whose [`KeyHint`](crate::KeyHint) ends with these four characters.
    pub last_four: Option<Box<str>>,
    /// Only those behind this one, by time of creation and then by id.
    pub after: Option<(UnixMillis, KeyId)>,
    /// At most so many.
    pub limit: Option<usize>,
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

    /// The same, of this kind alone.
    #[must_use]
    pub fn with_kind(self, kind: KeyKind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// The same, whose keys begin and end so, as `sk_live_…a1B2` shows it.
    #[must_use]
    pub fn with_hint(self, prefix: impl Into<Box<str>>, last_four: impl Into<Box<str>>) -> Self {
        Self { prefix: Some(prefix.into()), last_four: Some(last_four.into()), ..self }
    }

    /// The same, at most `limit` of those behind `last`, the last of the page before.
    #[must_use]
    pub fn with_page(self, last: Option<&KeyRecord>, limit: usize) -> Self {
        let after = last.map(|last| (last.created_at(), last.id().clone()));
        Self { after, limit: Some(limit), ..self }
    }

    /// Whether a record is one of those, [`limit`](Self::limit) aside.
    #[must_use]
    pub fn fits(&self, record: &KeyRecord) -> bool {
        let (hint, prefix) = (record.hint(), self.prefix.as_deref());
        self.account.as_ref().is_none_or(|account| record.account() == account)
            && self.algorithm.is_none_or(|algorithm| record.algorithm() == algorithm)
            && self.kind.is_none_or(|kind| record.kind() == kind)
            && prefix.is_none_or(|prefix| hint.is_some_and(|hint| hint.prefix() == prefix))
            && self
                .last_four
                .as_deref()
                .is_none_or(|last| hint.is_some_and(|hint| hint.last_four() == last))
            && self
                .after
                .as_ref()
                .is_none_or(|(at, id)| (record.created_at(), record.id()) > (*at, id))
    }
}
