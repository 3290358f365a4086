//! TLS under a probe: configurations that are kept, and the handshake.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::ClientConfig;
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::failure::ProbeFailure;
use crate::{
    domain::service::TlsSpec,
    tls::{client_config, is_of_files, modified, server_name},
};

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
            && (is_of_files(spec) || known.at.elapsed() < SYSTEM_FOR)
        {
            return Ok(Arc::clone(&known.config));
        }
        let protocols: &[&[u8]] = if h2 { &[b"h2"] } else { &[] };
        let config = client_config(spec, protocols);
        let config = config.map_err(|error| ProbeFailure::TlsFiles(error.to_string()))?;
        let config = Arc::new(config);
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
    let name = server_name(spec, host, ip);
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
