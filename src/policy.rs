//! Which requests are judged at all, and how.

use std::{fmt, sync::Arc};

use http::{Method, Uri};

use crate::profile::Profile;

/// What a request needs to be let through.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http_body_util::Full;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_realtime_auth::{
///     Keys, MemoryStore, NewKey, Policy, RealtimeAuthLayer, bytes::Bytes,
///     http::{Request, Response},
/// };
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
/// let greet = service_fn(async |_: Request<()>| {
///     Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("hello"))))
/// });
/// let service = RealtimeAuthLayer::new(keys)
///     .with_policy(|_method, uri| match uri.path() {
///         "/" => Policy::Public,
///         "/models" => Policy::Optional,
///         _ => Policy::Protected,
///     })
///     .layer(greet);
///
/// let (good, bad) = (issued.key().expose(), "wrong");
/// for (path, key, status) in [
///     ("/", "", 200),
///     ("/", bad, 200),
///     ("/models", "", 200),
///     ("/models", bad, 401),
///     ("/v1/realtime", good, 200),
///     ("/v1/realtime", "", 401),
/// ] {
///     let mut request = Request::get(path).body(())?;
///     if !key.is_empty() {
///         request.headers_mut().insert("x-api-key", key.parse()?);
///     }
///     assert_eq!(service.clone().oneshot(request).await?.status(), status);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Policy {
    /// Nothing. The request goes on without a `Principal`, whatever it carries.
    Public,
    /// A good key or none: a bad key is refused, and so is any while the store is broken.
    Optional,
    /// A good key, as the layer's own profile says.
    Protected,
    /// A good key, as this profile says.
    ProtectedBy(Arc<Profile>),
}

/// Says for each request what it needs.
#[derive(Clone)]
pub(crate) struct Policies(Arc<Says>);

type Says = dyn Fn(&Method, &Uri) -> Policy + Send + Sync;

impl Policies {
    pub(crate) fn new(policy: impl Fn(&Method, &Uri) -> Policy + Send + Sync + 'static) -> Self {
        Self(Arc::new(policy))
    }

    pub(crate) fn of(&self, method: &Method, uri: &Uri) -> Policy {
        (self.0)(method, uri)
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policies(..)")
    }
}
