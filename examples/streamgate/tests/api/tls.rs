//! The API over TLS.

use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::CertifiedKey;
use streamgate::serve::start;
use streamgate::settings::{Settings, TlsFiles};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{Service, service_with, settings};

/// A service with a certificate of its own, which it is asked to prove.
async fn service(dir: &Path) -> (Service, CertificateDer<'static>) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        certificates: dir.join("cert.pem"),
        key: dir.join("key.pem"),
    };
    std::fs::write(&files.certificates, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    let service = service_with(Settings {
        tls: Some(files),
        ..settings()
    })
    .await;
    (service, cert.der().clone())
}

async fn connect(
    service: &Service,
    certificate: &CertificateDer<'static>,
    protocols: &[&[u8]],
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(service.running.public).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn over_tls_the_client_gets_the_protocol_that_it_offers() {
    let dir = tempfile::tempdir().unwrap();
    let (service, certificate) = service(dir.path()).await;
    let request = || {
        http::Request::get("https://localhost/v1/content?limit=1")
            .header("host", "localhost")
            .body(Empty::<bytes::Bytes>::new())
            .unwrap()
    };

    let stream = connect(&service, &certificate, &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = TokioIo::new(stream);
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut over_h2 = request();
    over_h2.headers_mut().remove("host");
    let answer = client.send_request(over_h2).await.unwrap();
    assert_eq!(answer.status(), 200);
    let first = answer.into_body().collect().await.unwrap().to_bytes();
    connection.abort();

    let stream = connect(&service, &certificate, &[b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = client.send_request(request()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let second = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(first, second);
    connection.abort();
}

#[tokio::test]
async fn clear_text_to_a_tls_port_is_closed_and_the_next_client_served() {
    use tokio::io::AsyncWriteExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (service, certificate) = service(dir.path()).await;
    let mut clear = TcpStream::connect(service.running.public).await.unwrap();
    clear
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // An alert and the end, or a reset: never an answer of the API.
    drop(clear.read_to_end(&mut answer).await);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    connect(&service, &certificate, &[b"h2"]).await;
}

#[tokio::test]
async fn a_key_that_does_not_belong_to_the_certificate_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (service, _) = service(dir.path()).await;
    drop(service);
    let other = rcgen::KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("key.pem"), other.serialize_pem()).unwrap();
    for key in ["key.pem", "cert.pem", "missing.pem"] {
        let refused = start(Settings {
            tls: Some(TlsFiles {
                certificates: dir.path().join("cert.pem"),
                key: dir.path().join(key),
            }),
            ..settings()
        });
        let refused = refused.await.unwrap_err();
        assert!(refused.chain().contains(".pem"), "{}", refused.chain());
    }
}
