//! TLS and gRPC against real servers on loopback.

use std::fs;

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer,
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;
use tonic_health::ServingStatus;

use super::*;
use crate::domain::service::TlsSpec;

/// An authority, a server's certificate for `echo.example` and 127.0.0.1, and a client's.
struct Pki {
    directory: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca"), authority.pem()).unwrap();
        Self {
            directory,
            authority,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn issue(&self, names: &[&str]) -> (Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let cert = params.signed_by(&key, &self.authority).unwrap();
        (cert, key)
    }

    /// A server's side of TLS; `demand`: only for clients of this authority.
    fn acceptor(&self, names: &[&str], demand: bool) -> TlsAcceptor {
        let (cert, key) = self.issue(names);
        let provider = std::sync::Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if demand {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(std::sync::Arc::new(config))
    }

    /// A client's certificate and key in files.
    fn identity(&self) -> (std::path::PathBuf, std::path::PathBuf) {
        let (cert, key) = self.issue(&["probe.example"]);
        let (cert_file, key_file) = (self.path("cert"), self.path("key"));
        fs::write(&cert_file, cert.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }
}

/// Answers every connection with 200 over TLS, as long as the test runs.
async fn https(acceptor: TlsAcceptor) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut header = Vec::new();
                while !header.ends_with(b"\r\n\r\n") {
                    header.push(stream.read_u8().await.unwrap());
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                stream.shutdown().await.unwrap();
            });
        }
    });
    address
}

fn over(host: Option<&str>, tls: TlsSpec) -> ProbeKind {
    ProbeKind::Http {
        path: "/".into(),
        host: host.map(str::to_owned),
        status: vec![(200, 299)],
        body: Some("ok".into()),
        tls: Some(tls),
    }
}

/// Whom a probe trusts, and for which name.
#[tokio::test]
async fn certificates() {
    let (pki, other) = (Pki::new(), Pki::new());
    let named = https(pki.acceptor(&["echo.example"], false)).await;
    let by_address = https(pki.acceptor(&["127.0.0.1"], false)).await;
    let trusting = |pki: &Pki, server_name: Option<&str>| TlsSpec {
        server_name: server_name.map(str::to_owned),
        ca_cert: Some(pki.path("ca")),
        ..TlsSpec::default()
    };
    let any = TlsSpec {
        insecure: true,
        ..TlsSpec::default()
    };
    let ours = |name| trusting(&pki, name);
    let rows = [
        (named, None, ours(Some("echo.example")), "success"),
        (named, Some("echo.example"), ours(None), "success"),
        (named, Some("echo.example:8443"), ours(None), "success"),
        (by_address, None, ours(None), "success"),
        (
            named,
            None,
            ours(None),
            "TLS: invalid peer certificate: certificate not valid for name",
        ),
        (
            named,
            Some("other.example"),
            ours(None),
            "TLS: invalid peer certificate",
        ),
        (
            named,
            Some("echo.example"),
            trusting(&other, None),
            "TLS: invalid peer certificate",
        ),
        (named, Some("other.example"), any, "success"),
    ];
    for (address, host, tls, expected) in rows {
        let words = words(target(address, over(host, tls.clone()), PATIENT)).await;
        assert!(words.starts_with(expected), "{host:?} {tls:?}: {words}");
    }
    // A server that does not speak TLS at all.
    let (plain, server) = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await;
    let failure = words(target(plain, over(None, ours(None)), HASTY)).await;
    assert_ne!(failure, "success");
    server.abort();
}

/// A server that asks for a certificate gets one; files that are missing or wrong blame nobody
/// but the spec, and count anew once they are mended.
#[tokio::test]
async fn certificates_of_the_probe_s_own() {
    let pki = Pki::new();
    let strict = https(pki.acceptor(&["127.0.0.1"], true)).await;
    let spec = TlsSpec {
        ca_cert: Some(pki.path("ca")),
        identity: Some(pki.identity()),
        ..TlsSpec::default()
    };
    let success = words(target(strict, over(None, spec.clone()), PATIENT)).await;
    assert_eq!(success, "success");
    let anonymous = TlsSpec {
        identity: None,
        ..spec.clone()
    };
    let refused = words(target(strict, over(None, anonymous), PATIENT)).await;
    assert!(
        refused.contains("TLS") || refused.contains("closed"),
        "{refused}"
    );

    let configs: Arc<TlsConfigs> = Arc::default();
    let probe = async || {
        probe(
            target(strict, over(None, spec.clone()), PATIENT),
            configs.clone(),
        )
        .await
    };
    probe().await.unwrap();
    let ca = fs::read(pki.path("ca")).unwrap();
    for broken in [None, Some("no certificate")] {
        fs::remove_file(pki.path("ca")).ok();
        if let Some(text) = broken {
            fs::write(pki.path("ca"), text).unwrap();
        }
        let failure = probe().await.unwrap_err();
        assert!(!failure.blames_backend(), "{failure}");
        assert!(
            failure
                .to_string()
                .contains(&pki.path("ca").display().to_string()),
            "{failure}"
        );
    }
    fs::write(pki.path("ca"), ca).unwrap();
    probe().await.unwrap();
}

/// A gRPC server whose health as a whole and of `shop` is set by the test.
async fn grpc_server() -> (SocketAddr, tonic_health::server::HealthReporter) {
    let (reporter, service) = tonic_health::server::health_reporter();
    let (listener, address) = listener().await;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    (address, reporter)
}

fn asking(service: &str, tls: Option<TlsSpec>) -> ProbeKind {
    ProbeKind::Grpc {
        service: service.into(),
        host: None,
        tls,
    }
}

/// Every answer that the protocol knows.
#[tokio::test]
async fn grpc_health() {
    let (address, reporter) = grpc_server().await;
    let ask = async |service| words(target(address, asking(service, None), PATIENT)).await;
    assert_eq!(ask("").await, "success");
    assert_eq!(ask("shop").await, "gRPC health is SERVICE_UNKNOWN");
    for (status, expected) in [
        (ServingStatus::Serving, "success"),
        (ServingStatus::NotServing, "gRPC health is NOT_SERVING"),
        (ServingStatus::Unknown, "gRPC health is UNKNOWN"),
    ] {
        reporter.set_service_status("shop", status).await;
        assert_eq!(ask("shop").await, expected);
    }
    assert_eq!(ask("").await, "success", "each service by itself");
}

/// What is no gRPC server, or none that speaks of health.
#[tokio::test]
async fn grpc_of_others() {
    let (_socket, closed) = closed_port();
    let refused = words(target(closed, asking("", None), PATIENT)).await;
    assert_eq!(refused, "connection refused");
    let (plain, server) = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await;
    let failure = words(target(plain, asking("", None), HASTY)).await;
    assert_ne!(failure, "success");
    server.abort();

    let (listener, address) = listener().await;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let nothing = tonic::service::Routes::default();
    let server = tonic::transport::Server::builder().add_routes(nothing);
    tokio::spawn(server.serve_with_incoming(incoming));
    let failure = words(target(address, asking("", None), PATIENT)).await;
    assert_eq!(failure, "gRPC: the server does not speak grpc.health.v1");
}

/// gRPC over TLS: HTTP/2 is agreed on in the handshake.
#[tokio::test]
async fn grpc_over_tls() {
    let pki = Pki::new();
    let acceptor = pki.acceptor(&["127.0.0.1"], false);
    let (behind, _reporter) = grpc_server().await;
    let (listener, address) = listener().await;
    // TLS ends before the server, as with a proxy.
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                let mut behind = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    let spec = TlsSpec {
        ca_cert: Some(pki.path("ca")),
        ..TlsSpec::default()
    };
    let words = words(target(address, asking("", Some(spec)), PATIENT)).await;
    assert_eq!(words, "success");
}
