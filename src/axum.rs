//! [`Principal`] as an axum extractor.

use std::fmt;

use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use crate::Principal;

/// Extracts who is calling.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, body::Body, routing::any};
/// use tower::{Layer, ServiceExt};
/// use tower_realtime_auth::{
///     Keys, MemoryStore, NewKey, Principal, RealtimeAuthLayer, http::Request,
/// };
///
/// async fn whoami(principal: Principal) -> String {
///     principal.account().to_owned()
/// }
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
/// let api = Router::new().route("/whoami", any(whoami));
/// let app = RealtimeAuthLayer::new(keys).layer(api);
///
/// for (key, status) in [(issued.key().expose(), 200), ("wrong", 401)] {
///     let request = Request::get("/whoami").header("x-api-key", key).body(Body::empty())?;
///     assert_eq!(app.clone().oneshot(request).await?.status(), status);
/// }
/// # Ok(())
/// # }
/// ```
impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = MissingPrincipal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get().cloned().ok_or(MissingPrincipal)
    }
}

/// Extracts who is calling where that may be nobody.
impl<S: Sync> OptionalFromRequestParts<S> for Principal {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get().cloned())
    }
}

/// A handler asks for a [`Principal`], but no layer put one there: answered with 500.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingPrincipal;

impl fmt::Display for MissingPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no Principal in the request: put RealtimeAuthLayer round the router")
    }
}

impl std::error::Error for MissingPrincipal {}

impl IntoResponse for MissingPrincipal {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}
