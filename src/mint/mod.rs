//! Minting: a secret key makes an ephemeral one that may do no more than itself.

mod client_secrets;
mod request;
mod response;

use std::{fmt, sync::Arc, time::Duration};

pub use self::{client_secrets::ClientSecrets, response::JsonBody};
use crate::{
    Grants, Inserted, Issued, KeyAdmin, KeyError, KeyKind, Keys, Lifetimes, Lock, Parent,
    Principal, Profile, SessionRules, Settings, StoreError, UnixMillis, event, session::Held,
};

/// How many live tokens a key may have unless told otherwise.
const MAX_LIVE_TOKENS: u32 = 10_000;
/// The shortest bound on sessions that a token can be minted with (Decart's).
const MIN_MAX_SESSION: Duration = Duration::from_secs(10);

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

    /// The same with these grants. What they leave out is inherited. A
    /// [`max_session`](Grants::max_session) under 10 seconds is refused.
    #[must_use]
    pub fn with_grants(self, grants: Grants) -> Self {
        Self { grants, ..self }
    }
}

/// Why no token was minted.
#[derive(Debug)]
#[non_exhaustive]
pub enum MintError {
    /// Only a secret key mints.
    NotASecretKey,
    /// The request is not JSON, or one of its fields is not what it should be.
    Invalid {
        /// The field, as a dotted path. `None`: the body as a whole.
        field: Option<String>,
        /// What would be right.
        message: String,
    },
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
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASecretKey => f.write_str("An ephemeral key cannot mint. Use a secret key."),
            Self::Invalid { field: Some(field), message }
            | Self::ExceedsParent { field, message } => {
                write!(f, "Invalid value for '{field}': {message}")
            }
            Self::Invalid { field: None, message } => f.write_str(message),
            Self::Unknown { field } => write!(f, "Unknown parameter: '{field}'."),
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
    /// If `parent` is not a secret key or is gone, the token would exceed it, or the store cannot
    /// answer.
    pub async fn mint(&self, parent: &Principal, token: NewToken) -> Result<Issued, MintError> {
        self.mint_within(parent, token, &Profile::default(), MAX_LIVE_TOKENS).await
    }

    async fn mint_within(
        &self,
        parent: &Principal,
        token: NewToken,
        profile: &Profile,
        max_live: u32,
    ) -> Result<Issued, MintError> {
        if parent.kind() != KeyKind::Secret {
            return Err(MintError::NotASecretKey);
        }
        let grants = subset(parent.grants(), &token.grants, profile.session_rules())?;
        let key = self.generate(KeyKind::Ephemeral, parent.environment()).map_err(from_key)?;
        let record = self
            .new_record(&key, parent.record().account().clone(), KeyKind::Ephemeral)
            .map_err(from_key)?;
        let now = record.created_at();
        let lifetime = lifetime(token.lifetime, profile.lifetimes(), parent, now)?;
        let record = record
            .with_environment(parent.environment())
            .with_parent(Some(Parent::new(parent.key_id().clone())))
            .with_expires_at(Some(now.saturating_add(lifetime)))
            .with_grants(grants);

        match self.store().insert(record.clone(), Some(max_live)).await? {
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
        Ok(Issued::new(key, record.into()))
    }
}

fn from_key(error: KeyError) -> MintError {
    match error {
        KeyError::Store(error) => MintError::Store(error),
        KeyError::Random | KeyError::Taken | KeyError::Invalid(_) => MintError::Random,
    }
}

/// The lifetime of a token asked for now.
fn lifetime(
    asked: Option<Duration>,
    lifetimes: &Lifetimes,
    parent: &Principal,
    now: UnixMillis,
) -> Result<Duration, MintError> {
    const FIELD: &str = "expires_after.seconds";
    let left = parent.record().remaining(now).unwrap_or(Duration::MAX);
    let Some(asked) = asked else { return Ok(lifetimes.default_lifetime().min(left)) };
    if !lifetimes.range().contains(&asked) {
        let (min, max) = (lifetimes.range().start().as_secs(), lifetimes.range().end().as_secs());
        return Err(MintError::invalid(FIELD, format!("must be from {min} to {max}")));
    }
    if asked > left {
        return Err(MintError::ExceedsParent {
            field: FIELD.to_owned(),
            message: format!("the key that mints lives {} more seconds", left.as_secs()),
        });
    }
    Ok(asked)
}

/// What the child gets: what it asks for, and what the parent has where it asks for nothing.
fn subset(parent: &Grants, asked: &Grants, rules: &SessionRules) -> Result<Grants, MintError> {
    let mut grants = Grants::default();
    if let Some(models) = sublist("model", asked.models(), parent.models())? {
        grants = grants.with_models(models.iter().cloned());
    }
    if let Some(origins) = sublist("origin", asked.origins(), parent.origins())? {
        grants = grants.with_origins(origins.iter().cloned());
    }
    match (asked.uses(), parent.uses()) {
        (Some(asked), Some(of_parent)) if asked > of_parent => {
            let message = format!("the key that mints has {of_parent}");
            return Err(MintError::ExceedsParent { field: "uses".to_owned(), message });
        }
        (asked, of_parent) => {
            if let Some(uses) = asked.or(of_parent) {
                grants = grants.with_uses(uses);
            }
        }
    }
    if let Some(max) = max_session(asked.max_session(), parent.max_session())? {
        grants = grants.with_max_session(max);
    }
    if let Some(session) = settings(asked, parent, rules)? {
        grants = grants.with_session(session);
    }
    if let Some(lock) = lock(asked, parent, rules) {
        grants = grants.with_lock(lock);
    }
    Ok(grants)
}

/// The bound on sessions that the child asks for, no looser than the parent's; else the parent's.
fn max_session(
    asked: Option<Duration>,
    of_parent: Option<Duration>,
) -> Result<Option<Duration>, MintError> {
    const FIELD: &str = "max_session_duration";
    let Some(asked) = asked else { return Ok(of_parent) };
    if let Some(of_parent) = of_parent.filter(|of_parent| asked > *of_parent) {
        let message = format!("the key that mints has {} seconds", of_parent.as_secs());
        return Err(MintError::ExceedsParent { field: FIELD.to_owned(), message });
    }
    if asked < MIN_MAX_SESSION {
        let message = format!("must be at least {} seconds", MIN_MAX_SESSION.as_secs());
        return Err(MintError::invalid(FIELD, message));
    }
    Ok(Some(asked))
}

/// The entries that the child asks for, all of them the parent's; else the parent's.
fn sublist<'a>(
    field: &str,
    asked: Option<&'a [Arc<str>]>,
    of_parent: Option<&'a [Arc<str>]>,
) -> Result<Option<&'a [Arc<str>]>, MintError> {
    if let (Some(asked), Some(of_parent)) = (asked, of_parent)
        && asked.iter().any(|entry| !of_parent.contains(entry))
    {
        return Err(not_allowed(field, field));
    }
    Ok(asked.or(of_parent))
}

fn not_allowed(field: &str, what: &str) -> MintError {
    let message = format!("the key that mints does not allow this {what}");
    MintError::ExceedsParent { field: field.to_owned(), message }
}

/// The parent's settings, and the child's where the parent has locked none.
fn settings(
    asked: &Grants,
    parent: &Grants,
    rules: &SessionRules,
) -> Result<Option<Settings>, MintError> {
    let Some(asked) = asked.session() else { return Ok(parent.session().cloned()) };
    let nothing = Lock::nothing();
    let models = Held { models: parent.models(), ..Held::of(None, &nothing, rules) };
    if let Some(path) = changed(&models, asked) {
        return Err(not_allowed(&format!("session.{path}"), "model"));
    }
    let Some(of_parent) = parent.session() else { return Ok(Some(asked.clone())) };
    let lock = parent.lock().cloned().unwrap_or_default();
    if let Some(path) = changed(&Held::of(Some(of_parent), &lock, rules), asked) {
        return Err(MintError::ExceedsParent {
            field: format!("session.{path}"),
            message: "the key that mints has locked it to another value".to_owned(),
        });
    }
    Ok(Some(of_parent.updated_by(asked.as_map(), rules)))
}

/// The path of a setting that `held` would not let through.
fn changed(held: &Held<'_>, asked: &Settings) -> Option<String> {
    held.filter(&mut asked.as_map().clone()).kept.into_iter().next()
}

/// All that the parent locks, and all that the child asks to lock.
fn lock(asked: &Grants, parent: &Grants, rules: &SessionRules) -> Option<Lock> {
    let of_parent = parent.lock().cloned().unwrap_or_default();
    match asked.lock() {
        None => parent.lock().cloned(),
        Some(asked) if Held::of(parent.session(), &of_parent, rules).is_nothing() => {
            Some(asked.clone())
        }
        Some(asked) => Some(asked.clone().with_parent(&of_parent)),
    }
}
