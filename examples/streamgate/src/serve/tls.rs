//! TLS in front of the connections, with the protocol agreed on by ALPN.
//!
//! Guide 5.2. Breaking test: `over_tls_the_client_gets_the_protocol_that_it_offers`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use crate::error::Fatal;

/// What the server speaks, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Longest time from connecting to an agreement: as long as a head may take.
const AGREED: Duration = Duration::from_secs(5);

/// Reads certificates and key, both PEM.
///
/// # Errors
/// A file cannot be read, holds no PEM of its kind, or the two do not belong together.
pub(super) fn acceptor(certificates: &Path, key: &Path) -> Result<TlsAcceptor, Fatal> {
    let unusable = |path: &Path, source: std::io::Error| Fatal::File {
        path: path.to_owned(),
        source,
    };
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(certificates, std::io::Error::other(error)))?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| unusable(key, std::io::Error::other(error)))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, private)
        })
        .map_err(|error| unusable(certificates, std::io::Error::other(error)))?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Agrees with a client; `None` when it does not want to, or takes too long.
pub(super) async fn agree(tls: &TlsAcceptor, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(AGREED, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client did not agree on TLS");
            None
        }
        Err(_) => None,
    }
}
