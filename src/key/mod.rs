//! Keys: their text, their form, and what is kept of them.

#[cfg(feature = "jwt")]
mod claims;
mod digest;
mod format;
mod grants;
mod hasher;
mod hint;
mod issue;
mod keys;
mod last_used;
mod life;
mod of_account;
mod parent;
mod plan;
mod record;
#[cfg(feature = "jwt")]
mod signer;

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

#[cfg(feature = "jwt")]
pub use self::signer::TokenSigner;
pub use self::{
    digest::KeyDigest,
    format::KeyFormat,
    grants::Grants,
    hasher::{DigestAlgorithm, KeyHasher, Pepper},
    hint::KeyHint,
    issue::{Issued, KeyError, NewKey},
    keys::Keys,
    of_account::KeysOfAccount,
    parent::Parent,
    plan::Plan,
    record::{Environment, KeyKind, KeyRecord},
};
pub(crate) use self::{format::random_base62, hasher::Digests};

/// The longest credential that is looked at, in bytes. A longer one is refused before hashing.
///
/// Python's clients cannot read an echoed subprotocol line of 8 KiB; keys are far shorter.
pub const MAX_CREDENTIAL_LEN: usize = 4096;

/// The text of a key: the secret itself.
///
/// Its `Debug` shows nothing of it, and its memory is wiped when it is dropped. The text is
/// reached through [`ApiKey::expose`] alone.
///
/// ```
/// use tower_realtime_auth::ApiKey;
///
/// let key = ApiKey::new("sk_test_abc")?;
/// assert_eq!(key.expose(), "sk_test_abc");
/// assert_eq!(format!("{key:?}"), "ApiKey(..)");
/// assert!(ApiKey::new("two words").is_err());
/// # Ok::<(), tower_realtime_auth::InvalidKey>(())
/// ```
#[derive(Clone)]
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    /// Takes a key of any make whose text every place for credentials can carry.
    ///
    /// # Errors
    /// If the text is empty, longer than [`MAX_CREDENTIAL_LEN`], or holds anything but visible
    /// ASCII without a comma (a comma separates subprotocols, RFC 6455 §11.3.4).
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = Zeroizing::new(text.into());
        if text.is_empty() {
            Err(InvalidKey::Empty)
        } else if text.len() > MAX_CREDENTIAL_LEN {
            Err(InvalidKey::TooLong)
        } else if !text.bytes().all(is_key_byte) {
            Err(InvalidKey::IllegalCharacter)
        } else {
            Ok(Self(text))
        }
    }

    /// The secret. Show it once, to whom it belongs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// Whether a key may hold this byte: visible ASCII but the comma.
pub(crate) const fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b','
}

/// Why a text cannot be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidKey {
    /// No text at all.
    Empty,
    /// More than [`MAX_CREDENTIAL_LEN`] bytes.
    TooLong,
    /// Something other than visible ASCII, or a comma.
    IllegalCharacter,
    /// Prefix and length of a key issued here, but not its checksum: a typing error. The layer
    /// refuses such a text without asking the store, so importing it would be in vain.
    Checksum,
    /// The form of a signed twin (a JWT), where there is a `TokenSigner`. The layer refuses such a
    /// text if it was not signed here, so importing it would be in vain.
    Jwt,
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the key is empty",
            Self::TooLong => "the key is longer than 4096 bytes",
            Self::IllegalCharacter => {
                "the key holds something other than visible ASCII, or a comma"
            }
            Self::Checksum => {
                "the key has the form of one issued here, but a wrong checksum: mistyped?"
            }
            Self::Jwt => "the key has the form of a signed one, but is to be looked up",
        })
    }
}

impl std::error::Error for InvalidKey {}

/// The public name of a key: safe to log, to show and to revoke by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// An id read back from a store.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.0)
    }
}
