//! A certificate authority for one run: a directory with its certificate and key.

use std::{fs, net::IpAddr, path::Path, sync::Arc};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The file with the certificate that clients are to trust.
pub const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca-key.pem";

fn params() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(params)
}

/// Makes an authority in `directory`.
pub fn found(directory: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = params()?.self_signed(&key)?;
    fs::write(directory.join(CERTIFICATE), certificate.pem())?;
    fs::write(directory.join(KEY), key.serialize_pem())?;
    Ok(())
}

/// A server's side of TLS, with a new certificate of the authority in `directory` for these
/// addresses.
pub(crate) fn acceptor(directory: &Path, addresses: Vec<IpAddr>) -> Result<TlsAcceptor> {
    let key = fs::read_to_string(directory.join(KEY))
        .with_context(|| format!("no authority in {}", directory.display()))?;
    let issuer = Issuer::new(params()?, KeyPair::from_pem(&key)?);
    let own = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.subject_alt_names = addresses.into_iter().map(SanType::IpAddress).collect();
    let certificate = params.signed_by(&own, &issuer)?;
    let key = PrivateKeyDer::try_from(own.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Writes `<stem>.pem` and `<stem>.key` into `directory`: a new certificate of its authority for
/// these names, and its key.
pub fn issue(directory: &Path, stem: &str, names: &[&str]) -> Result<()> {
    let key = fs::read_to_string(directory.join(KEY))
        .with_context(|| format!("no authority in {}", directory.display()))?;
    let issuer = Issuer::new(params()?, KeyPair::from_pem(&key)?);
    let own = KeyPair::generate()?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    // Under the name of its issuer it would pass for one that signed itself.
    params.distinguished_name.push(DnType::CommonName, stem);
    let certificate = params.signed_by(&own, &issuer)?;
    fs::write(directory.join(format!("{stem}.pem")), certificate.pem())?;
    fs::write(directory.join(format!("{stem}.key")), own.serialize_pem())?;
    Ok(())
}

/// A client's side of TLS, which trusts the authority in `directory` and offers these protocols.
pub fn connector(directory: &Path, protocols: &[&[u8]]) -> Result<TlsConnector> {
    let file = directory.join(CERTIFICATE);
    let certificate = CertificateDer::from_pem_file(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}
