//! How the requests of a service are treated by the proxy. The default needs no configuration.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::domain::{route::Route, service::TlsSpec};

/// The treatment of a service's requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpPolicy {
    /// Names by which shared listeners know the service besides `NAME` and
    /// `NAME.consul.localhost`: in small letters, exact or `*.` and a suffix.
    pub hosts: BTreeSet<String>,
    /// Routes of the service's own requests; the first that fits counts. Those of Consul's
    /// service-router come after them.
    pub routes: Vec<Arc<Route>>,
    /// Patience.
    pub timeouts: Timeouts,
    /// Further tries.
    pub retry: RetryPolicy,
    /// A second try beside a slow first; absent: none.
    pub hedge: Option<Hedge>,
    /// What is refused at once rather than queued.
    pub limits: Limits,
    /// Rates that clients may not exceed; all hold.
    pub rates: Vec<RateLimit>,
    /// How one backend is chosen of those that take requests.
    pub balance: Balance,
    /// How backends are spoken to.
    pub upstream: Upstream,
    /// Nothing but routes of other services leads to it: it has no hosts on shared listeners,
    /// neither its name nor those of its tags.
    pub only_routed: bool,
    /// Who said what a service-resolver may say too.
    pub said: Said,
}

/// Who said what a service-resolver of Consul may say too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The connect timeout.
    pub connect: By,
    /// The total timeout.
    pub total: By,
    /// How a backend is chosen.
    pub balance: By,
}

/// Who said something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Nobody: it is the default.
    #[default]
    Nobody,
    /// The configuration.
    File,
    /// A service-resolver.
    Resolver,
}

impl By {
    /// The file, if it has the key.
    pub fn file(has_it: bool) -> Self {
        match has_it {
            true => Self::File,
            false => Self::Nobody,
        }
    }
}

impl HttpPolicy {
    /// Idle connections that are kept to each backend.
    pub fn idle(&self) -> u32 {
        self.upstream.idle.unwrap_or(self.limits.connections)
    }
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a backend has taken a connection, its TLS handshake included.
    pub connect: Duration,
    /// From the end of the request's head to the head of one try's answer; absent: the total
    /// bounds it.
    pub per_try: Option<Duration>,
    /// From the request to the head of the answer, all tries together. Of answers that are streams
    /// only the beginning counts.
    pub total: Duration,
    /// Without a byte in either direction within a request or an upgraded connection.
    pub idle: Duration,
}

impl Timeouts {
    /// How long a try without a time of its own has the request to itself, before another is asked beside it.
    pub fn alone(&self) -> Duration {
        self.total / 3
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            per_try: None,
            total: Duration::from_secs(15),
            idle: Duration::from_secs(60),
        }
    }
}

/// When a request is tried again, on another backend. Never after a byte of the answer went to the
/// client, and what is not idempotent (RFC 9110, section 9.2.2) only where nothing of it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries after the first; 0: none.
    pub retries: u32,
    /// Statuses that are tried again.
    pub on_status: BTreeSet<u16>,
    /// Codes of `grpc-status` that are tried again, where the answer is nothing else. None by default: all
    /// calls are POST, and whoever answers UNAVAILABLE may have acted on one.
    pub on_grpc: BTreeSet<u32>,
    /// Retries allowed in proportion to requests of the last ten seconds, in percent.
    pub budget: u32,
    /// Retries a second that are allowed whatever the proportion.
    pub floor: u32,
    /// Before the first retry on average; doubled for each further one, to ten times this at most,
    /// full jitter.
    pub backoff: Duration,
    /// Bytes of a request's body that are kept to send them again; longer ones are not retried.
    pub replay: usize,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 2,
            on_status: [502, 503, 504].into(),
            on_grpc: BTreeSet::new(),
            budget: 20,
            floor: 10,
            backoff: Duration::from_millis(25),
            replay: 64 * 1024,
        }
    }
}

/// A second try of an idempotent request, on another backend, while the first has not answered.
/// Whichever answers first counts, the other is cancelled. It takes from the retry budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// How long the first has alone.
    pub after: Duration,
}

/// Bounds of a service. What would exceed them gets 503 with `Retry-After`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections to one backend.
    pub connections: u32,
    /// Requests of the service that wait for a connection.
    pub pending: u32,
    /// Requests of the service under way.
    pub requests: u32,
    /// Bytes of a request's body; absent: any. Larger ones get 413.
    pub body: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            pending: 1024,
            requests: 16_384,
            body: None,
        }
    }
}

/// A rate that each of what `by` tells apart may not exceed: 429 with `Retry-After` and
/// `RateLimit-*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests allowed in `per`.
    pub requests: u32,
    /// The time they are allowed in.
    pub per: Duration,
    /// Requests at once beyond the even rate; at least 1.
    pub burst: u32,
    /// What is counted apart.
    pub by: RateKey,
    /// Clients that are not limited.
    pub except: Vec<IpNet>,
    /// Only requests whose path begins so; absent: all of the service.
    pub path: Option<String>,
}

/// What a rate limit counts apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateKey {
    /// Client addresses (IPv6: each /64).
    Client,
    /// Values of this header, in small letters; those without it are one.
    Header(String),
    /// Nothing: all together.
    Everybody,
}

/// How a backend is chosen for a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The better of two taken at random by weight, by their latency (peak EWMA) and the requests
    /// under way on each.
    #[default]
    PeakEwma,
    /// By the value of this header, as long as the backends are the same; without it as above.
    Header(String),
    /// By the value of this cookie, which the proxy sets if the client has none: the client meets
    /// the same backend.
    Cookie(String),
}

/// How backends are spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The version of HTTP.
    pub version: UpstreamVersion,
    /// Over TLS, if so.
    pub tls: Option<TlsSpec>,
    /// A PROXY protocol header before everything else, so that the backend knows the client.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Idle connections that are kept to each backend.
    pub idle: Option<u32>,
    /// Connections that each thread has ready to every backend that takes requests, as long as the
    /// service has any. None where the PROXY protocol tells of a client before there is one.
    pub warm: u32,
    /// The `Host` that backends see; absent: the client's.
    pub host: Option<String>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            version: UpstreamVersion::default(),
            tls: None,
            proxy_protocol: None,
            idle: None,
            warm: 1,
            host: None,
        }
    }
}

/// Which HTTP backends speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamVersion {
    /// HTTP/2 for services of protocol grpc, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without TLS by prior knowledge (RFC 9113, section 3.3).
    Http2,
}

/// Version of the PROXY protocol (HAProxy's `doc/proxy-protocol.txt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// The line of text.
    V1,
    /// The binary header.
    V2,
}
