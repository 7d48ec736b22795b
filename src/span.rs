//! A span for the log of requests, in which no key has a place.

use http::Request;
use tracing::Span;

/// A span of one request: its method, path and version. Never its query, never a header.
///
/// For tower-http's `TraceLayer`, whose own span holds the whole URI and so the key of every client
/// that sends it as `?api_key=`. Inside of [`RealtimeAuthLayer`](crate::RealtimeAuthLayer) the URI
/// has lost it; this span cannot hold it even where the order of layers is wrong.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, body::Body, routing::any};
/// use tower::{Layer, ServiceExt};
/// use tower_http::trace::TraceLayer;
/// use tower_realtime_auth::{
///     Keys, MemoryStore, NewKey, RealtimeAuthLayer, http::Request, request_span,
/// };
///
/// let keys = Keys::new(MemoryStore::new());
/// let issued = keys.issue(NewKey::secret("acme")).await?;
/// let api = Router::new()
///     .route("/v1/realtime", any(async || "hello"))
///     .layer(TraceLayer::new_for_http().make_span_with(request_span));
/// let app = RealtimeAuthLayer::new(keys).layer(api);
///
/// // The span of the first says `path="/v1/realtime"`; the second is refused and has none.
/// for (key, status) in [(issued.key().expose(), 200), ("wrong", 401)] {
///     let request = Request::get(format!("/v1/realtime?api_key={key}")).body(Body::empty())?;
///     assert_eq!(app.clone().oneshot(request).await?.status(), status);
/// }
/// # Ok(())
/// # }
/// ```
pub fn request_span<B>(request: &Request<B>) -> Span {
    tracing::info_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        version = ?request.version(),
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use http::Version;
    use tracing_subscriber::fmt::format::FmtSpan;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn names_the_request_and_no_key() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_span_events(FmtSpan::NEW)
            .with_ansi(false)
            .finish();
        let request = Request::connect("https://h:1/v1/realtime?api_key=SECRET&model=m")
            .version(Version::HTTP_2)
            .header("authorization", "Bearer SECRET")
            .body(())
            .unwrap();
        tracing::subscriber::with_default(subscriber, || request_span(&request));
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(
            log.contains(r#"request{method=CONNECT path="/v1/realtime" version=HTTP/2.0}"#),
            "{log}"
        );
        assert!(!log.contains("SECRET") && !log.contains("model"), "{log}");
    }
}
