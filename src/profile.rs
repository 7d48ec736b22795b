//! How the clients of a provider speak: where their credentials stand and what they offer.

use std::sync::Arc;

use http::HeaderValue;

use crate::{ConfigError, handshake::is_token};

/// How the clients that come here speak.
///
/// The default takes what is safe to take together: `Authorization: Bearer`, then the query
/// parameter `api_key`, then a subprotocol `openai-insecure-api-key.KEY` (OpenAI, Swaram) or
/// `xai-client-secret.KEY` (xAI), and answers the subprotocol `realtime`.
///
/// ```
/// use tower_realtime_auth::Profile;
///
/// let profile = Profile::default()
///     .with_protocols(["realtime", "chat.v2"])?
///     .with_query_names(["api_key", "access_token"])?
///     .with_credential_prefixes(["openai-insecure-api-key.", "acme-key."])?;
/// assert!(Profile::default().with_protocols(["not a token"]).is_err());
/// # Ok::<(), tower_realtime_auth::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Profile {
    protocols: Arc<[HeaderValue]>,
    credential_prefixes: Arc<[Box<str>]>,
    #[cfg(feature = "close")]
    metadata_prefixes: Arc<[Box<str>]>,
    query_names: Arc<[Box<str>]>,
}

impl Default for Profile {
    fn default() -> Self {
        let boxed = |texts: &[&str]| texts.iter().map(|text| Box::from(*text)).collect();
        Self {
            protocols: Arc::new([HeaderValue::from_static("realtime")]),
            credential_prefixes: boxed(&["openai-insecure-api-key.", "xai-client-secret."]),
            #[cfg(feature = "close")]
            metadata_prefixes: boxed(&[
                "openai-organization.",
                "openai-project.",
                "openai-agents-sdk.",
            ]),
            query_names: boxed(&["api_key"]),
        }
    }
}

impl Profile {
    /// The subprotocols that the service speaks, the preferred one first. The first one that a
    /// client offers is selected.
    ///
    /// # Errors
    /// If one is not a `token` (RFC 6455 §4.1, RFC 9110 §5.6.2).
    pub fn with_protocols<'a>(
        self,
        protocols: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        let protocols = tokens(protocols)?;
        let values = protocols.iter().map(|protocol| {
            HeaderValue::from_str(protocol)
                .map_err(|_| ConfigError::Subprotocol { text: protocol.to_string() })
        });
        Ok(Self { protocols: values.collect::<Result<_, _>>()?, ..self })
    }

    /// What a subprotocol begins with whose rest is a credential. Case counts.
    ///
    /// # Errors
    /// If one is not a `token`, as a subprotocol must be.
    pub fn with_credential_prefixes<'a>(
        self,
        prefixes: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        // The longest first, so that a prefix of a prefix cannot shadow it.
        let mut prefixes = tokens(prefixes)?;
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        Ok(Self { credential_prefixes: prefixes.into(), ..self })
    }

    /// What a subprotocol begins with that says something about the client. It is selected only
    /// to close a refused handshake that offers nothing else.
    ///
    /// # Errors
    /// If one is not a `token`, as a subprotocol must be.
    #[cfg(feature = "close")]
    pub fn with_metadata_prefixes<'a>(
        self,
        prefixes: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        Ok(Self { metadata_prefixes: tokens(prefixes)?.into(), ..self })
    }

    /// The query parameters that carry a credential, in decoded form. None: no key in a query.
    ///
    /// # Errors
    /// If one is empty.
    pub fn with_query_names<'a>(
        self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        let names: Arc<[Box<str>]> = names.into_iter().map(Box::from).collect();
        if names.iter().any(|name| name.is_empty()) {
            return Err(ConfigError::EmptyQueryName);
        }
        Ok(Self { query_names: names, ..self })
    }

    pub(crate) fn protocols(&self) -> &[HeaderValue] {
        &self.protocols
    }

    /// The credential in a subprotocol entry, if it is of that form. It may be empty.
    pub(crate) fn credential_in<'a>(&self, entry: &'a [u8]) -> Option<&'a [u8]> {
        let mut prefixes = self.credential_prefixes.iter();
        prefixes.find_map(|prefix| entry.strip_prefix(prefix.as_bytes()))
    }

    #[cfg(feature = "close")]
    pub(crate) fn is_metadata(&self, entry: &[u8]) -> bool {
        self.metadata_prefixes.iter().any(|prefix| entry.starts_with(prefix.as_bytes()))
    }

    pub(crate) fn is_query_name(&self, name: &[u8]) -> bool {
        self.query_names.iter().any(|known| known.as_bytes() == name)
    }
}

fn tokens<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Box<str>>, ConfigError> {
    let checked = texts.into_iter().map(|text| {
        if is_token(text.as_bytes()) {
            Ok(Box::from(text))
        } else {
            Err(ConfigError::Subprotocol { text: text.into() })
        }
    });
    checked.collect()
}
