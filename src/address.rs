//! Where a request comes from, as whoever runs the service says.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    str,
    sync::Arc,
};

use http::{Extensions, HeaderName, HeaderValue, Request};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where the address of a client stands: at the connection, or in what a proxy wrote down.
///
/// There is no default, because only whoever runs the service knows. Behind a proxy, all
/// connections have the proxy's address; without one, `X-Forwarded-For` has whatever the client
/// wrote.
///
/// ```
/// use std::{net::SocketAddr, num::NonZeroUsize};
/// use axum::extract::ConnectInfo;
/// use tower_realtime_auth::{ClientAddress, http::Request};
///
/// // The address of the connection, as axum's `into_make_service_with_connect_info` tells it.
/// let connection = ClientAddress::connection(|extensions| {
///     extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip())
/// });
/// // What the one proxy in front wrote down.
/// let proxied = ClientAddress::forwarded_for(NonZeroUsize::MIN);
///
/// let request = Request::builder()
///     .extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1234))))
///     .header("x-forwarded-for", "203.0.113.9, 198.51.100.7")
///     .body(())?;
/// assert_eq!(connection.of(&request), Some([127, 0, 0, 1].into()));
/// assert_eq!(proxied.of(&request), Some([198, 51, 100, 7].into()));
/// # Ok::<(), tower_realtime_auth::http::Error>(())
/// ```
#[derive(Clone)]
pub struct ClientAddress(Place);

#[derive(Clone)]
enum Place {
    Connection(Arc<AddressOf>),
    ForwardedFor(NonZeroUsize),
}

type AddressOf = dyn Fn(&Extensions) -> Option<IpAddr> + Send + Sync;

impl ClientAddress {
    /// The address of the connection, which `address_of` finds in the request's extensions, where
    /// the server has put it. No header changes it.
    #[must_use]
    pub fn connection(
        address_of: impl Fn(&Extensions) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        Self(Place::Connection(Arc::new(address_of)))
    }

    /// The `nth` entry of `X-Forwarded-For`, counted from the right, all lines of it joined in
    /// their order: as many as there are proxies in front that add one. The last entry, 1, is from
    /// the nearest proxy; whatever stands further to the left than `nth`, clients can write.
    ///
    /// An entry is an address, with a port or without: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`,
    /// `[2001:db8::1]`, `[2001:db8::1]:80`. An empty one counts as well. Anything else, or too few
    /// entries: the address is unknown.
    ///
    /// **Only for a service that is reached through those proxies alone.** Whoever reaches it in
    /// another way names any address.
    #[must_use]
    pub const fn forwarded_for(nth: NonZeroUsize) -> Self {
        Self(Place::ForwardedFor(nth))
    }

    /// The address of the client that sent `request`, if it is known. An IPv4 address is one in
    /// IPv6's spelling too (`::ffff:192.0.2.1`).
    #[must_use]
    pub fn of<B>(&self, request: &Request<B>) -> Option<IpAddr> {
        let address = match &self.0 {
            Place::Connection(address_of) => address_of(request.extensions()),
            Place::ForwardedFor(nth) => {
                let lines = request.headers().get_all(X_FORWARDED_FOR);
                let lines = lines.iter().rev().map(HeaderValue::as_bytes);
                let mut entries = lines.flat_map(|line| line.rsplit(|byte| *byte == b','));
                entries.nth(nth.get() - 1).and_then(entry)
            }
        };
        address.as_ref().map(IpAddr::to_canonical)
    }

    /// Where `request` comes from, if that is known.
    pub(crate) fn source_of<B>(&self, request: &Request<B>) -> Option<Source> {
        self.of(request).map(Source::of)
    }
}

/// The address in an entry of `X-Forwarded-For`.
fn entry(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let alone = || text.parse().ok();
    let in_brackets = || {
        let address = text.strip_prefix('[')?.strip_suffix(']')?;
        address.parse::<Ipv6Addr>().ok().map(IpAddr::from)
    };
    let with_port = || text.parse().ok().as_ref().map(SocketAddr::ip);
    alone().or_else(in_brackets).or_else(with_port)
}

impl fmt::Debug for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Connection(_) => f.write_str("Connection(..)"),
            Place::ForwardedFor(nth) => f.debug_tuple("ForwardedFor").field(nth).finish(),
        }
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, which is what one
/// of them has at least (RFC 6177 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & (u128::MAX << 64)).into(),
        })
    }
}
