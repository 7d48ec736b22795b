//! What a key to make is to be, what was made, and why none was.

use std::{fmt, sync::Arc, time::Duration};

use super::{ApiKey, DigestAlgorithm, Environment, Grants, InvalidKey, KeyRecord};
use crate::StoreError;

/// What a new secret key is to be.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub(super) account: Arc<str>,
    pub(super) environment: Environment,
    pub(super) lifetime: Option<Duration>,
    pub(super) grants: Grants,
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
    twin: Option<ApiKey>,
}

impl Issued {
    pub(crate) const fn new(key: ApiKey, record: Arc<KeyRecord>, twin: Option<ApiKey>) -> Self {
        Self { key, record, twin }
    }

    /// The key. It cannot be had a second time.
    #[must_use]
    pub const fn key(&self) -> &ApiKey {
        &self.key
    }

    /// The same key in its signed form, if one was made: of a token that was minted by
    /// [`Keys::mint`](crate::Keys::mint) or [`ClientTokens`](crate::ClientTokens), from keys with a
    /// signer (feature `jwt`).
    #[must_use]
    pub const fn twin(&self) -> Option<&ApiKey> {
        self.twin.as_ref()
    }

    /// What the store keeps of it.
    #[must_use]
    pub const fn record(&self) -> &Arc<KeyRecord> {
        &self.record
    }
}

/// Why a key was not made, taken in or rotated.
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
    /// Keys are not digested in this way here.
    Algorithm(DigestAlgorithm),
    /// There is no such key.
    Unknown,
    /// Only secret keys are rotated; a token is minted anew.
    NotASecretKey,
    /// The key is revoked or has expired.
    Gone,
    /// Another key was made in the place of this one already: rotate that.
    Replaced,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Random => f.write_str("the operating system gave no random numbers"),
            Self::Taken => f.write_str("there is such a key already"),
            Self::Invalid(error) => error.fmt(f),
            Self::Algorithm(algorithm) => {
                write!(f, "keys are not digested by {algorithm} here, so it would not be found")
            }
            Self::Unknown => f.write_str("there is no such key"),
            Self::NotASecretKey => f.write_str("the key is ephemeral; mint another one instead"),
            Self::Gone => f.write_str("the key is revoked or has expired; issue another one"),
            Self::Replaced => f.write_str("the key was rotated already; rotate its successor"),
        }
    }
}

impl std::error::Error for KeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            _ => None,
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
