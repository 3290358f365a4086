//! TLS under a probe: the client's side of the handshake, and the files it takes.

use std::{
    collections::HashMap,
    fs, io,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::failure::ProbeFailure;
use crate::domain::service::TlsSpec;

/// How long the system's certificates, which lie in many files, are not read again.
const SYSTEM_FOR: Duration = Duration::from_secs(600);

/// The configurations in use. Making one parses certificates, too much work for each probe.
#[derive(Debug, Default)]
pub(super) struct TlsConfigs(Mutex<HashMap<(TlsSpec, bool), Made>>);

#[derive(Clone, Debug)]
struct Made {
    config: Arc<ClientConfig>,
    /// Of the files, when they were read.
    modified: Vec<Option<SystemTime>>,
    at: Instant,
}

impl TlsConfigs {
    /// The configuration for `spec`; made anew when a file has changed. `h2`: only HTTP/2 is
    /// offered.
    fn get(&self, spec: &TlsSpec, h2: bool) -> Result<Arc<ClientConfig>, ProbeFailure> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (spec.clone(), h2);
        let modified = modified(spec);
        if let Some(known) = made.get(&key)
            && known.modified == modified
            && (spec.ca_cert.is_some() || spec.insecure || known.at.elapsed() < SYSTEM_FOR)
        {
            return Ok(Arc::clone(&known.config));
        }
        let config = Arc::new(config(spec, h2)?);
        let at = Instant::now();
        // What nobody asks for any more goes.
        made.retain(|_, each| each.at.elapsed() < 2 * SYSTEM_FOR);
        let entry = Made {
            config: Arc::clone(&config),
            modified,
            at,
        };
        made.insert(key, entry);
        Ok(config)
    }
}

/// Times of the files that a configuration is made of; `None`: it cannot be told.
fn modified(spec: &TlsSpec) -> Vec<Option<SystemTime>> {
    let identity = spec.identity.iter().flat_map(|(cert, key)| [cert, key]);
    let files = spec.ca_cert.iter().chain(identity);
    let time = |path| fs::metadata(path).and_then(|found| found.modified()).ok();
    files.map(time).collect()
}

fn config(spec: &TlsSpec, h2: bool) -> Result<ClientConfig, ProbeFailure> {
    let provider = Arc::new(ring::default_provider());
    let unusable = |error: rustls::Error| ProbeFailure::TlsFiles(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = if spec.insecure {
        let verifier = Arc::new(AnyCertificate(provider));
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
    } else {
        builder.with_root_certificates(roots(spec.ca_cert.as_deref())?)
    };
    let mut config = match &spec.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let broken = |error| ProbeFailure::TlsFiles(format!("{}: {error}", key.display()));
            let key = PrivateKeyDer::from_pem_file(key).map_err(broken)?;
            let chain = certificates(cert)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(unusable)?
        }
    };
    if h2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ProbeFailure> {
    let failed = |error| ProbeFailure::TlsFiles(format!("{}: {error}", path.display()));
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<CertificateDer<'static>> = read.map_err(failed)?;
    if read.is_empty() {
        let empty = format!("{} holds no certificate", path.display());
        return Err(ProbeFailure::TlsFiles(empty));
    }
    Ok(read)
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, ProbeFailure> {
    let mut roots = RootCertStore::empty();
    let found = match file {
        Some(file) => certificates(file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        let none = match file {
            Some(file) => format!("{} holds no usable certificate", file.display()),
            None => "the system has no certificates; name a file with `ca_cert`".to_owned(),
        };
        return Err(ProbeFailure::TlsFiles(none));
    }
    Ok(roots)
}

/// Shakes hands over a connection to `ip`. `host` is the probe's, which the certificate must be
/// for where the spec names nothing else.
pub(super) async fn handshake(
    configs: &TlsConfigs,
    spec: &TlsSpec,
    (host, ip): (Option<&str>, IpAddr),
    h2: bool,
    stream: TcpStream,
    timeout: Duration,
) -> Result<TlsStream<TcpStream>, ProbeFailure> {
    let config = configs.get(spec, h2)?;
    let host = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
    let name = spec.server_name.as_deref().or(host);
    let name = name
        .and_then(|name| ServerName::try_from(name.to_owned()).ok())
        .unwrap_or(ServerName::from(ip));
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|error| refused(error, timeout))
}

/// What went wrong in a handshake: TLS itself, or the connection below it.
fn refused(error: io::Error, timeout: Duration) -> ProbeFailure {
    let cause = error.get_ref();
    match cause.and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(tls) => ProbeFailure::Tls(tls.to_string()),
        None => ProbeFailure::from_io(error, timeout),
    }
}

/// Takes any certificate, as the configuration asks; that the peer holds its key is checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
