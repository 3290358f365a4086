//! `[proxy]`: where the node takes requests.

mod read;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

pub(super) use self::read::proxy;

/// The section `[proxy]`. Absent: there are no shared listeners; services with a VIP have their
/// own all the same.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyConfig {
    /// Shared listeners: they route by host.
    pub listeners: Vec<ListenerConfig>,
    /// Threads that serve; 0: as many as the node has CPUs.
    pub threads: usize,
    /// Whether each thread has a processor of its own; absent: if there are as many as threads.
    pub pin: Option<bool>,
    /// Peers whose `X-Request-Id`, `X-Forwarded-*` and `Forwarded` are kept.
    pub trusted: Vec<IpNet>,
    /// Bounds of what clients may send and hold.
    pub bounds: Bounds,
    /// How long requests under way have at a stop.
    pub shutdown: Duration,
    /// Where requests are logged; absent: nowhere.
    pub access_log: Option<AccessLogConfig>,
    /// Where spans go; absent: nowhere.
    pub traces: Option<TracesConfig>,
}

impl ProxyConfig {
    /// The threads that there will be.
    pub fn count_threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            threads: 0,
            pin: None,
            trusted: Vec::new(),
            bounds: Bounds::default(),
            shutdown: Duration::from_secs(30),
            access_log: None,
            traces: None,
        }
    }
}

/// A shared listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where it listens. `:4140` in the file is every address, IPv6 and IPv4.
    pub address: SocketAddr,
    /// Certificates and keys (PEM files) by the names in them; empty: no TLS.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// Connections begin with a PROXY protocol header, if they come from `trusted` peers.
    pub proxy_protocol: bool,
}

/// What clients may send and hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections of the proxy; further ones wait in the kernel.
    pub connections: usize,
    /// Connections of one client address (IPv6: /64); further ones are closed at once.
    pub per_client: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Streams of one HTTP/2 connection at a time.
    pub streams: u32,
    /// Until the head of a request is complete, its TLS handshake included: slow clients.
    pub head_timeout: Duration,
    /// How long a connection may be without a request.
    pub keep_alive: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 20_000,
            per_client: 20_000,
            head: 64 * 1024,
            headers: 100,
            streams: 128,
            head_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
        }
    }
}

/// Where and how requests are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// To this file, which is opened anew on SIGUSR1.
    pub file: Option<PathBuf>,
    /// To standard error.
    pub stderr: bool,
    /// How.
    pub format: AccessLogFormat,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// A JSON object with every fact.
    #[default]
    Json,
    /// Combined Log Format, as of Apache and nginx.
    Combined,
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct TracesConfig {
    /// URL of an OTLP receiver.
    pub endpoint: String,
    /// How it is spoken to.
    pub transport: OtlpTransport,
    /// Part of the traces that are begun here and recorded, 0 to 1. What comes with a decision
    /// keeps it.
    pub sample: f64,
}

/// How OTLP is carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtlpTransport {
    /// gRPC, port 4317 by default.
    #[default]
    Grpc,
    /// Protobuf over HTTP, port 4318 by default.
    Http,
}
