//! Which requests are judged at all, and how.

use std::{fmt, sync::Arc};

use http::{Method, Uri};

use crate::profile::Profile;

/// What a request needs to be let through.
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
