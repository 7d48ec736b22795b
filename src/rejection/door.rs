//! The way to the second door for handshakes that are refused behind the layer that has it.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderValue, Request, Response};

use super::try_close;
use crate::{layer::Config, service::Refused};

/// A refused handshake, apart from its body: on its way out, in the extensions of its HTTP answer.
///
/// There is one of it, though extensions can be cloned: what could complete the handshake must not
/// be kept twice.
#[derive(Clone)]
pub(crate) struct HandedBack(Arc<Mutex<Option<Handed>>>);

pub(crate) struct Handed {
    request: Request<()>,
    refused: Refused,
    /// What both answers tell.
    headers: HeaderMap,
}

impl HandedBack {
    pub(crate) fn new(request: Request<()>, refused: Refused, headers: HeaderMap) -> Self {
        Self(Arc::new(Mutex::new(Some(Handed { request, refused, headers }))))
    }

    /// What was handed back with this answer.
    pub(crate) fn take<R>(response: &mut Response<R>) -> Option<Handed> {
        let Self(handed) = response.extensions_mut().remove()?;
        handed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The second door, as long as a handshake is further in.
pub(crate) struct Door<R> {
    config: Arc<Config>,
    no_body: R,
}

impl<R> Door<R> {
    pub(crate) const fn new(config: Arc<Config>, no_body: R) -> Self {
        Self { config, no_body }
    }

    /// Completes the handshake to close it, in the place of `response`, if its client sees only
    /// that.
    pub(crate) fn close(
        self,
        handed: Handed,
        protocol: Option<HeaderValue>,
        response: &mut Response<R>,
    ) {
        let Handed { request, refused, headers } = handed;
        let closed = try_close(request, &refused, protocol, &self.config, || self.no_body);
        if let Some(mut closed) = closed {
            closed.headers_mut().extend(headers);
            *response = closed;
        }
    }
}
