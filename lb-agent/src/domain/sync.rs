//! What is asked of a source of instances, what it has delivered, and how fresh that is.

use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

use super::{
    backend::Instance,
    config_entry::{ConfigEntry, EntryKind},
};

/// A question that is kept open. The lesser ones come first where not all can be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// All keys of the fleet ([`super::fleet::PREFIX`]).
    Keys,
    /// All configuration entries of a kind.
    Entries(EntryKind),
    /// The names of all services.
    Names,
    /// The instances of a service, by [`service_key`].
    Instances {
        /// Its name.
        service: String,
        /// Its datacenter, if not the one that is asked anyway.
        datacenter: Option<String>,
        /// With what is listed beside them.
        detail: bool,
    },
    /// The same of a service that may not concern this node at all: only asked from time to time.
    Glance(String),
}

impl Topic {
    /// The instances of a service, without detail.
    pub fn instances(service: &str, datacenter: Option<&str>) -> Self {
        Self::Instances {
            service: service.to_owned(),
            datacenter: datacenter.map(str::to_owned),
            detail: false,
        }
    }
}

/// The name of the watch, as in `health/echo`.
impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Topic::Keys => write!(f, "kv/{}", super::fleet::PREFIX),
            Topic::Entries(kind) => write!(f, "config/{kind}"),
            Topic::Names => f.write_str("catalog/services"),
            Topic::Instances {
                service,
                datacenter,
                ..
            } => write!(f, "health/{}", service_key(service, datacenter.as_deref())),
            Topic::Glance(service) => write!(f, "glance/{service}"),
        }
    }
}

/// What the instances of a service are filed under: `NAME`, or `NAME@DATACENTER`.
pub fn service_key(service: &str, datacenter: Option<&str>) -> String {
    match datacenter {
        Some(datacenter) => format!("{service}@{datacenter}"),
        None => service.to_owned(),
    }
}

/// A list as it came, by key.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed<V> {
    /// The source's index of the answer.
    pub index: u64,
    /// What it lists.
    pub values: Arc<BTreeMap<String, V>>,
}

impl<V> Default for Listed<V> {
    fn default() -> Self {
        Self {
            index: 0,
            values: Arc::default(),
        }
    }
}

/// Everything a dynamic source knows at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatalogState {
    /// Instances by [`service_key`]. A service that has never been answered for is absent; one
    /// that was answered with nothing has an empty list.
    pub services: BTreeMap<String, Arc<Vec<Instance>>>,
    /// The same of services that were only glanced at.
    pub glanced: BTreeMap<String, Arc<Vec<Instance>>>,
    /// Configuration entries by the service's name; a kind that was never answered for is absent.
    pub entries: BTreeMap<EntryKind, Listed<ConfigEntry>>,
    /// Values of the fleet's keys, by key without the prefix; `None`: never answered for.
    pub keys: Option<Listed<KeyValue>>,
    /// The tags of each service; `None`: never answered for.
    pub names: Option<Listed<Vec<String>>>,
    /// One entry per watch, by its name (for Consul: `health/SERVICE`).
    pub watches: BTreeMap<String, WatchStatus>,
}

/// What is written under a key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyValue {
    /// The text; bytes that are none are replaced.
    pub text: String,
    /// Consul's index of its last change.
    pub index: u64,
}

/// How one watch is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchStatus {
    /// When the source last gave a trusted answer, changed or not. `None`: never.
    pub last_success: Option<SystemTime>,
    /// When an answer last differed from the one before.
    pub last_change: Option<SystemTime>,
    /// The source's index of the last trusted answer.
    pub index: u64,
    /// What went wrong with the last try; `None`: nothing.
    pub error: Option<String>,
    /// Failed tries since the watch began.
    pub errors: u64,
}

impl CatalogState {
    /// Whether they differ in anything but times and counts.
    pub fn differs(&self, other: &Self) -> bool {
        self.services != other.services || self.differs_beside_services(other)
    }

    /// The same but for the instances of services.
    pub fn differs_beside_services(&self, other: &Self) -> bool {
        self.glanced != other.glanced
            || self.entries != other.entries
            || self.keys != other.keys
            || self.names != other.names
    }
}
