//! Minting: a secret key makes an ephemeral one that may do no more than itself.

mod checks;
mod client_secrets;
mod client_tokens;
mod endpoint;
mod iso8601;
mod origin;
mod request;
mod response;
mod sessions;
mod settings;
mod shape;

use std::{fmt, time::Duration};

pub use self::{
    client_secrets::ClientSecrets,
    client_tokens::ClientTokens,
    endpoint::MintEndpoint,
    response::JsonBody,
    sessions::{RealtimeSessions, TranscriptionSessions},
};
use crate::{
    CredentialSource, Grants, Inserted, InvalidKey, Issued, KeyAdmin, KeyError, KeyKind, Keys,
    Lifetimes, Parent, Principal, Profile, SessionRules, StoreError, event,
};

/// How many live tokens a key may have unless told otherwise.
const MAX_LIVE_TOKENS: u32 = 10_000;

/// What a token to mint is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// `None`: the default, or what is left of the parent's lifetime if that is less.
    lifetime: Option<Duration>,
    grants: Grants,
}

impl NewToken {
    /// A token that lives for `lifetime` and may do what its parent may.
    #[must_use]
    pub fn lasting(lifetime: Duration) -> Self {
        Self { lifetime: Some(lifetime), grants: Grants::default() }
    }

    /// The same with these grants. What they leave out is inherited, and none may be more than the
    /// parent's. Refused, by name, is also what no token can have:
    ///
    /// | grant | of a token |
    /// |---|---|
    /// | models, origins | 1 to 20, each of 1 to 256 bytes; origins as browsers write them |
    /// | uses | 1 to 1,000,000 |
    /// | max_session | 10 seconds or more |
    /// | metadata | at most 16 pairs, names of 64 bytes, values of 512 |
    #[must_use]
    pub fn with_grants(self, grants: Grants) -> Self {
        Self { grants, ..self }
    }
}

/// What bounds tokens beside their parent.
struct Bounds<'a> {
    lifetimes: &'a Lifetimes,
    /// How settings are spelled.
    rules: &'a SessionRules,
    /// How many live tokens the parent may have.
    max_live: u32,
    /// Whether a token gets a signed twin, if its keys have a signer.
    twin: bool,
}

/// Why no token was minted.
#[derive(Debug)]
#[non_exhaustive]
pub enum MintError {
    /// Only a secret key mints.
    NotASecretKey,
    /// The secret key stood in the query or in a subprotocol, where logs and browsers keep it. It
    /// belongs in a header, sent by a server.
    NotInHeader(CredentialSource),
    /// The request is not JSON, or one of its fields is not what it should be.
    Invalid {
        /// The field, as a dotted path. `None`: the body as a whole.
        field: Option<String>,
        /// What would be right.
        message: String,
    },
    /// The body is longer than 64 KiB.
    BodyTooLong,
    /// The request has a field that the profile does not take
    /// ([`MintFields`](crate::MintFields)).
    Unknown {
        /// The field, as a dotted path.
        field: String,
    },
    /// The token would get more than its parent has.
    ExceedsParent {
        /// The field, as a dotted path.
        field: String,
        /// What the parent has.
        message: String,
    },
    /// The signed twin of the token would be longer than
    /// [`MAX_CREDENTIAL_LEN`](crate::MAX_CREDENTIAL_LEN).
    TwinTooLong,
    /// The parent has as many live tokens as it may have.
    TooManyTokens,
    /// The parent was revoked or has expired while the token was being minted.
    ParentGone,
    /// The store could not answer.
    Store(StoreError),
    /// The operating system gave no random numbers.
    Random,
}

impl MintError {
    fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: Some(field.into()), message: message.into() }
    }

    fn exceeds(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::ExceedsParent { field: field.into(), message: message.into() }
    }

    /// The same, with the field by another name.
    fn renamed(mut self, name: impl FnOnce(&str) -> String) -> Self {
        if let Self::Invalid { field: Some(field), .. }
        | Self::Unknown { field }
        | Self::ExceedsParent { field, .. } = &mut self
        {
            *field = name(field);
        }
        self
    }
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASecretKey => f.write_str("An ephemeral key cannot mint. Use a secret key."),
            Self::NotInHeader(source) => write!(
                f,
                "A secret key in the {source} mints nothing. Send it in a header, from a server."
            ),
            Self::Invalid { field: Some(field), message }
            | Self::ExceedsParent { field, message } => {
                write!(f, "Invalid value for '{field}': {message}")
            }
            Self::Invalid { field: None, message } => f.write_str(message),
            Self::BodyTooLong => f.write_str("The body must be at most 64 KiB long."),
            Self::Unknown { field } => write!(f, "Unknown parameter: '{field}'."),
            Self::TwinTooLong => f.write_str(
                "The signed token would be longer than 4096 bytes. Ask for fewer or shorter \
                 models, origins or metadata.",
            ),
            Self::TooManyTokens => {
                f.write_str("The key has too many live tokens. Wait for some to expire.")
            }
            Self::ParentGone => f.write_str("The API key is unknown, expired or revoked."),
            Self::Store(_) => f.write_str("The token could not be stored. Try again shortly."),
            Self::Random => f.write_str("The token could not be made. Try again shortly."),
        }
    }
}

impl std::error::Error for MintError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

impl From<StoreError> for MintError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl<S: KeyAdmin> Keys<S> {
    /// Mints an ephemeral key that may do no more than `parent`.
    ///
    /// # Errors
    /// If `parent` is not a secret key or is gone, the token would exceed it, its signed twin would
    /// be too long, or the store cannot answer.
    pub async fn mint(&self, parent: &Principal, token: NewToken) -> Result<Issued, MintError> {
        let profile = Profile::default();
        let bounds = Bounds {
            lifetimes: profile.lifetimes(),
            rules: profile.session_rules(),
            max_live: MAX_LIVE_TOKENS,
            twin: true,
        };
        self.mint_within(parent, token, bounds).await
    }

    #[cfg(not(feature = "jwt"))]
    fn twin(&self, _: &crate::KeyRecord) -> Result<Option<crate::ApiKey>, KeyError> {
        Ok(None)
    }

    async fn mint_within(
        &self,
        parent: &Principal,
        token: NewToken,
        bounds: Bounds<'_>,
    ) -> Result<Issued, MintError> {
        if parent.kind() != KeyKind::Secret {
            return Err(MintError::NotASecretKey);
        }
        let grants = checks::subset(parent.grants(), &token.grants, bounds.rules)?;
        let key = self.generate(KeyKind::Ephemeral, parent.environment()).map_err(from_key)?;
        let record = self
            .new_record(&key, parent.record().account().clone(), KeyKind::Ephemeral)
            .map_err(from_key)?;
        let now = record.created_at();
        let left = parent.record().remaining(now);
        let lifetime = checks::lifetime(token.lifetime, bounds.lifetimes, left)?;
        let record = record
            .with_environment(parent.environment())
            .with_parent(Some(Parent::of(parent.record())))
            .with_expires_at(Some(now.saturating_add(lifetime)))
            .with_grants(grants);
        let twin = if bounds.twin { self.twin(&record).map_err(from_key)? } else { None };

        let stamp = self.stamp();
        match self.store().insert(record.clone(), Some(bounds.max_live), &stamp).await? {
            Inserted::Yes => {}
            Inserted::TooManyChildren => return Err(MintError::TooManyTokens),
            // 196 random bits do not meet by chance.
            Inserted::Taken => return Err(MintError::Random),
        }
        // A parent that was revoked after it let this request in must leave no child behind: what
        // its revocation missed is seen here, and what comes later reaches the child.
        let parent_now = self.store().find(parent.key_id()).await?;
        let lives = |key: &crate::KeyRecord| !key.is_revoked() && !key.is_expired(self.now());
        if !parent_now.as_deref().is_some_and(lives) {
            self.revoke(record.id()).await?;
            return Err(MintError::ParentGone);
        }
        event::minted(&record);
        Ok(Issued::new(key, record.into(), twin))
    }
}

fn from_key(error: KeyError) -> MintError {
    match error {
        KeyError::Store(error) => MintError::Store(error),
        KeyError::Invalid(InvalidKey::TooLong) => MintError::TwinTooLong,
        _ => MintError::Random,
    }
}
