//! What a service is: the VIPs clients connect to, and where its backends come from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    backend::{CatalogHealth, Instance},
    filter::Filter,
    gate::GateSpec,
    http::policy::HttpPolicy,
    passive::PassiveSpec,
    split::Shares,
};

/// What a service speaks, as far as the node needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Balanced in the kernel.
    Tcp,
    /// Balanced in the kernel.
    Udp,
    /// HTTP: each request is balanced by the proxy.
    Http,
    /// gRPC: the same, and backends speak HTTP/2.
    Grpc,
}

impl Protocol {
    /// Whether the proxy serves it, not the kernel.
    pub fn is_proxied(self) -> bool {
        match self {
            Protocol::Tcp | Protocol::Udp => false,
            Protocol::Http | Protocol::Grpc => true,
        }
    }

    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp | Protocol::Http | Protocol::Grpc => lb_common::IPPROTO_TCP,
            Protocol::Udp => lb_common::IPPROTO_UDP,
        }
    }

    /// As written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarding {
    /// Both addresses translated; replies come back through the node.
    #[default]
    Nat,
    /// Only the link address becomes the backend's, which holds the VIP and answers by itself. It
    /// must be on a link of the node's.
    DsrL2,
    /// Within another IP header from the node to the backend, which takes it off, holds the VIP
    /// and answers by itself.
    DsrIpip,
}

impl Forwarding {
    /// As written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Forwarding::Nat => "nat",
            Forwarding::DsrL2 => "dsr-l2",
            Forwarding::DsrIpip => "dsr-ipip",
        }
    }

    /// Whether backends get packets for the VIP's port, whatever their own.
    pub fn keeps_port(self) -> bool {
        match self {
            Forwarding::Nat => false,
            Forwarding::DsrL2 | Forwarding::DsrIpip => true,
        }
    }
}

/// What a client meets on its next connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// Any backend: each connection is balanced by itself.
    #[default]
    Connection,
    /// The same backend, by the client's address: whatever its ports, and on whichever of the
    /// service's.
    Client,
}

impl Affinity {
    /// As written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Affinity::Connection => "connection",
            Affinity::Client => "client",
        }
    }
}

/// Where a service's backends are listed.
#[derive(Clone, Debug, PartialEq)]
pub enum Catalog {
    /// In the configuration itself.
    Static(Vec<Instance>),
    /// In Consul, under this service name.
    Consul {
        /// Name of the service in Consul.
        service: String,
        /// Its datacenter, if not that of `[consul]`.
        datacenter: Option<String>,
    },
}

/// Which instances belong to a subset. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubsetRule {
    /// A tag that the instance carries.
    pub tag: Option<String>,
    /// Meta entries that the instance carries, with equal values.
    pub meta: BTreeMap<String, String>,
    /// An expression that holds for the instance.
    pub filter: Option<Filter>,
    /// No condition at all: everybody is a member. A rule without conditions has none otherwise.
    pub everybody: bool,
    /// The catalog must find nothing wrong with the instance.
    pub only_passing: bool,
}

impl SubsetRule {
    /// Whether the instance meets every condition. A rule without conditions matches nothing.
    pub fn matches(&self, instance: &Instance) -> bool {
        let any =
            self.tag.is_some() || !self.meta.is_empty() || self.filter.is_some() || self.everybody;
        let passing = !self.only_passing || instance.health == CatalogHealth::Passing;
        any && passing
            && self.tag.iter().all(|tag| instance.tags.contains(tag))
            && self.filter.iter().all(|filter| filter.matches(instance))
            && self
                .meta
                .iter()
                .all(|(key, value)| instance.meta.get(key) == Some(value))
    }
}

/// How to ask a backend whether it works.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProbeSpec {
    /// What is asked.
    pub kind: ProbeKind,
    /// From one probe's start to the next one's, before jitter.
    pub interval: Duration,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Successes in a row that make an unhealthy backend healthy.
    pub rise: u32,
    /// Failures in a row that make a healthy backend unhealthy.
    pub fall: u32,
    /// Port to probe instead of the backend's own.
    pub port: Option<u16>,
}

impl Default for ProbeSpec {
    fn default() -> Self {
        Self {
            kind: ProbeKind::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            port: None,
        }
    }
}

/// The kinds of probes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// A connection that is accepted.
    Tcp,
    /// A GET answered with a status in one of the ranges.
    Http {
        /// Path and query.
        path: String,
        /// `Host` header; the backend's address if absent.
        host: Option<String>,
        /// First and last status that count as success, of each range. Not empty.
        status: Vec<(u16, u16)>,
        /// What the beginning of the body must contain.
        body: Option<String>,
        /// Over TLS, if so.
        tls: Option<TlsSpec>,
    },
    /// `grpc.health.v1.Health/Check`, answered with SERVING.
    Grpc {
        /// The service asked for; empty: the server as a whole.
        service: String,
        /// `:authority`; the backend's address if absent.
        host: Option<String>,
        /// Over TLS, if so.
        tls: Option<TlsSpec>,
    },
}

/// How a probe speaks TLS. Files are read when they are needed, and again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsSpec {
    /// Name that is asked for (SNI) and that the certificate must be for; the probe's host, else
    /// the backend's address, if absent.
    pub server_name: Option<String>,
    /// PEM file with the certificates to trust; the system's if absent.
    pub ca_cert: Option<PathBuf>,
    /// PEM files with the certificate and the key to show to the backend.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Takes any certificate.
    pub insecure: bool,
}

/// How backends are judged beyond single probes, and how they come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPolicy {
    /// Percent of healthy backends below which all are used; 0: when none is.
    pub panic: u32,
    /// How long a backend takes to reach its full share when it comes or comes back; zero: it has
    /// it at once.
    pub slow_start: Duration,
    /// Ejection by what traffic tells; absent: none.
    pub passive: Option<PassiveSpec>,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            panic: 50,
            slow_start: Duration::from_secs(30),
            passive: Some(PassiveSpec::default()),
        }
    }
}

/// Where a fact was written, for the answer to "who said so?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The configuration file, or what else it was.
    pub file: PathBuf,
    /// Line in it, from 1; 0: there are none.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

/// A service as configured. Valid by construction: `config` checks everything that can be wrong
/// before it builds one.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSpec {
    /// Unique name.
    pub name: String,
    /// Where clients connect to; unique per protocol over all services. Not empty, but for those that
    /// the proxy serves, which its shared listeners know by name.
    pub vips: Vec<SocketAddr>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// How packets reach the backends. Where ports are kept, all `vips` have the same.
    pub forwarding: Forwarding,
    /// What chooses the backend.
    pub affinity: Affinity,
    /// Clients that may connect, of each family that the service has a VIP of; `None`: everybody.
    pub allow: Option<BTreeSet<IpNet>>,
    /// Where the backends come from.
    pub catalog: Catalog,
    /// Named subsets.
    pub subsets: BTreeMap<String, SubsetRule>,
    /// Shares of the subsets as configured; they name existing subsets.
    pub split: Option<Shares>,
    /// Active probe; absent: the catalog's word alone counts.
    pub probe: Option<ProbeSpec>,
    /// What a subset that traffic is shifted to must be like.
    pub gate: GateSpec,
    /// What else decides on health.
    pub health: HealthPolicy,
    /// How requests are treated, if the proxy serves it.
    pub http: Arc<HttpPolicy>,
    /// Where it was configured.
    pub origin: Origin,
}

impl ServiceSpec {
    /// The subset that an instance belongs to: the one it names itself, else the first (by name)
    /// whose rule it meets.
    pub fn subset_of(&self, instance: &Instance) -> Option<String> {
        if let Some(subset) = &instance.subset {
            return Some(subset.clone());
        }
        self.subsets
            .iter()
            .find(|(_, rule)| rule.matches(instance))
            .map(|(name, _)| name.clone())
    }

    /// Whether a filter of a subset asks about what only [`Instance::detail`] knows.
    pub fn needs_detail(&self) -> bool {
        let mut filters = self
            .subsets
            .values()
            .filter_map(|rule| rule.filter.as_ref());
        filters.any(Filter::needs_detail)
    }

    /// The port that backends must listen on, if packets reach them for the VIP's.
    pub fn kept_port(&self) -> Option<u16> {
        let vip = self.vips.first().filter(|_| self.forwarding.keeps_port());
        vip.map(SocketAddr::port)
    }

    /// Names of all subsets: those with rules and those that static backends name.
    pub fn subset_names(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self.subsets.keys().cloned().collect();
        if let Catalog::Static(instances) = &self.catalog {
            names.extend(
                instances
                    .iter()
                    .filter_map(|instance| instance.subset.clone()),
            );
        }
        names
    }
}
