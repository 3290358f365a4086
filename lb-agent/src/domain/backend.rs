//! What a backend is: an instance of a service as its catalog lists it.

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::detail::Detail;

/// Identity of an instance within its service, stable over changes of address and weight.
///
/// From Consul: `NODE/SERVICE-ID`. From the file: the address. Everything that is known of an
/// instance is filed under it, so that copies share the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub Arc<str>);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the catalog says of an instance's health: the worst of its checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status", content = "detail")]
pub enum CatalogHealth {
    /// All checks pass, or there are none.
    Passing,
    /// The worst check warns; its name and output.
    Warning(String),
    /// The worst check is critical; its name and output.
    Critical(String),
    /// Taken out by a person; the reason given. Drains.
    Maintenance(String),
}

/// One instance of a service. There may be a hundred thousand: what most of them have alike is
/// shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Identity within the service.
    pub id: InstanceId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Registered weight that applies at its present catalog health; 0 takes no new flows.
    pub weight: u32,
    /// Tags.
    pub tags: Arc<Vec<String>>,
    /// Meta entries.
    pub meta: Arc<BTreeMap<String, String>>,
    /// The subset it names itself (file catalog only).
    pub subset: Option<String>,
    /// What the catalog says of its health.
    pub health: CatalogHealth,
    /// What is listed beside it, if anybody asks about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Arc<Detail>>,
}
