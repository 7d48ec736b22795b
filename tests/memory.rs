//! What refusals leave in memory. A test of its own, because others in the same process would show.

use std::convert::Infallible;

use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_realtime_auth::{
    MemoryStore, RealtimeAuthLayer,
    bytes::Bytes,
    http::{Request, Response, StatusCode},
};

type Body = http_body_util::Full<Bytes>;

/// T14: 100,000 refusals leave nothing behind.
#[tokio::test]
async fn refusals_leave_nothing_behind() {
    let inner =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::default())));
    let service = RealtimeAuthLayer::new(MemoryStore::new()).layer(inner);
    let refuse = async |number: usize| {
        let request = Request::builder().header("authorization", format!("Bearer no{number}"));
        let response = service.clone().oneshot(request.body(()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    };
    for number in 0..1_000 {
        refuse(number).await;
    }
    let before = resident_bytes();
    for number in 0..100_000 {
        refuse(number).await;
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown <= 1 << 20, "grown by {grown} bytes");
}

/// The memory that this process holds; nothing where the system does not tell.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}
