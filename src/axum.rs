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
/// use axum::{Router, routing::get};
/// use tower::Layer;
/// use tower_realtime_auth::{MemoryStore, Principal, RealtimeAuthLayer};
///
/// async fn whoami(principal: Principal) -> String {
///     principal.account().to_owned()
/// }
///
/// let api = Router::new().route("/whoami", get(whoami));
/// let app = RealtimeAuthLayer::new(MemoryStore::new()).layer(api);
/// # let _: tower_realtime_auth::RealtimeAuth<Router, MemoryStore> = app;
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
