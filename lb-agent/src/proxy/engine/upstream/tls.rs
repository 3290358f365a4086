//! TLS towards backends.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    domain::service::TlsSpec,
    tls::{client_config, is_of_files, modified, server_name},
};

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
        let name = server_name(spec, host, ip);
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
            if known.modified == modified(spec)
                && (is_of_files(spec) || known.read.elapsed() < SYSTEM_FOR)
            {
                known.looked = Instant::now();
                return Ok(Arc::clone(&known.config));
            }
        }
        let modified = modified(spec);
        let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
        let config = client_config(spec, &[protocol]).map_err(|error| error.to_string())?;
        let config = Arc::new(config);
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
