//! The form of the keys that are issued here.
//!
//! `PREFIX` + 33 base62 characters from the operating system's generator (196 bits) + 6 base62
//! characters of CRC-32 over all that stands before. At most 52 bytes, so that hashing takes one
//! block of SHA-256; the alphabet is legal in a header, a query and a subprotocol; the checksum
//! lets a mistyped key be refused without hashing it or asking the store.

use zeroize::Zeroizing;

use super::{ApiKey, Environment, KeyKind};
use crate::ConfigError;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_LEN: usize = 33;
const CHECKSUM_LEN: usize = 6;
const MAX_PREFIX_LEN: usize = 13;

/// The prefixes of the keys that are issued here.
///
/// The default is `sk_live_` and `sk_test_` for secret keys, as Svara and Stripe write them, and
/// `ek_` for ephemeral ones, because OpenAI's browser clients refuse any other.
///
/// ```
/// # futures_util::FutureExt::now_or_never(async {
/// use tower_realtime_auth::{ApiKey, KeyError, KeyFormat, Keys, MemoryStore, NewKey};
///
/// let format = KeyFormat::default().with_live_prefix("acme_")?;
/// let ambiguous = format.clone().with_ephemeral_prefix("acme_ek_");
/// assert!(ambiguous.is_err(), "an ephemeral key could be taken for a live one");
///
/// let format = format.with_live_prefix("acme_sk_")?.with_ephemeral_prefix("acme_ek_")?;
/// let keys = Keys::new(MemoryStore::new()).with_format(format);
/// let issued = keys.issue(NewKey::secret("acme")).await?;
/// let key = issued.key().expose();
/// assert!(key.starts_with("acme_sk_"));
///
/// // A mistyped key is known without asking the store.
/// let last = if key.ends_with('0') { "1" } else { "0" };
/// let mistyped = ApiKey::new(format!("{}{last}", &key[..key.len() - 1]))?;
/// let refused = keys.import(&mistyped, NewKey::secret("acme")).await;
/// assert!(matches!(refused, Err(KeyError::Invalid(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).expect("a store in memory answers at once").unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct KeyFormat {
    live: Box<str>,
    test: Box<str>,
    ephemeral: Box<str>,
}

impl Default for KeyFormat {
    fn default() -> Self {
        Self { live: "sk_live_".into(), test: "sk_test_".into(), ephemeral: "ek_".into() }
    }
}

impl KeyFormat {
    /// Secret keys of the live environment begin with `prefix`.
    ///
    /// # Errors
    /// If `prefix` is not 1 to 13 letters, digits or underscores, or cannot be told from another.
    pub fn with_live_prefix(self, prefix: &str) -> Result<Self, ConfigError> {
        Self { live: prefix.into(), ..self }.checked(prefix)
    }

    /// Secret keys of the test environment begin with `prefix`.
    ///
    /// # Errors
    /// As [`KeyFormat::with_live_prefix`].
    pub fn with_test_prefix(self, prefix: &str) -> Result<Self, ConfigError> {
        Self { test: prefix.into(), ..self }.checked(prefix)
    }

    /// Ephemeral keys begin with `prefix`, for instance `swaram_ek_`.
    ///
    /// # Errors
    /// As [`KeyFormat::with_live_prefix`].
    pub fn with_ephemeral_prefix(self, prefix: &str) -> Result<Self, ConfigError> {
        Self { ephemeral: prefix.into(), ..self }.checked(prefix)
    }

    fn checked(self, prefix: &str) -> Result<Self, ConfigError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if prefix.is_empty() || prefix.len() > MAX_PREFIX_LEN || !prefix.bytes().all(legal) {
            return Err(ConfigError::KeyPrefix { prefix: prefix.into() });
        }
        let clashes =
            self.prefixes().filter(|other| other.starts_with(prefix) || prefix.starts_with(*other));
        // The prefix itself is one of the three.
        if clashes.count() > 1 {
            return Err(ConfigError::AmbiguousKeyPrefix { prefix: prefix.into() });
        }
        Ok(self)
    }

    fn prefixes(&self) -> impl Iterator<Item = &str> {
        [&*self.live, &*self.test, &*self.ephemeral].into_iter()
    }

    pub(crate) fn generate(
        &self,
        kind: KeyKind,
        environment: Environment,
    ) -> Result<ApiKey, getrandom::Error> {
        let prefix = match (kind, environment) {
            (KeyKind::Ephemeral, _) => &self.ephemeral,
            (KeyKind::Secret, Environment::Live) => &self.live,
            (KeyKind::Secret, Environment::Test) => &self.test,
        };
        let mut text =
            Zeroizing::new(String::with_capacity(prefix.len() + RANDOM_LEN + CHECKSUM_LEN));
        text.push_str(prefix);
        random_base62(RANDOM_LEN, &mut text)?;
        let checksum = checksum(text.as_bytes());
        text.extend(checksum.map(char::from));
        Ok(ApiKey(text))
    }

    /// Whether `text` has prefix and length of a key issued here, but not its checksum.
    pub(crate) fn is_mistyped(&self, text: &[u8]) -> bool {
        let ours = self.prefixes().any(|prefix| {
            text.len() == prefix.len() + RANDOM_LEN + CHECKSUM_LEN
                && text.starts_with(prefix.as_bytes())
        });
        ours && text
            .split_last_chunk::<CHECKSUM_LEN>()
            .is_some_and(|(body, given)| checksum(body) != *given)
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32fast::hash(body);
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = base62(rest % 62);
        rest /= 62;
    }
    digits
}

/// Appends `len` base62 characters, each as likely as any other, from the system's generator.
pub(crate) fn random_base62(len: usize, text: &mut String) -> Result<(), getrandom::Error> {
    let mut pool = Zeroizing::new([0_u8; 64]);
    let mut missing = len;
    while missing > 0 {
        getrandom::fill(&mut *pool)?;
        // 248 is the largest multiple of 62 in a byte: what lies past it would favour some digits.
        let fair = pool.iter().filter(|byte| **byte < 248).take(missing);
        for byte in fair {
            text.push(char::from(base62(u32::from(*byte) % 62)));
            missing -= 1;
        }
    }
    Ok(())
}

fn base62(digit: u32) -> u8 {
    let index = usize::try_from(digit).unwrap_or(usize::MAX);
    ALPHABET.get(index).copied().unwrap_or(b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generate(format: &KeyFormat) -> String {
        let key = format.generate(KeyKind::Secret, Environment::Test).unwrap();
        key.expose().to_owned()
    }

    #[test]
    fn issued_keys_have_the_promised_form() {
        let format = KeyFormat::default();
        let key = generate(&format);
        assert!(key.starts_with("sk_test_"));
        assert_eq!(key.len(), 8 + 33 + 6);
        assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        assert!(!format.is_mistyped(key.as_bytes()));
        assert_ne!(key, generate(&format));
    }

    #[test]
    fn any_single_wrong_character_is_seen() {
        let format = KeyFormat::default();
        let key = generate(&format);
        for position in 8..key.len() {
            let mut typo = key.clone().into_bytes();
            typo[position] = if typo[position] == b'x' { b'y' } else { b'x' };
            assert!(format.is_mistyped(&typo), "position {position}");
        }
    }

    #[test]
    fn keys_of_another_make_are_left_alone() {
        let format = KeyFormat::default();
        for text in ["", "sk_test_", "sk_test_short", "hello", &"a".repeat(47)] {
            assert!(!format.is_mistyped(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn the_checksum_is_base62_of_crc32() {
        // CRC-32/ISO-HDLC of "123456789" is cbf43926 = 3421780262.
        assert_eq!(&checksum(b"123456789"), b"3jZRME");
        let digits = b"3jZRME".iter().fold(0_u64, |value, digit| {
            let digit = ALPHABET.iter().position(|letter| letter == digit).unwrap();
            value * 62 + digit as u64
        });
        assert_eq!(digits, 0xcbf4_3926);
    }

    #[test]
    fn prefixes_are_checked() {
        let format = KeyFormat::default();
        assert!(format.clone().with_ephemeral_prefix("swaram_ek_").is_ok());
        assert!(format.clone().with_live_prefix("").is_err());
        assert!(format.clone().with_live_prefix("key-").is_err());
        assert!(format.clone().with_live_prefix("a_prefix_too_long_").is_err());
        assert!(format.clone().with_live_prefix("sk_test_x_").is_err());
        assert!(format.with_ephemeral_prefix("sk_").is_err());
    }
}
