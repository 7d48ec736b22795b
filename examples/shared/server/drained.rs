//! What becomes of a request's body that nobody reads.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::timeout;

/// How much is read that nobody wants, and for how long.
const MAX_UNWANTED: usize = 256 * 1024;
const UNWANTED_DEADLINE: Duration = Duration::from_secs(1);

/// A body whose end is read though nobody wants it. Over HTTP/1.1 the next request comes behind it:
/// without this, who is refused early, as past a limit, would find the connection closed.
pub struct Drained(Option<Incoming>);

impl Drained {
    pub const fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl Body for Drained {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        if let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) {
            let mut rest = Limited::new(body, MAX_UNWANTED);
            tokio::spawn(timeout(UNWANTED_DEADLINE, async move {
                while let Some(Ok(_)) = rest.frame().await {}
            }));
        }
    }
}
