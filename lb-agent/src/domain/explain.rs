//! Why a backend has the weight that it has: each factor with its value and where that comes from;
//! and what the kernel holds at this moment, to be compared with.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::SystemTime,
};

use super::{
    author::Author,
    backend::CatalogHealth,
    health::Observed,
    kernel::{KernelBackend, KernelVip, VipKey},
    route::Text,
    snapshot::{BackendState, ServiceState},
    split::Shares,
    tag_route::TagRoute,
};

/// Where a fact comes from. Made when somebody asks, not kept with each fact: a hundred thousand
/// backends need no such memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, and a line in it (0: it is not known which).
    File {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// An instance of a service in Consul.
    ConsulService {
        /// Name of the service, with its datacenter if that is another.
        service: String,
        /// `NODE/SERVICE-ID`.
        instance: String,
        /// Consul's index of the answer that it stands in.
        index: u64,
    },
    /// A key in Consul.
    ConsulKey {
        /// The whole key.
        key: String,
        /// Its `ModifyIndex`.
        index: u64,
    },
    /// A configuration entry in Consul.
    ConsulEntry {
        /// As in `service-splitter`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Consul's index of the list that it stands in.
        index: u64,
    },
    /// A person.
    Cli(Author),
    /// The agent's own probes, since then.
    Probe(Option<SystemTime>),
    /// What everybody gets who says nothing.
    Default,
}

impl Source {
    /// Its kind in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Source::File { .. } => "file",
            Source::ConsulService { .. } => "consul-service",
            Source::ConsulKey { .. } => "consul-key",
            Source::ConsulEntry { .. } => "consul-entry",
            Source::Cli(_) => "cli",
            Source::Probe(_) => "probe",
            Source::Default => "default",
        }
    }

    /// Consul's index; `None`: it is not from there.
    pub fn index(&self) -> Option<u64> {
        match self {
            Source::ConsulService { index, .. }
            | Source::ConsulKey { index, .. }
            | Source::ConsulEntry { index, .. } => Some(*index),
            _ => None,
        }
    }

    /// When it came about, as far as that is known.
    pub fn at(&self) -> Option<SystemTime> {
        match self {
            Source::Cli(author) => Some(author.at),
            Source::Probe(since) => *since,
            _ => None,
        }
    }
}

/// Without the time, which whoever prints it puts into words.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File { path, line: 0 } => write!(f, "{}", path.display()),
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::ConsulService {
                service,
                instance,
                index,
            } => write!(
                f,
                "Consul service {service}, instance {instance}, {}",
                Index(*index)
            ),
            Source::ConsulKey { key, index } => write!(f, "Consul key {key}, {}", Index(*index)),
            Source::ConsulEntry { kind, name, index } => {
                write!(f, "Consul {kind} {name}, {}", Index(*index))
            }
            Source::Cli(author) => write!(f, "command line, {}", author.user),
            Source::Probe(_) => f.write_str("the agent's probes"),
            Source::Default => f.write_str("default"),
        }
    }
}

/// Consul's index; 0: Consul has not answered since the agent started.
struct Index(u64);

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("as saved, for Consul has not answered yet"),
            index => write!(f, "index {index}"),
        }
    }
}

/// One factor of a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor {
    /// `registered`, `split`, `health`, `drain` and so on.
    pub name: &'static str,
    /// Its value; the product of all is proportional to the weight.
    pub value: f64,
    /// What it means, in words; may be empty.
    pub note: String,
    /// Who says so.
    pub source: Source,
}

/// The facts that [`factors`] needs beside the backend.
pub struct Sources<'a> {
    /// Of the backend's entry in its catalog.
    pub instance: Source,
    /// Of the split in force.
    pub split: Option<Source>,
    /// Of the drain, if there is one.
    pub drain: Option<&'a Author>,
}

/// The shares that count among the backends of the family: those of the split, or of a fallback.
fn shares_in_use<'a>(state: &'a ServiceState, v6: bool) -> Option<&'a Shares> {
    let split = state.split.as_ref()?;
    let weighty = |shares: &&Shares| {
        state.backends.iter().any(|backend| {
            let share = backend
                .subset
                .as_ref()
                .and_then(|subset| shares.get(subset));
            backend.address().is_ipv6() == v6 && backend.weight > 0 && share.unwrap_or(0) > 0
        })
    };
    let mut all = std::iter::once(&split.shares).chain(&split.fallback);
    all.find(weighty).or(Some(&split.shares))
}

/// The factors of a backend's weight, in the order in which they are multiplied.
pub fn factors(state: &ServiceState, backend: &BackendState, sources: Sources<'_>) -> Vec<Factor> {
    let Sources {
        instance,
        split,
        drain,
    } = sources;
    let v6 = backend.address().is_ipv6();
    let mut factors = vec![Factor {
        name: "registered",
        value: f64::from(backend.instance.weight),
        note: String::new(),
        source: instance.clone(),
    }];
    factors.push(share(state, backend, split));
    factors.push(health(state, backend, &instance));
    factors.push(match (&backend.drain, &backend.instance.health) {
        (Some(taken), _) => Factor {
            name: "drain",
            value: 0.0,
            note: "drained by an operator".into(),
            source: Source::Cli(drain.cloned().unwrap_or(Author {
                user: "unknown user".into(),
                at: taken.since,
            })),
        },
        (None, CatalogHealth::Maintenance(reason)) => Factor {
            name: "drain",
            value: 0.0,
            note: with_detail("in maintenance", reason),
            source: instance.clone(),
        },
        (None, _) => Factor {
            name: "drain",
            value: 1.0,
            note: "not drained".into(),
            source: Source::Default,
        },
    });
    let has_vip = state.spec.vips.iter().any(|vip| vip.is_ipv6() == v6);
    let kept_port = state.spec.kept_port();
    let wrong_port = kept_port.filter(|port| *port != backend.address().port());
    if !has_vip || wrong_port.is_some() {
        factors.push(Factor {
            name: "reach",
            value: 0.0,
            note: backend.reason.clone(),
            source: file(state),
        });
    }
    factors
}

fn file(state: &ServiceState) -> Source {
    let origin = &state.spec.origin;
    Source::File {
        path: origin.file.clone(),
        line: origin.line,
    }
}

/// The part that the split gives to this backend, relative to its registered weight.
fn share(state: &ServiceState, backend: &BackendState, source: Option<Source>) -> Factor {
    let name = "split";
    let Some(shares) = shares_in_use(state, backend.address().is_ipv6()) else {
        return Factor {
            name,
            value: 1.0,
            note: "no split: backends share by their weights".into(),
            source: Source::Default,
        };
    };
    let source = source.unwrap_or_else(|| file(state));
    let Some(subset) = &backend.subset else {
        return Factor {
            name,
            value: 0.0,
            note: "belongs to no subset, and a split is in force".into(),
            source,
        };
    };
    let own = shares.get(subset).unwrap_or(0);
    let taking = state.backends.iter().filter(|other| {
        other.subset.as_ref() == Some(subset)
            && other.weight > 0
            && other.address().is_ipv6() == backend.address().is_ipv6()
    });
    let registered: u64 = taking.map(|other| u64::from(other.instance.weight)).sum();
    let part = f64::from(own) / f64::from(shares.total());
    let value = if registered == 0 {
        part
    } else {
        part / registered as f64
    };
    let mut note = format!("subset {subset} has {own} of {}", shares.total());
    if registered > 0 {
        note.push_str(&format!(", for a weight of {registered} in it"));
    }
    Factor {
        name,
        value,
        note,
        source,
    }
}

fn health(state: &ServiceState, backend: &BackendState, instance: &Source) -> Factor {
    let (healthy, note, source) = match (&backend.observed, &backend.instance.health) {
        (Observed::Unhealthy { since, reason }, _) => (
            false,
            with_detail("its probes fail", reason),
            Source::Probe(Some(*since)),
        ),
        (_, CatalogHealth::Critical(detail)) => (
            false,
            with_detail("critical in the catalog", detail),
            instance.clone(),
        ),
        (_, CatalogHealth::Warning(detail)) => (
            true,
            with_detail("warning in the catalog", detail),
            instance.clone(),
        ),
        (Observed::Healthy { since }, _) => {
            let note = "its probes succeed".to_owned();
            (true, note, Source::Probe(Some(*since)))
        }
        (Observed::Unknown, _) => {
            let note = match state.spec.probe {
                Some(_) => "not probed yet; the catalog's word counts",
                None => "passing in the catalog",
            };
            (true, note.to_owned(), instance.clone())
        }
    };
    let used = backend.weight > 0;
    let note = match (healthy, used) {
        (false, true) => format!("{note}, but too few others are healthy, so it is used"),
        _ => note,
    };
    Factor {
        name: "health",
        value: f64::from(u8::from(healthy || used)),
        note,
        source,
    }
}

fn with_detail(what: &str, detail: &str) -> String {
    if detail.is_empty() {
        what.into()
    } else {
        format!("{what}: {detail}")
    }
}

/// What the kernel holds of some services at one moment, as read from its maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeldByKernel {
    /// By VIP; `None`: there is no such entry.
    pub vips: BTreeMap<VipKey, Option<HeldVip>>,
    /// By service id; `None`: there is no table.
    pub tables: BTreeMap<u32, Option<HeldTable>>,
    /// By backend id; `None`: there is no such entry.
    pub backends: BTreeMap<u32, Option<HeldBackend>>,
}

/// The entry of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldVip {
    /// What it says.
    pub vip: KernelVip,
    /// Its flags, as they stand there.
    pub flags: u32,
}

/// A Maglev table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldTable {
    /// Number of the kernel's map.
    pub map: u32,
    /// Slots in it.
    pub slots: u32,
    /// Slots of each backend id, counted.
    pub by_backend: BTreeMap<u32, u32>,
}

/// The entry of a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldBackend {
    /// What it says.
    pub backend: KernelBackend,
    /// The address that the backend sees as the client.
    pub source: IpAddr,
    /// Interface that frames leave by; `None`: it is not known how to get there.
    pub interface: Option<String>,
    /// Link address that frames are sent to, as in `02:00:00:00:00:01`; `None`: the kernel finds it
    /// with the packet in hand, or the address is the node's own.
    pub mac: Option<String>,
    /// MTU of the interface.
    pub mtu: u32,
    /// The router that it is behind.
    pub router: Option<IpAddr>,
}

/// A service explained.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Name of the service.
    pub service: String,
    /// Why it is told of: `name`, `vip`, `backend`, `tag` or `service-router`.
    pub matched: &'static str,
    /// The same in words.
    pub because: String,
    /// Of each layer of the split, in the order of the layers of the state: who says so.
    pub layers: Vec<Source>,
    /// By backend, in the order of the state's.
    pub backends: Vec<ExplainedBackend>,
    /// Ids of the service in the kernel, one for each address family that it has a VIP of.
    pub ids: Vec<u32>,
    /// What the kernel holds of it.
    pub held: HeldByKernel,
}

/// A backend explained.
#[derive(Clone, Debug)]
pub struct ExplainedBackend {
    /// Where it listens.
    pub address: SocketAddr,
    /// The factors of its weight.
    pub factors: Vec<Factor>,
    /// Its id in the kernel; `None`: it has none.
    pub id: Option<u32>,
    /// Service id that it has it under.
    pub service: Option<u32>,
    /// Flows that exist now.
    pub flows: u64,
}

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A service by its name.
    Service(String),
    /// A VIP or the address of a backend; the protocol, if it matters.
    Address(SocketAddr, Option<super::service::Protocol>),
    /// Requests for a path of a host.
    Request(Request),
}

/// Requests for a path of a host, as far as tags and routers decide on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In small letters, without a port.
    pub host: String,
    /// Begins with a slash.
    pub path: String,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

impl Request {
    /// Whether a tag's route asks for them.
    pub fn fits(&self, route: &TagRoute) -> bool {
        let host = match route.host.as_deref() {
            None => true,
            Some(host) => match host.strip_prefix("*.") {
                // One label or more in the place of the star.
                Some(domain) => self
                    .host
                    .strip_suffix(domain)
                    .and_then(|rest| rest.strip_suffix('.'))
                    .is_some_and(|labels| !labels.is_empty()),
                None => host == self.host,
            },
        };
        host && self.path_fits(&route.path)
    }

    /// Whether a condition on paths holds.
    pub fn path_fits(&self, path: &Option<Text>) -> bool {
        match path {
            None | Some(Text::Present) => true,
            Some(Text::Exact(text)) => *text == self.path,
            Some(Text::Prefix(text)) => self.path.starts_with(text),
            Some(Text::Suffix(text)) => self.path.ends_with(text),
            // Consul's routers mean all of the path.
            Some(Text::Regex(text)) => regex::Regex::new(&format!("^(?:{text})$"))
                .is_ok_and(|one| one.is_match(&self.path)),
        }
    }

    /// Whether the host is a service's name, by itself or as the first part of one.
    pub fn names(&self, service: &str) -> bool {
        let rest = self.host.strip_prefix(&service.to_ascii_lowercase());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// How particular a route is: a whole name before a star before none, a long path before a
    /// short one.
    pub fn rank(route: &TagRoute) -> (u8, usize) {
        let host = match route.host.as_deref() {
            None => 0,
            Some(host) if host.starts_with("*.") => 1,
            Some(_) => 2,
        };
        let path = match &route.path {
            Some(Text::Exact(text)) => text.len() * 2 + 1,
            Some(Text::Prefix(text) | Text::Suffix(text) | Text::Regex(text)) => text.len() * 2,
            _ => 0,
        };
        (host, path)
    }
}

#[cfg(test)]
mod tests;
