//! The one look at a request's headers: whoever needs some of them takes them in the same pass.

use http::Request;

use crate::{
    credential::InHeader,
    handshake::{Handshake, Lines},
    profile::Profile,
};

/// What the headers of a request tell.
pub(crate) struct Look<'a> {
    pub(crate) handshake: Handshake,
    /// How many bytes of `Sec-WebSocket-Protocol` there are, if there is one.
    pub(crate) offers_len: Option<usize>,
    pub(crate) in_header: InHeader<'a>,
}

impl<'a> Look<'a> {
    pub(crate) fn at<B>(request: &'a Request<B>, profile: &Profile) -> Self {
        let (mut lines, mut in_header) = (Lines::default(), InHeader::default());
        for (name, line) in request.headers() {
            lines.take(name, line);
            in_header.take(name, line, profile);
        }
        let handshake = Handshake::of(request, &lines);
        Self { handshake, offers_len: lines.offers_len, in_header }
    }
}
