//! How a key becomes a digest: by SHA-256 alone, or keyed with a pepper.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::KeyDigest;
use crate::ConfigError;

/// The block of SHA-256, to which HMAC pads its key, in bytes.
const BLOCK_LEN: usize = 64;
/// The shortest pepper: as long as the digest (RFC 2104 §3).
const MIN_PEPPER_LEN: usize = 32;

/// What a digest was made by. Stored with it, so that old ones can be told from new ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DigestAlgorithm {
    /// SHA-256 of the key.
    #[default]
    Sha256,
    /// HMAC-SHA-256 of the key, keyed with a pepper.
    HmacSha256 {
        /// The version of the pepper.
        pepper: u32,
    },
}

impl fmt::Display for DigestAlgorithm {
    /// `sha256`, or `hmac-sha256` with the version of the pepper: `hmac-sha256:1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256 => f.write_str("sha256"),
            Self::HmacSha256 { pepper } => write!(f, "hmac-sha256:{pepper}"),
        }
    }
}

impl FromStr for DigestAlgorithm {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let peppered = |version: &str| Some(Self::HmacSha256 { pepper: version.parse().ok()? });
        match name.split_once(':') {
            None if name == "sha256" => Some(Self::Sha256),
            Some(("hmac-sha256", version)) => peppered(version),
            _ => None,
        }
        .ok_or_else(|| ConfigError::UnknownAlgorithm { name: name.into() })
    }
}

/// A secret that is kept apart from the store, so that a copy of the store alone verifies nothing.
#[derive(Clone)]
pub struct Pepper {
    version: u32,
    secret: Zeroizing<Box<[u8]>>,
}

impl Pepper {
    /// A pepper of at least 32 random bytes. Its version stands in every record that it makes.
    ///
    /// # Errors
    /// If `secret` is shorter than that.
    pub fn new(version: u32, secret: &[u8]) -> Result<Self, ConfigError> {
        if secret.len() < MIN_PEPPER_LEN {
            return Err(ConfigError::ShortPepper);
        }
        Ok(Self { version, secret: Zeroizing::new(secret.into()) })
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pepper").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Makes digests of keys: new ones by one algorithm, and for a while also those of the one before.
///
/// Rotating a pepper: start with the new one and the old one as previous; every key goes on
/// working. [`KeyFilter::made_by`](crate::KeyFilter::made_by) lists what still depends on the old
/// one; when that is nothing, leave it out.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http_body_util::Full;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_realtime_auth::{
///     KeyHasher, Keys, MemoryStore, NewKey, Pepper, RealtimeAuthLayer, bytes::Bytes,
///     http::{Request, Response},
/// };
///
/// # let (old_secret, new_secret) = ([1; 32], [2; 32]);
/// let old = KeyHasher::peppered(Pepper::new(1, &old_secret)?);
/// let new = KeyHasher::peppered(Pepper::new(2, &new_secret)?);
/// assert!(Pepper::new(3, b"too short").is_err());
///
/// // A key from before the new pepper.
/// let keys = Keys::new(MemoryStore::new()).with_hasher(old.clone());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
///
/// let greet = service_fn(async |_: Request<()>| {
///     Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("hello"))))
/// });
/// for (hasher, status) in [(new.clone().with_previous(old), 200), (new, 401)] {
///     let service = RealtimeAuthLayer::new(keys.clone().with_hasher(hasher)).layer(greet);
///     let bearer = format!("Bearer {}", issued.key().expose());
///     let request = Request::builder().header("authorization", bearer).body(())?;
///     assert_eq!(service.oneshot(request).await?.status(), status);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct KeyHasher {
    current: Option<Pepper>,
    previous: Option<Option<Pepper>>,
}

/// The digests under which a presented key may be stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digests {
    pub(crate) current: KeyDigest,
    pub(crate) previous: Option<KeyDigest>,
}

impl KeyHasher {
    /// SHA-256, which suits keys of 128 random bits and more. The default.
    #[must_use]
    pub fn plain() -> Self {
        Self::default()
    }

    /// HMAC-SHA-256 keyed with `pepper`.
    #[must_use]
    pub fn peppered(pepper: Pepper) -> Self {
        Self { current: Some(pepper), previous: None }
    }

    /// The same, which still knows the digests that `previous` makes.
    #[must_use]
    pub fn with_previous(self, previous: Self) -> Self {
        Self { previous: Some(previous.current), ..self }
    }

    /// What new digests are made by.
    #[must_use]
    pub fn algorithm(&self) -> DigestAlgorithm {
        of(self.current.as_ref())
    }

    /// Whether digests of this algorithm are found: it is the current one or the one before.
    pub(crate) fn makes(&self, algorithm: DigestAlgorithm) -> bool {
        algorithm == self.algorithm()
            || self.previous.as_ref().is_some_and(|previous| algorithm == of(previous.as_ref()))
    }

    pub(crate) fn digests(&self, text: &[u8]) -> Digests {
        let previous = self.previous.as_ref();
        Digests {
            current: digest(self.current.as_ref(), text),
            previous: previous.map(|pepper| digest(pepper.as_ref(), text)),
        }
    }
}

fn of(pepper: Option<&Pepper>) -> DigestAlgorithm {
    pepper.map_or(DigestAlgorithm::Sha256, |pepper| DigestAlgorithm::HmacSha256 {
        pepper: pepper.version,
    })
}

fn digest(pepper: Option<&Pepper>, text: &[u8]) -> KeyDigest {
    match pepper {
        None => KeyDigest::sha256(text),
        Some(pepper) => KeyDigest::from_bytes(hmac(&pepper.secret, text)),
    }
}

/// HMAC-SHA-256 (RFC 2104). Twenty lines here keep three crates out of the base.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = Zeroizing::new([0_u8; BLOCK_LEN]);
    let hashed;
    let key = if key.len() > BLOCK_LEN {
        hashed = Zeroizing::new(<[u8; 32]>::from(Sha256::digest(key)));
        &hashed[..]
    } else {
        key
    };
    block.iter_mut().zip(key).for_each(|(padded, byte)| *padded = *byte);
    let keyed = |pad: u8| Sha256::new().chain_update(Zeroizing::new(block.map(|byte| byte ^ pad)));
    let inner = keyed(0x36).chain_update(text).finalize();
    keyed(0x5c).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231 §4.2, §4.3 and §4.7: a short key, one shorter than a block, one longer.
    #[test]
    fn known_answers() {
        let cases: [(Vec<u8>, &[u8], &str); 3] = [
            (
                vec![0x0b; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, text, expected) in cases {
            let hex: String = hmac(&key, text).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected);
        }
    }

    #[test]
    fn a_pepper_changes_the_digest_and_shows_nothing() {
        let pepper = Pepper::new(7, &[9; 32]).unwrap();
        let hasher = KeyHasher::peppered(pepper).with_previous(KeyHasher::plain());
        let digests = hasher.digests(b"key");
        assert_ne!(digests.current, KeyDigest::sha256(b"key"));
        assert_eq!(digests.previous, Some(KeyDigest::sha256(b"key")));
        assert_eq!(hasher.algorithm(), DigestAlgorithm::HmacSha256 { pepper: 7 });
        assert!(!format!("{hasher:?}").contains('9'));
        assert_eq!(Pepper::new(1, &[9; 31]).unwrap_err(), ConfigError::ShortPepper);
    }
}
