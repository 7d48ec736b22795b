//! What a store keeps of a key.

use std::{sync::Arc, time::Duration};

use super::{DigestAlgorithm, Grants, KeyDigest, KeyHint, KeyId, Parent, last_used::LastUsed};
use crate::UnixMillis;

/// What kind of key a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// A secret key: lives on servers, may mint ephemeral keys.
    Secret,
    /// An ephemeral key ("token", "client secret"): lives in browsers, may not mint.
    Ephemeral,
}

impl KeyKind {
    /// `secret` or `ephemeral`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Ephemeral => "ephemeral",
        }
    }
}

/// Whether a key works on the real thing or on a rehearsal of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Environment {
    /// The real thing.
    #[default]
    Live,
    /// A rehearsal.
    Test,
}

/// What a store keeps of a key: everything but the key.
#[derive(Debug, Clone)]
pub struct KeyRecord {
    id: KeyId,
    digest: KeyDigest,
    algorithm: DigestAlgorithm,
    account: Arc<str>,
    kind: KeyKind,
    environment: Environment,
    parent: Option<Parent>,
    line: Option<KeyId>,
    successor: Option<KeyId>,
    hint: Option<KeyHint>,
    created_at: UnixMillis,
    expires_at: Option<UnixMillis>,
    revoked_at: Option<UnixMillis>,
    last_used: LastUsed,
    grants: Grants,
}

impl KeyRecord {
    /// A record of a live key that does not expire, is not revoked, and grants everything.
    #[must_use]
    pub fn new(
        id: KeyId,
        digest: KeyDigest,
        account: impl Into<Arc<str>>,
        kind: KeyKind,
        created_at: UnixMillis,
    ) -> Self {
        Self {
            id,
            digest,
            algorithm: DigestAlgorithm::default(),
            account: account.into(),
            kind,
            environment: Environment::Live,
            parent: None,
            line: None,
            successor: None,
            hint: None,
            created_at,
            expires_at: None,
            revoked_at: None,
            last_used: LastUsed::default(),
            grants: Grants::default(),
        }
    }

    /// The record with another algorithm that its digest was made by.
    #[must_use]
    pub fn with_algorithm(self, algorithm: DigestAlgorithm) -> Self {
        Self { algorithm, ..self }
    }

    /// The record with another environment.
    #[must_use]
    pub fn with_environment(self, environment: Environment) -> Self {
        Self { environment, ..self }
    }

    /// The record with the key that minted this one.
    #[must_use]
    pub fn with_parent(self, parent: Option<Parent>) -> Self {
        Self { parent, ..self }
    }

    /// The record with another line of rotations that the key belongs to.
    #[must_use]
    pub fn with_line(self, line: KeyId) -> Self {
        Self { line: Some(line), ..self }
    }

    /// The record with another key that has taken this one's place.
    #[must_use]
    pub fn with_successor(self, successor: Option<KeyId>) -> Self {
        Self { successor, ..self }
    }

    /// The record with another hint at the key's text.
    #[must_use]
    pub fn with_hint(self, hint: Option<KeyHint>) -> Self {
        Self { hint, ..self }
    }

    /// The record with another time from which on the key is refused.
    #[must_use]
    pub fn with_expires_at(self, expires_at: Option<UnixMillis>) -> Self {
        Self { expires_at, ..self }
    }

    /// The record with another time of revocation.
    #[must_use]
    pub fn with_revoked_at(self, revoked_at: Option<UnixMillis>) -> Self {
        Self { revoked_at, ..self }
    }

    /// The record of a key that was last used then, if ever.
    #[must_use]
    pub fn with_last_used_at(self, at: Option<UnixMillis>) -> Self {
        Self { last_used: LastUsed::at(at), ..self }
    }

    /// The record with other grants.
    #[must_use]
    pub fn with_grants(self, grants: Grants) -> Self {
        Self { grants, ..self }
    }

    /// The key's public name.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// The digest under which the key is found.
    #[must_use]
    pub const fn digest(&self) -> &KeyDigest {
        &self.digest
    }

    /// What the digest was made by.
    #[must_use]
    pub const fn algorithm(&self) -> DigestAlgorithm {
        self.algorithm
    }

    /// Whose key it is.
    #[must_use]
    pub const fn account(&self) -> &Arc<str> {
        &self.account
    }

    /// Secret or ephemeral. It comes from here alone, never from the key's text.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Live or test.
    #[must_use]
    pub const fn environment(&self) -> Environment {
        self.environment
    }

    /// The key that minted this one.
    #[must_use]
    pub const fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }

    /// What stays the same when a key is rotated: the id of the first of the keys that followed one
    /// another. Its own id if there was none before.
    #[must_use]
    pub fn line(&self) -> &KeyId {
        self.line.as_ref().unwrap_or(&self.id)
    }

    /// The key that was made in the place of this one.
    #[must_use]
    pub const fn successor(&self) -> Option<&KeyId> {
        self.successor.as_ref()
    }

    /// As much of the key's text as may be shown.
    #[must_use]
    pub const fn hint(&self) -> Option<&KeyHint> {
        self.hint.as_ref()
    }

    /// When the key was made.
    #[must_use]
    pub const fn created_at(&self) -> UnixMillis {
        self.created_at
    }

    /// From when on the key opens nothing new: refused at this very millisecond. `None`: never.
    #[must_use]
    pub const fn expires_at(&self) -> Option<UnixMillis> {
        self.expires_at
    }

    /// Since when the key is taken back.
    #[must_use]
    pub const fn revoked_at(&self) -> Option<UnixMillis> {
        self.revoked_at
    }

    /// When the key last opened something, as far as the store knows: it may be a minute behind.
    #[must_use]
    pub fn last_used_at(&self) -> Option<UnixMillis> {
        self.last_used.get()
    }

    /// Notes that the key opens something, here and in all copies of this record. It costs next to
    /// nothing and stores nothing.
    pub fn note_use(&self, at: UnixMillis) {
        self.last_used.note(at);
    }

    /// What the key may do.
    #[must_use]
    pub const fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Whether the key is past its expiry at `now`.
    #[must_use]
    pub fn is_expired(&self, now: UnixMillis) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// Whether the key or the one that minted it is taken back.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        let parent = self.parent.as_ref().and_then(Parent::revoked_at);
        self.revoked_at.or(parent).is_some()
    }

    /// How long the key still opens something. `None`: for ever.
    #[must_use]
    pub fn remaining(&self, now: UnixMillis) -> Option<Duration> {
        self.expires_at.map(|expires_at| expires_at.since(now))
    }
}
