//! The client's side of TLS, towards backends: configurations from the files that a [`TlsSpec`] names,
//! and the name that a certificate must be for.

use std::{fs, net::IpAddr, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use thiserror::Error;

use crate::domain::service::TlsSpec;

/// Why no configuration can be made; a sentence that names the file at fault.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct UnusableTls(String);

/// The configuration that `spec` asks for, offering these protocols (ALPN, RFC 7301). Reads and
/// parses files: too much work for each connection.
///
/// # Errors
///
/// A file cannot be read or does not hold what it should, or there is nobody to trust.
pub(crate) fn client_config(
    spec: &TlsSpec,
    protocols: &[&[u8]],
) -> Result<ClientConfig, UnusableTls> {
    let provider = Arc::new(ring::default_provider());
    let unusable = |error: rustls::Error| UnusableTls(error.to_string());
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
            let broken = |error| UnusableTls(format!("{}: {error}", key.display()));
            let key = PrivateKeyDer::from_pem_file(key).map_err(broken)?;
            let chain = certificates(cert)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(unusable)?
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// Times of the files that a configuration is made of; `None`: it cannot be told.
pub(crate) fn modified(spec: &TlsSpec) -> Vec<Option<SystemTime>> {
    let identity = spec.identity.iter().flat_map(|(cert, key)| [cert, key]);
    let files = spec.ca_cert.iter().chain(identity);
    let time = |path| fs::metadata(path).and_then(|found| found.modified()).ok();
    files.map(time).collect()
}

/// Whether a configuration depends on no other files than those that [`modified`] looks at.
pub(crate) fn is_of_files(spec: &TlsSpec) -> bool {
    spec.ca_cert.is_some() || spec.insecure
}

/// Whom a certificate must be for: the name that the spec gives, else that of `host` (a port behind
/// it does not count), else the address.
pub(crate) fn server_name(spec: &TlsSpec, host: Option<&str>, ip: IpAddr) -> ServerName<'static> {
    let host = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
    let name = spec.server_name.as_deref().or(host);
    name.and_then(|name| ServerName::try_from(name.to_owned()).ok())
        .unwrap_or(ServerName::from(ip))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, UnusableTls> {
    let failed = |error| UnusableTls(format!("{}: {error}", path.display()));
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<CertificateDer<'static>> = read.map_err(failed)?;
    if read.is_empty() {
        let empty = format!("{} holds no certificate", path.display());
        return Err(UnusableTls(empty));
    }
    Ok(read)
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, UnusableTls> {
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
        return Err(UnusableTls(none));
    }
    Ok(roots)
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
