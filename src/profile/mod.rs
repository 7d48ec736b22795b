//! How the clients of a provider speak: where their credentials stand and what they offer.

mod forms;
mod lifetimes;
mod mint_fields;
mod presets;

use std::{fmt, sync::Arc};

use http::HeaderValue;

use self::forms::tokens;
pub(crate) use self::forms::{Claimed, Form};
pub use self::{
    forms::{HeaderForm, SubprotocolForm},
    lifetimes::Lifetimes,
    mint_fields::MintFields,
};
#[cfg(feature = "limit")]
use crate::LimitHeaders;
#[cfg(feature = "session")]
use crate::SessionRules;
use crate::{ConfigError, Refusal, Rejection};

/// How the clients that come here speak.
///
/// The default takes what is safe to take together: a header `Authorization: Bearer KEY`,
/// `X-API-Key: KEY` (Decart) or `api-key: KEY` (Azure); then the query parameter `api_key`; then a
/// subprotocol `openai-insecure-api-key.KEY` (OpenAI, Swaram) or `xai-client-secret.KEY` (xAI). It
/// answers the subprotocol `realtime`.
///
/// Every part can be replaced. Three providers whose clients speak otherwise:
///
/// ```
/// use tower_realtime_auth::{HeaderForm, Profile, SubprotocolForm};
///
/// // Deepgram: `Authorization: Token KEY`, or the subprotocols `token` and then the key.
/// let deepgram = Profile::default()
///     .with_headers([HeaderForm::scheme("authorization", "Token")?, HeaderForm::bearer()])
///     .with_query_names([])?
///     .with_subprotocols([SubprotocolForm::after("token")?, SubprotocolForm::after("bearer")?])
///     .with_protocols(["token", "bearer"])?;
///
/// // Kubernetes: the key in base64url behind a prefix.
/// let kubernetes = Profile::default()
///     .with_subprotocols([SubprotocolForm::base64url("base64url.bearer.authorization.k8s.io.")?])
///     .with_protocols(["v5.channel.k8s.io", "v4.channel.k8s.io"])?;
///
/// // Gemini: `?key=` or `?access_token=`, or a header of its own.
/// let gemini = Profile::default()
///     .with_headers([HeaderForm::key("x-goog-api-key")?, HeaderForm::scheme("authorization", "Token")?])
///     .with_query_names(["key", "access_token"])?
///     .with_subprotocols([]);
///
/// assert!(Profile::default().with_protocols(["not a token"]).is_err());
/// # Ok::<(), tower_realtime_auth::ConfigError>(())
/// ```
///
/// A profile decides where a key counts:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http_body_util::Full;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_realtime_auth::{
///     Keys, MemoryStore, NewKey, Profile, RealtimeAuthLayer, bytes::Bytes,
///     http::{Request, Response},
/// };
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
/// let greet = service_fn(async |_: Request<()>| {
///     Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("hello"))))
/// });
///
/// let layer = RealtimeAuthLayer::new(keys);
/// for (profile, status) in [(Profile::decart(), 200), (Profile::openai(), 401)] {
///     let service = layer.clone().with_profile(profile).layer(greet);
///     let request = Request::builder().header("x-api-key", issued.key().expose()).body(())?;
///     assert_eq!(service.oneshot(request).await?.status(), status);
/// }
/// # Ok(())
/// # }
/// ```
///
/// More of it is in [the guide](crate::guide::profiles).
#[derive(Debug, Clone)]
pub struct Profile {
    headers: Arc<[HeaderForm]>,
    query_names: Arc<[Box<str>]>,
    subprotocols: Arc<[SubprotocolForm]>,
    protocols: Arc<[HeaderValue]>,
    #[cfg(feature = "close")]
    metadata_prefixes: Arc<[Box<str>]>,
    refusals: Refusals,
    lifetimes: Lifetimes,
    mint_fields: MintFields,
    #[cfg(feature = "limit")]
    limit_headers: LimitHeaders,
    #[cfg(feature = "session")]
    session_rules: Arc<SessionRules>,
}

/// Says what a refused client is told.
#[derive(Clone)]
struct Refusals(Arc<dyn Fn(&Rejection) -> Refusal + Send + Sync>);

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refusals(..)")
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            headers: [
                HeaderForm::bearer(),
                HeaderForm::known_key("x-api-key"),
                HeaderForm::known_key("api-key"),
            ]
            .into(),
            query_names: ["api_key".into()].into(),
            subprotocols: [
                SubprotocolForm::known_prefix("openai-insecure-api-key."),
                SubprotocolForm::known_prefix("xai-client-secret."),
            ]
            .into(),
            protocols: [HeaderValue::from_static("realtime")].into(),
            #[cfg(feature = "close")]
            metadata_prefixes: [
                "openai-organization.".into(),
                "openai-project.".into(),
                "openai-agents-sdk.".into(),
            ]
            .into(),
            refusals: Refusals(Arc::new(Refusal::of)),
            lifetimes: Lifetimes::default(),
            mint_fields: MintFields::default(),
            #[cfg(feature = "limit")]
            limit_headers: LimitHeaders::default(),
            #[cfg(feature = "session")]
            session_rules: Arc::default(),
        }
    }
}

impl Profile {
    /// The headers that carry a credential, and in what form. None: no key in a header.
    #[must_use]
    pub fn with_headers(self, forms: impl IntoIterator<Item = HeaderForm>) -> Self {
        Self { headers: forms.into_iter().collect(), ..self }
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

    /// The forms in which subprotocols carry a credential. The first that fits an entry counts.
    #[must_use]
    pub fn with_subprotocols(self, forms: impl IntoIterator<Item = SubprotocolForm>) -> Self {
        Self { subprotocols: forms.into_iter().collect(), ..self }
    }

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

    /// What refused clients are told. The default is [`Refusal::of`].
    #[must_use]
    pub fn with_refusal(
        self,
        refusal: impl Fn(&Rejection) -> Refusal + Send + Sync + 'static,
    ) -> Self {
        Self { refusals: Refusals(Arc::new(refusal)), ..self }
    }

    /// How long minted tokens may live. The default is [`Lifetimes::default`].
    #[must_use]
    pub fn with_lifetimes(self, lifetimes: Lifetimes) -> Self {
        Self { lifetimes, ..self }
    }

    /// How long minted tokens may live.
    #[must_use]
    pub const fn lifetimes(&self) -> &Lifetimes {
        &self.lifetimes
    }

    /// Which fields a request to mint may have. The default is [`MintFields::any`].
    #[must_use]
    pub fn with_mint_fields(self, mint_fields: MintFields) -> Self {
        Self { mint_fields, ..self }
    }

    /// Which fields a request to mint may have.
    #[must_use]
    pub const fn mint_fields(&self) -> &MintFields {
        &self.mint_fields
    }

    /// By which headers answers tell how much is left. The default is [`LimitHeaders::Svara`],
    /// whose names are the usual ones.
    #[cfg(feature = "limit")]
    #[must_use]
    pub fn with_limit_headers(self, limit_headers: LimitHeaders) -> Self {
        Self { limit_headers, ..self }
    }

    /// By which headers answers tell how much is left.
    #[cfg(feature = "limit")]
    #[must_use]
    pub const fn limit_headers(&self) -> LimitHeaders {
        self.limit_headers
    }

    /// What clients may send in a session. The default is [`SessionRules::default`].
    #[cfg(feature = "session")]
    #[must_use]
    pub fn with_session_rules(self, rules: SessionRules) -> Self {
        Self { session_rules: Arc::new(rules), ..self }
    }

    /// What clients may send in a session.
    #[cfg(feature = "session")]
    #[must_use]
    pub const fn session_rules(&self) -> &Arc<SessionRules> {
        &self.session_rules
    }

    /// What the client of a request refused for this reason is told.
    #[must_use]
    pub fn refusal(&self, rejection: &Rejection) -> Refusal {
        (self.refusals.0)(rejection)
    }

    pub(crate) fn headers(&self) -> &[HeaderForm] {
        &self.headers
    }

    pub(crate) fn is_query_name(&self, name: &[u8]) -> bool {
        self.query_names.iter().any(|known| known.as_bytes() == name)
    }

    pub(crate) fn subprotocols(&self) -> &[SubprotocolForm] {
        &self.subprotocols
    }

    pub(crate) fn protocols(&self) -> &[HeaderValue] {
        &self.protocols
    }

    #[cfg(feature = "close")]
    pub(crate) fn is_metadata(&self, entry: &[u8]) -> bool {
        self.metadata_prefixes.iter().any(|prefix| entry.starts_with(prefix.as_bytes()))
    }
}
