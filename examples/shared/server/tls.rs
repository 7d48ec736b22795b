//! TLS with a certificate of our own making. Browsers speak HTTP/2 over TLS alone.

use std::{error::Error, io, net::IpAddr, sync::Arc, time::Duration};

use rcgen::CertifiedKey;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer},
    server::TlsStream,
};

/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// Takes TLS connections.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// TLS for a server at `address`, by a key that is made now and kept nowhere. The certificate
    /// is signed by nobody else, so that clients must be told to trust it.
    pub fn self_signed(address: IpAddr) -> Result<Self, Box<dyn Error>> {
        let names = [address.to_string(), "localhost".to_owned()];
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.into()], key.into())?;
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Completes the TLS handshake, if the peer does its part in time.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        timeout(HANDSHAKE_DEADLINE, self.0.accept(stream)).await?
    }
}

/// Whether the peer agreed on HTTP/2.
pub fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    let (_, connection) = stream.get_ref();
    connection.alpn_protocol() == Some(HTTP_2)
}
