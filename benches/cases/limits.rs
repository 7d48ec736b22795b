//! Requests of keys with plans, to the auth layer alone and with the limit layer behind it.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use tower::{Layer, Service};
use tower_realtime_auth::{
    CredentialSource, FromBytes, Grants, Issued, Keys, LimitLayer, LimitService, MemoryLimits,
    MemoryStore, NewKey, NewToken, Plan, Principal, Profile, RealtimeAuth, RealtimeAuthLayer,
    UnixMillis,
    bytes::Bytes,
    http::{Request, Response, header},
};

use super::{Bare, Case, NoRuntime, layer};

/// What a request takes of its key's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// One of a minute's requests; the month's usage is read.
    Request,
    /// A handshake: a request, a new session, and one of the sessions at once.
    Session,
    /// The same as [`Self::Request`], of a token's plan and of its parent's.
    Token,
    /// A request of which none is left.
    Refused,
}

impl Limited {
    pub const ALL: [Self; 4] = [Self::Request, Self::Session, Self::Token, Self::Refused];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Session => "session",
            Self::Token => "token",
            Self::Refused => "refused",
        }
    }

    pub fn request(self, key: &str) -> Request<()> {
        let mut request = Case::Header.request(key);
        if self != Self::Session {
            for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_KEY] {
                request.headers_mut().remove(name);
            }
        }
        request
    }

    /// A store with `count` keys under plans that are never spent, but for the refused; their texts.
    pub fn keys(self, count: usize) -> (Keys<MemoryStore>, Vec<String>) {
        let keys = Keys::new(MemoryStore::new());
        let texts = (0..count).map(|_| self.issue(&keys).key().expose().to_owned()).collect();
        (keys, texts)
    }

    fn issue(self, keys: &Keys<MemoryStore>) -> Issued {
        let grants = Grants::default().with_plan(self.plan());
        let issued = keys.issue(NewKey::secret("acme").with_grants(grants.clone())).now_or_never();
        let issued = issued.expect("memory answers at once").expect("a key");
        if self != Self::Token {
            return issued;
        }
        let record = Arc::clone(issued.record());
        let parent = Principal::new(record, CredentialSource::Header, UnixMillis::new(0));
        let token = NewToken::lasting(Duration::from_secs(7_200)).with_grants(grants);
        keys.mint(&parent, token).now_or_never().expect("at once").expect("a token")
    }

    const fn plan(self) -> Plan {
        let plan = Plan::unbounded();
        match self {
            Self::Request | Self::Token => {
                plan.with_requests_per_minute(u32::MAX).with_usage_per_month(u64::MAX)
            }
            Self::Session => plan
                .with_requests_per_minute(u32::MAX)
                .with_sessions_per_minute(u32::MAX)
                .with_max_sessions(u32::MAX),
            Self::Refused => plan.with_requests_per_minute(0),
        }
    }
}

/// The auth layer round [`Holds`].
pub fn alone(keys: Keys<MemoryStore>) -> RealtimeAuth<Holds, MemoryStore> {
    auth(keys).layer(Holds)
}

/// The same with the limit layer between them.
pub fn limited(keys: Keys<MemoryStore>) -> RealtimeAuth<LimitService<Holds>, MemoryStore> {
    let limits = LimitLayer::new_with_runtime(MemoryLimits::new(), NoRuntime);
    auth(keys).layer(limits.layer(Holds))
}

/// With the headers that tell most.
fn auth(keys: Keys<MemoryStore>) -> RealtimeAuthLayer<MemoryStore, FromBytes> {
    layer(keys).with_profile(Profile::svara())
}

/// Answers as [`Bare`] does, and holds a session's place for as long as its answer lasts.
#[derive(Clone)]
pub struct Holds;

impl Service<Request<()>> for Holds {
    type Response = Response<Bytes>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Bytes>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        let principal = request.extensions_mut().remove::<Principal>().expect("a principal");
        let Ok(mut response) = Bare.call(request).into_inner();
        response.extensions_mut().insert(principal);
        ready(Ok(response))
    }
}
