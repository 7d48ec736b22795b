//! The forms in which a header or a subprotocol carries a key.

use http::{HeaderName, HeaderValue, header::AUTHORIZATION};

use crate::{ConfigError, handshake::is_token};

/// A header that carries a key: behind a scheme, or by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderForm {
    name: HeaderName,
    scheme: Option<Box<str>>,
}

impl HeaderForm {
    /// `Authorization: Bearer KEY` (RFC 6750 §2.1).
    #[must_use]
    pub fn bearer() -> Self {
        Self { name: AUTHORIZATION, scheme: Some("Bearer".into()) }
    }

    /// `NAME: SCHEME KEY` (RFC 9110 §11.4). The case of the scheme does not count.
    ///
    /// # Errors
    /// If `name` is no header name or `scheme` is no `token`.
    pub fn scheme(name: &str, scheme: &str) -> Result<Self, ConfigError> {
        if !is_token(scheme.as_bytes()) {
            return Err(ConfigError::Scheme { text: scheme.into() });
        }
        Ok(Self { scheme: Some(scheme.into()), ..Self::key(name)? })
    }

    /// `NAME: KEY`. In `Authorization`, a value with a space is of some scheme and not a key.
    ///
    /// # Errors
    /// If `name` is no header name.
    pub fn key(name: &str) -> Result<Self, ConfigError> {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| ConfigError::HeaderName { text: name.into() })?;
        Ok(Self { name, scheme: None })
    }

    pub(super) const fn known_key(name: &'static str) -> Self {
        Self { name: HeaderName::from_static(name), scheme: None }
    }

    pub(crate) const fn name(&self) -> &HeaderName {
        &self.name
    }

    /// What stands in `value` in the place of a key, if it is of this form.
    pub(crate) fn credential_in<'v>(&self, value: &'v HeaderValue) -> Option<Claimed<'v>> {
        // HTTP/1 trims a value (RFC 9110 §5.5); not everybody who makes a request does.
        let value = value.as_bytes().trim_ascii();
        match &self.scheme {
            Some(scheme) => behind_scheme(scheme.as_bytes(), value),
            None if self.name == AUTHORIZATION && value.contains(&b' ') => None,
            None => Some(Claimed::Text(value)),
        }
    }
}

/// What a header line holds that is of a form for credentials.
pub(crate) enum Claimed<'v> {
    /// A text that may be a key, or empty.
    Text(&'v [u8]),
    /// A scheme that is not followed as it should be.
    Malformed,
}

fn behind_scheme<'v>(scheme: &[u8], value: &'v [u8]) -> Option<Claimed<'v>> {
    let (given, rest) = value.split_at_checked(scheme.len())?;
    // Most clients write it as it is written here.
    if given != scheme && !given.eq_ignore_ascii_case(scheme) {
        return None;
    }
    match rest.first() {
        // RFC 9110 §11.4 puts spaces there, as many as one likes.
        None | Some(b' ') => {
            let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
            Some(Claimed::Text(rest.get(spaces..).unwrap_or_default()))
        }
        // A tab is a mistake, not another scheme.
        Some(b'\t') => Some(Claimed::Malformed),
        Some(_) => None,
    }
}

/// A subprotocol entry that carries a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubprotocolForm(pub(crate) Form);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    Prefix(Box<str>),
    Base64Url(Box<str>),
    After(Box<str>),
    Beginning(Box<str>),
}

impl SubprotocolForm {
    /// `PREFIX` and then the key, in one entry (OpenAI, xAI). Case counts, as in all forms.
    ///
    /// # Errors
    /// If `prefix` is not a `token`, as a subprotocol must be (RFC 6455 §4.1).
    pub fn prefix(prefix: &str) -> Result<Self, ConfigError> {
        token(prefix).map(Form::Prefix).map(Self)
    }

    /// `PREFIX` and then the key in base64url without padding, in one entry (Kubernetes).
    ///
    /// # Errors
    /// As [`SubprotocolForm::prefix`].
    pub fn base64url(prefix: &str) -> Result<Self, ConfigError> {
        token(prefix).map(Form::Base64Url).map(Self)
    }

    /// The key as the entry that follows the entry `marker` (Deepgram).
    ///
    /// # Errors
    /// As [`SubprotocolForm::prefix`].
    pub fn after(marker: &str) -> Result<Self, ConfigError> {
        token(marker).map(Form::After).map(Self)
    }

    /// The key as an entry of its own, known by how keys begin (Mistral's `rt_`).
    ///
    /// # Errors
    /// As [`SubprotocolForm::prefix`].
    pub fn beginning(with: &str) -> Result<Self, ConfigError> {
        token(with).map(Form::Beginning).map(Self)
    }

    pub(super) fn known_prefix(prefix: &'static str) -> Self {
        Self(Form::Prefix(prefix.into()))
    }
}

pub(super) fn tokens<'a>(
    texts: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<Box<str>>, ConfigError> {
    texts.into_iter().map(token).collect()
}

fn token(text: &str) -> Result<Box<str>, ConfigError> {
    if is_token(text.as_bytes()) {
        Ok(text.into())
    } else {
        Err(ConfigError::Subprotocol { text: text.into() })
    }
}
