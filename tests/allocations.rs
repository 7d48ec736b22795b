//! How often the layer allocates, exactly.
//!
//! An accepted request gets a `Principal` in its extensions. What `http` allocates for that, a
//! value of the same size shows; all beyond it and beyond the inner service is the layer's own.

#[path = "../benches/cases/mod.rs"]
mod cases;

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use tower::{Layer, Service};
use tower_realtime_auth::{
    MemoryStore, Principal, Profile, Refusal,
    bytes::Bytes,
    http::{Request, Response, StatusCode},
};

use self::cases::{
    Bare, Case, answer, layer, layered,
    limits::{Limited, alone, limited},
    pending_store,
};

#[test]
fn accepted() {
    let (mut service, key) = layered();
    for (case, own) in [
        (Case::Header, 0),
        (Case::LoneEntry, 0),
        // `realtime` alone is left, and the profile has that at hand.
        (Case::Subprotocol, 0),
        // The line of what is left.
        (Case::OtherOffers, 1),
        // The URI of what is left.
        (Case::Query, 2),
    ] {
        let request = case.request(&key);
        assert_eq!(own_allocations(&mut service, &request), own, "{}", case.name());
    }
}

/// A plain request whose extensions are empty: `http` makes their map first.
#[test]
fn accepted_without_an_upgrade() {
    let (mut service, key) = layered();
    let bearer = format!("Bearer {key}");
    let request = Request::builder().header("authorization", bearer).body(()).unwrap();
    assert_eq!(allocations_of_a_principal(&request), 3);
    assert_eq!(own_allocations(&mut service, &request), 0);
}

/// Two boxes more: the store's for its future, and the layer's for the request that waits.
#[test]
fn accepted_by_a_store_that_waits() {
    let (mut service, key) = pending_store();
    assert_eq!(own_allocations(&mut service, &Case::Header.request(&key)), 2);
}

/// A refused request has cost nothing when its answer is begun.
#[test]
fn refused() {
    let (_, key) = layered();
    // Where the answer is begun, the profile is asked for its words. There it ends here.
    let end = || -> Refusal { resume_unwind(Box::new(())) };
    let profile = Profile::default().with_refusal(move |_| end());
    let mut service = layer(MemoryStore::new()).with_profile(profile).layer(Bare);
    let of_ending = count(|| drop(catch_unwind(end)));
    // No key, a mistyped one, and one that nobody has, in each place.
    let missing = Request::new(());
    let (all_but_last, last) = key.split_at(key.len() - 1);
    let typo = if last == "x" { "y" } else { "x" };
    let mistyped = Case::Header.request(&format!("{all_but_last}{typo}"));
    let unknown = [Case::Header, Case::Query, Case::Subprotocol, Case::LoneEntry];
    let unknown = unknown.map(|case| case.request(&key));
    for request in [missing, mistyped].into_iter().chain(unknown) {
        let allocations = warm_count(&request, |request| {
            let ended = catch_unwind(AssertUnwindSafe(|| answer(&mut service, request)));
            assert!(ended.is_err(), "not refused");
        });
        assert_eq!(allocations, of_ending, "{request:?}");
    }
}

/// What the limit layer adds: for one thing, two for each header that tells what is left.
#[test]
fn limited_requests() {
    for (case, added) in [
        (Limited::Request, 14),
        (Limited::Session, 13),
        (Limited::Token, 14),
        // Its answer among them.
        (Limited::Refused, 19),
    ] {
        let (keys, texts) = case.keys(1);
        let request = case.request(&texts[0]);
        let (mut alone, mut limited) = (alone(keys.clone()), limited(keys));
        let auth = warm_count(&request, |request| drop(answer(&mut alone, request)));
        let both = warm_count(&request, |request| {
            let is_refused = answer(&mut limited, request).status().is_client_error();
            assert_eq!(is_refused, case == Limited::Refused);
        });
        assert_eq!(both - auth, added, "{}", case.name());
    }
}

/// What the layer allocates for an accepted request, beside what others do.
fn own_allocations<S>(service: &mut S, request: &Request<()>) -> u64
where
    S: Service<Request<()>, Response = Response<Bytes>, Error = Infallible>,
{
    let with_layer = warm_count(request, |request| {
        let response = answer(service, request);
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    });
    let bare = warm_count(request, |request| drop(answer(&mut Bare, request)));
    with_layer - bare - allocations_of_a_principal(request)
}

/// What `http` allocates to take in a value of a principal's size.
fn allocations_of_a_principal(request: &Request<()>) -> u64 {
    warm_count(request, |mut request| {
        request.extensions_mut().insert([0_u8; size_of::<Principal>()]);
    })
}

/// Counts the second time: the first one may set up what stays.
fn warm_count(request: &Request<()>, mut work: impl FnMut(Request<()>)) -> u64 {
    work(request.clone());
    let request = request.clone();
    count(|| work(request))
}

/// The allocations of this thread.
fn count(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}
