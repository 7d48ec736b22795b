//! Errors of configuration: values, found when a service is put together, never panics.

use std::fmt;

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A close code that an endpoint may not send (RFC 6455 §7.4).
    CloseCode {
        /// The code as given.
        code: u16,
    },
    /// A key prefix that is empty, longer than 13 characters, or holds more than letters,
    /// digits and `_`.
    KeyPrefix {
        /// The prefix as given.
        prefix: String,
    },
    /// Two kinds of key with prefixes of which one begins with the other.
    AmbiguousKeyPrefix {
        /// The prefix as given.
        prefix: String,
    },
    /// A subprotocol, or the beginning of one, that is not a `token` (RFC 9110 §5.6.2).
    Subprotocol {
        /// The text as given.
        text: String,
    },
    /// A name that no header can have (RFC 9110 §5.1).
    HeaderName {
        /// The text as given.
        text: String,
    },
    /// An authentication scheme that is not a `token` (RFC 9110 §11.1).
    Scheme {
        /// The text as given.
        text: String,
    },
    /// A query parameter without a name.
    EmptyQueryName,
    /// A pepper of fewer than 32 bytes.
    ShortPepper,
    /// A key to sign with or to verify by that is not an Ed25519 key in PEM.
    SigningKey,
    /// A name of no algorithm that makes digests.
    UnknownAlgorithm {
        /// The name as given.
        name: String,
    },
    /// A path of a session setting with an empty name, an array's index or too many names.
    SettingPath {
        /// The path as given.
        path: String,
    },
    /// A range of lifetimes that is empty, or a default outside of it.
    Lifetime,
    /// A limit of failures by source, and nobody has said where the address of a client stands.
    NoClientAddress,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CloseCode { code } => write!(
                f,
                "close code {code} must not be sent: use 1000-1003, 1007-1014 or 3000-4999"
            ),
            Self::KeyPrefix { prefix } => {
                write!(f, "key prefix {prefix:?} must be 1 to 13 letters, digits or underscores")
            }
            Self::AmbiguousKeyPrefix { prefix } => {
                write!(f, "key prefix {prefix:?} cannot be told from another one")
            }
            Self::Subprotocol { text } => write!(
                f,
                "subprotocol {text:?} must be a token: letters, digits and !#$%&'*+-.^_`|~"
            ),
            Self::HeaderName { text } => write!(f, "{text:?} is not the name of a header"),
            Self::Scheme { text } => write!(f, "authentication scheme {text:?} must be a token"),
            Self::EmptyQueryName => write!(f, "a query parameter needs a name"),
            Self::ShortPepper => write!(f, "a pepper needs at least 32 random bytes"),
            Self::SigningKey => write!(f, "a signing key must be an Ed25519 key in PEM (PKCS#8)"),
            Self::UnknownAlgorithm { name } => {
                write!(f, "{name:?} makes no digests: use sha256, or hmac-sha256:VERSION")
            }
            Self::SettingPath { path } => write!(
                f,
                "{path:?} is no path of a setting: use names with dots between them, and lock \
                 arrays as a whole"
            ),
            Self::Lifetime => write!(
                f,
                "the shortest lifetime must be at least 1 s, and the default between the \
                 shortest and the longest"
            ),
            Self::NoClientAddress => write!(
                f,
                "failures are limited by where they come from: say by FailureLimit::with_address \
                 whether that is the connection or an entry of X-Forwarded-For"
            ),
        }
    }
}

impl std::error::Error for ConfigError {}
