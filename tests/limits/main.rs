//! Limits: exact under load, in one step or not at all, told as they are, and never stuck.

mod contract;
mod counting;
mod door;
mod headers;
mod model;
mod plan;
mod sessions;
mod sockets;
#[path = "../support/mod.rs"]
mod support;
mod usage;

use std::{convert::Infallible, future::Ready, sync::Arc};

use futures_util::FutureExt;
use support::{Body, Inner, plain_with, upgraded};
use tower::{Layer, Service, ServiceExt};
use tower_realtime_auth::{
    CredentialSource, Grants, Issued, KeyId, KeyRecord, Keys, LimitLayer, LimitService,
    ManualClock, MemoryStore, NewKey, Plan, Principal, Rejection, RejectionKind, UnixMillis,
    http::{Request, Response},
};

/// The first millisecond of a minute.
const NOON: UnixMillis = UnixMillis::new(1_782_907_200_000);

/// A key of `acme` with this plan, and its record.
async fn issue(keys: &Keys<MemoryStore>, plan: Plan) -> Issued {
    let grants = Grants::default().with_plan(plan);
    keys.issue(NewKey::secret("acme").with_grants(grants)).await.expect("a key")
}

/// The record of a key of `acme` with this plan.
fn record(plan: Plan) -> Arc<KeyRecord> {
    let keys = Keys::new(MemoryStore::new());
    Arc::clone(issue(&keys, plan).now_or_never().expect("an answer at once").record())
}

/// A request of this key, as the auth layer hands it on.
fn request_of(record: &Arc<KeyRecord>) -> Request<()> {
    let mut request = Request::new(());
    let principal = Principal::new(Arc::clone(record), CredentialSource::Header, NOON);
    request.extensions_mut().insert(principal);
    request
}

fn handshake_of(record: &Arc<KeyRecord>) -> Request<()> {
    upgraded(request_of(record))
}

/// What a service that never waits answers.
fn answer<S>(service: &S, request: Request<()>) -> Response<Body>
where
    S: Service<Request<()>, Response = Response<Body>, Error = Infallible> + Clone,
{
    let answer = service.clone().oneshot(request).now_or_never();
    let Ok(response) = answer.expect("an answer at once");
    response
}

fn kind(response: &Response<Body>) -> Option<RejectionKind> {
    response.extensions().get::<Rejection>().map(Rejection::kind)
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().expect("text"))
}

/// The service behind these limits, which counts its calls.
fn limited(layer: &LimitLayer) -> (LimitService<Inner>, Inner) {
    let inner = Inner::default();
    (layer.layer(inner.clone()), inner)
}

/// Numbers by chance, the same in each run (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
