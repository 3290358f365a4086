//! TLS towards backends.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::domain::service::TlsSpec;

/// How long files are taken to be as they were.
const FRESH: Duration = Duration::from_secs(10);
/// The same for the system's certificates, which lie in many.
const SYSTEM_FOR: Duration = Duration::from_secs(600);

/// The configurations in use on one thread. Making one parses certificates; sessions are resumed
/// within one.
#[derive(Debug, Default)]
pub(in crate::proxy::engine) struct TlsConfigs(RefCell<HashMap<(TlsSpec, bool), Made>>);

#[derive(Debug)]
struct Made {
    config: Arc<ClientConfig>,
    /// Of the files, when they were read.
    modified: Vec<Option<SystemTime>>,
    read: Instant,
    looked: Instant,
}

impl TlsConfigs {
    /// Shakes hands with the backend at `ip`, whose certificate must be for the spec's name, else
    /// for `host`, else for the address.
    pub(super) async fn handshake(
        &self,
        spec: &TlsSpec,
        host: Option<&str>,
        ip: IpAddr,
        http2: bool,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let config = self.get(spec, http2)?;
        let host = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
        let name = spec.server_name.as_deref().or(host);
        let name = name
            .and_then(|name| ServerName::try_from(name.to_owned()).ok())
            .unwrap_or(ServerName::from(ip));
        let stream = TlsConnector::from(config).connect(name, stream).await;
        let stream = stream.map_err(|error| error.to_string())?;
        if http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("the backend does not offer HTTP/2".into());
        }
        Ok(stream)
    }

    fn get(&self, spec: &TlsSpec, http2: bool) -> Result<Arc<ClientConfig>, String> {
        let key = (spec.clone(), http2);
        let mut made = self.0.borrow_mut();
        if let Some(known) = made.get_mut(&key) {
            if known.looked.elapsed() < FRESH {
                return Ok(Arc::clone(&known.config));
            }
            let of_files = spec.ca_cert.is_some() || spec.insecure;
            if known.modified == modified(spec) && (of_files || known.read.elapsed() < SYSTEM_FOR) {
                known.looked = Instant::now();
                return Ok(Arc::clone(&known.config));
            }
        }
        let modified = modified(spec);
        let config = Arc::new(config(spec, http2)?);
        let now = Instant::now();
        // What nobody asks for any more goes.
        made.retain(|_, each| each.looked.elapsed() < 2 * SYSTEM_FOR);
        let entry = Made {
            config: Arc::clone(&config),
            modified,
            read: now,
            looked: now,
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

fn config(spec: &TlsSpec, http2: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if spec.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(roots(spec.ca_cert.as_deref())?)
    };
    let mut config = match &spec.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("cannot read {}: {error}", key.display()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| error.to_string())?
        }
    };
    let protocol = if http2 { "h2" } else { "http/1.1" };
    config.alpn_protocols = vec![protocol.into()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<CertificateDer<'static>> =
        read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if read.is_empty() {
        return Err(format!("{} holds no certificate", path.display()));
    }
    Ok(read)
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(match file {
        Some(file) => certificates(file)?,
        None => rustls_native_certs::load_native_certs().certs,
    });
    match file {
        Some(file) if roots.is_empty() => {
            Err(format!("{} holds no usable certificate", file.display()))
        }
        None if roots.is_empty() => {
            Err("the system has no certificates; name a file with `ca_cert`".into())
        }
        _ => Ok(roots),
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
