//! `POST /v1/realtime/client_secrets` as a Tower service.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Either, select},
};
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tower_service::Service;

use super::{
    JsonBody, MAX_LIVE_TOKENS, MintError, request,
    response::{self, body_unread, method_not_allowed, no_principal, refused},
};
#[cfg(feature = "tokio")]
use crate::TokioRuntime;
use crate::{
    CredentialSource, Issued, KeyAdmin, KeyKind, Keys, Lifetimes, Principal, Profile, Runtime,
    StoreError,
};

/// The longest body that is read, in bytes.
const MAX_BODY_LEN: usize = 64 * 1024;
/// How long a body may take to arrive, and the store to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Mints tokens for browsers: the service behind `POST /v1/realtime/client_secrets`.
///
/// It takes the bodies that OpenAI's, xAI's and Swaram's clients send, and must stand behind
/// [`RealtimeAuthLayer`](crate::RealtimeAuthLayer), whose [`Principal`] is the one that mints.
///
/// | request | answer |
/// |---|---|
/// | `{}` or no body | a token for 60 s |
/// | `{"expires_after": {"seconds": 120}}` | a token for 120 s |
/// | `{"session": {"voice": "marin"}, "model": "m"}` | a token for `m` alone, with that voice locked |
/// | with an ephemeral key | 403 |
/// | with a secret key in the query or a subprotocol | 403: it would be in logs by now |
/// | with a field that is not what it should be | 400 that names the field |
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower::{Layer, ServiceExt};
/// use tower_realtime_auth::{
///     ClientSecrets, Keys, MemoryStore, NewKey, RealtimeAuthLayer,
///     http::{Request, StatusCode},
/// };
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
/// let mint = ClientSecrets::new(keys.clone());
/// let mint = RealtimeAuthLayer::new(keys).layer(mint);
///
/// let request = Request::post("/v1/realtime/client_secrets")
///     .header("authorization", format!("Bearer {}", issued.key().expose()))
///     .body(r#"{"expires_after": {"anchor": "created_at", "seconds": 600}}"#.to_owned())?;
/// let response = mint.clone().oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::OK);
///
/// let request = Request::post("/v1/realtime/client_secrets")
///     .header("authorization", format!("Bearer {}", issued.key().expose()))
///     .body(r#"{"expires_after": {"seconds": -1}}"#.to_owned())?;
/// let response = mint.oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::BAD_REQUEST);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct ClientSecrets<S> {
    keys: Keys<S>,
    profile: Profile,
    max_live_tokens: u32,
    runtime: Arc<dyn Runtime>,
}

impl<S: KeyAdmin> ClientSecrets<S> {
    /// Mints children of `keys`.
    #[cfg(feature = "tokio")]
    pub fn new(keys: impl Into<Keys<S>>) -> Self {
        Self::new_with_runtime(keys, TokioRuntime)
    }

    /// The same on a runtime other than tokio.
    pub fn new_with_runtime(keys: impl Into<Keys<S>>, runtime: impl Runtime) -> Self {
        Self {
            keys: keys.into(),
            profile: Profile::default(),
            max_live_tokens: MAX_LIVE_TOKENS,
            runtime: Arc::new(runtime),
        }
    }

    /// How long tokens may live. The default is [`Lifetimes::default`].
    pub fn with_lifetimes(self, lifetimes: Lifetimes) -> Self {
        Self { profile: self.profile.with_lifetimes(lifetimes), ..self }
    }

    /// Follows `profile`: its lifetimes, the fields that it takes, and the spellings of its
    /// settings.
    pub fn with_profile(self, profile: &Profile) -> Self {
        Self { profile: profile.clone(), ..self }
    }

    /// How many live tokens a key may have at once; past it, 429. The default is 10,000.
    pub fn with_max_live_tokens(self, max_live_tokens: u32) -> Self {
        Self { max_live_tokens, ..self }
    }

    /// Mints what the JSON `body` asks for, without HTTP.
    ///
    /// # Errors
    /// If the body is not what it should be, or as [`Keys::mint`].
    pub async fn mint(&self, parent: &Principal, body: &[u8]) -> Result<Issued, MintError> {
        may_mint(parent)?;
        if body.len() > MAX_BODY_LEN {
            return Err(MintError::BodyTooLong);
        }
        let token = request::read(body, &self.profile)?;
        let minted = self.keys.mint_within(parent, token, &self.profile, self.max_live_tokens);
        minted.await.map_err(|error| error.renamed(request::name_of))
    }

    async fn respond<B>(self, request: Request<B>) -> Response<JsonBody>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if request.method() != Method::POST {
            return method_not_allowed();
        }
        let Some(principal) = request.extensions().get::<Principal>().cloned() else {
            return no_principal();
        };
        // Before anything is read of the body, and said of it.
        if let Err(error) = may_mint(&principal) {
            return refused(&error);
        }
        let body = match self.read(request.into_body()).await {
            Ok(body) => body,
            Err(response) => return response,
        };
        // A panic of the store is an error of the store.
        let minting = pin!(AssertUnwindSafe(self.mint(&principal, &body)).catch_unwind());
        let minted = match select(minting, self.runtime.sleep(DEADLINE)).await {
            Either::Left((Ok(minted), _)) => minted,
            Either::Left((Err(_), _)) => Err(StoreError::new("the store panicked").into()),
            Either::Right(_) => Err(StoreError::new("no answer in time").into()),
        };
        minted.map_or_else(|error| refused(&error), |issued| response::minted(&issued))
    }

    async fn read<B>(&self, body: B) -> Result<Bytes, Response<JsonBody>>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let reading = pin!(Limited::new(body, MAX_BODY_LEN).collect());
        match select(reading, self.runtime.sleep(DEADLINE)).await {
            Either::Left((Ok(collected), _)) => {
                let mut body = collected.aggregate();
                Ok(body.copy_to_bytes(body.remaining()))
            }
            Either::Left((Err(error), _)) if error.is::<LengthLimitError>() => {
                Err(refused(&MintError::BodyTooLong))
            }
            Either::Left((Err(_), _)) | Either::Right(_) => Err(body_unread()),
        }
    }
}

/// Whether this is a secret key, sent as such a key should be.
fn may_mint(parent: &Principal) -> Result<(), MintError> {
    match (parent.kind(), parent.source()) {
        (KeyKind::Ephemeral, _) => Err(MintError::NotASecretKey),
        (KeyKind::Secret, CredentialSource::Header) => Ok(()),
        (KeyKind::Secret, elsewhere) => Err(MintError::NotInHeader(elsewhere)),
    }
}

impl<S, B> Service<Request<B>> for ClientSecrets<S>
where
    S: KeyAdmin,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<JsonBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let minting = self.clone().respond(request);
        Box::pin(async { Ok(minting.await) })
    }
}

impl<S> Clone for ClientSecrets<S> {
    fn clone(&self) -> Self {
        Self {
            keys: self.keys.clone(),
            profile: self.profile.clone(),
            max_live_tokens: self.max_live_tokens,
            runtime: Arc::clone(&self.runtime),
        }
    }
}

impl<S> fmt::Debug for ClientSecrets<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSecrets")
            .field("profile", &self.profile)
            .field("max_live_tokens", &self.max_live_tokens)
            .finish_non_exhaustive()
    }
}
