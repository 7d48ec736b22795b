//! A mint endpoint as a Tower service, whatever its shape.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    marker::PhantomData,
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
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tower_service::Service;

use super::{
    Bounds, MAX_LIVE_TOKENS, MintError,
    response::{Fault, JsonBody, respond},
    shape::Shape,
};
#[cfg(feature = "tokio")]
use crate::TokioRuntime;
use crate::{
    CredentialSource, Issued, KeyAdmin, KeyKind, Keys, Lifetimes, Principal, Profile, Runtime,
    StoreError, event,
};

/// The longest body that is read, in bytes.
const MAX_BODY_LEN: usize = 64 * 1024;
/// How long a body may take to arrive, and the store to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Mints tokens for browsers: the service behind a mint endpoint, in one of these shapes.
///
/// | name | behind | of |
/// |---|---|---|
/// | [`ClientSecrets`](crate::ClientSecrets) | `POST /v1/realtime/client_secrets` | OpenAI, xAI, Swaram |
/// | [`ClientTokens`](crate::ClientTokens) | `POST /v1/client/tokens` | Decart |
/// | [`RealtimeSessions`](crate::RealtimeSessions) | `POST /v1/realtime/sessions` | OpenAI, older |
/// | [`TranscriptionSessions`](crate::TranscriptionSessions) | `POST /v1/realtime/transcription_sessions` | OpenAI, older |
///
/// It must stand behind [`RealtimeAuthLayer`](crate::RealtimeAuthLayer), whose [`Principal`] is the
/// one that mints.
#[must_use]
pub struct MintEndpoint<S, F> {
    keys: Keys<S>,
    profile: Profile,
    lifetimes: Lifetimes,
    max_live_tokens: u32,
    runtime: Arc<dyn Runtime>,
    shape: PhantomData<fn() -> F>,
}

impl<S: KeyAdmin, F: Shape> MintEndpoint<S, F> {
    /// Mints children of `keys`.
    #[cfg(feature = "tokio")]
    pub fn new(keys: impl Into<Keys<S>>) -> Self {
        Self::new_with_runtime(keys, TokioRuntime)
    }

    /// The same on a runtime other than tokio.
    pub fn new_with_runtime(keys: impl Into<Keys<S>>, runtime: impl Runtime) -> Self {
        let profile = F::profile();
        Self {
            keys: keys.into(),
            lifetimes: F::lifetimes(&profile),
            profile,
            max_live_tokens: MAX_LIVE_TOKENS,
            runtime: Arc::new(runtime),
            shape: PhantomData,
        }
    }

    /// How long tokens may live, whatever the profile and the shape have for it.
    pub fn with_lifetimes(self, lifetimes: Lifetimes) -> Self {
        Self { lifetimes, ..self }
    }

    /// Follows `profile`: its lifetimes, the fields that it takes, and the spellings of its
    /// settings; of these, what the shape leaves open.
    pub fn with_profile(self, profile: &Profile) -> Self {
        Self { profile: profile.clone(), lifetimes: F::lifetimes(profile), ..self }
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
        let token = F::read(body, &self.profile)?;
        let bounds = Bounds {
            lifetimes: &self.lifetimes,
            rules: self.profile.session_rules(),
            max_live: self.max_live_tokens,
            twin: F::ANSWERS_TWIN,
        };
        let minted = self.keys.mint_within(parent, token, bounds).await;
        minted.map_err(|error| error.renamed(F::name_of))
    }

    async fn answer<B>(self, request: Request<B>) -> Response<JsonBody>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        match self.mint_for(request).await {
            Ok(issued) => respond(StatusCode::OK, F::minted(&issued)),
            Err(fault) => {
                let mut response = respond(F::status(&fault), F::refused(&fault));
                fault.add_headers(response.headers_mut());
                response
            }
        }
    }

    async fn mint_for<B>(&self, request: Request<B>) -> Result<Issued, Fault>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if request.method() != Method::POST {
            return Err(Fault::method_not_allowed());
        }
        let principal = request.extensions().get::<Principal>().cloned();
        let principal = principal.ok_or_else(|| Fault::no_principal(F::NAME))?;
        // Before anything is read of the body, and said of it.
        may_mint(&principal)?;
        let body = self.read(request.into_body()).await?;
        // A panic of the store is an error of the store.
        let minting = pin!(AssertUnwindSafe(self.mint(&principal, &body)).catch_unwind());
        let minted = match select(minting, self.runtime.sleep(DEADLINE)).await {
            Either::Left((Ok(minted), _)) => minted,
            Either::Left((Err(_), _)) => Err(StoreError::new("the store panicked").into()),
            Either::Right(_) => Err(StoreError::new("no answer in time").into()),
        };
        if let Err(MintError::Store(error)) = &minted {
            event::store_failed(error);
        }
        Ok(minted?)
    }

    async fn read<B>(&self, body: B) -> Result<Bytes, Fault>
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
                Err(MintError::BodyTooLong.into())
            }
            Either::Left((Err(_), _)) | Either::Right(_) => Err(Fault::body_unread()),
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

impl<S, F, B> Service<Request<B>> for MintEndpoint<S, F>
where
    S: KeyAdmin,
    F: Shape,
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
        let minting = self.clone().answer(request);
        Box::pin(async { Ok(minting.await) })
    }
}

impl<S, F> Clone for MintEndpoint<S, F> {
    fn clone(&self) -> Self {
        Self {
            keys: self.keys.clone(),
            profile: self.profile.clone(),
            lifetimes: self.lifetimes.clone(),
            max_live_tokens: self.max_live_tokens,
            runtime: Arc::clone(&self.runtime),
            shape: PhantomData,
        }
    }
}

impl<S, F: Shape> fmt::Debug for MintEndpoint<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(F::NAME)
            .field("profile", &self.profile)
            .field("lifetimes", &self.lifetimes)
            .field("max_live_tokens", &self.max_live_tokens)
            .finish_non_exhaustive()
    }
}
