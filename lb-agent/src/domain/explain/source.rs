//! Who says a fact.

use std::{fmt, path::PathBuf, time::SystemTime};

use crate::domain::author::Author;

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
    /// What traffic met, since then.
    Traffic(SystemTime),
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
            Source::Traffic(_) => "traffic",
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
            Source::Traffic(since) => Some(*since),
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
            Source::Traffic(_) => f.write_str("what traffic met"),
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
