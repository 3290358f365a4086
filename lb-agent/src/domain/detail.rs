//! What Consul lists beside an instance: its node and its checks.
//!
//! Only filters ask about that, and it takes far more memory than the instance, so it is kept of
//! services that such a filter chooses from, and of no others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is listed beside one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// Name of the service.
    pub service: String,
    /// Address of the instance as registered; empty: it has its node's.
    pub address: String,
    /// Weights as registered: while its checks pass, and while one warns.
    pub weights: (u32, u32),
    /// Its further addresses, by their names.
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    /// Whether others than its own agent may set its tags.
    pub enable_tag_override: bool,
    /// Whether it speaks the mesh's protocol by itself.
    pub connect_native: bool,
    /// Id of the node.
    pub node_id: String,
    /// Address of the node.
    pub node_address: String,
    /// Datacenter of the node.
    pub datacenter: String,
    /// Meta entries of the node.
    pub node_meta: BTreeMap<String, String>,
    /// The node's further addresses, by their names.
    pub node_tagged_addresses: BTreeMap<String, String>,
    /// Checks of the instance and of its node.
    pub checks: Vec<Check>,
}

/// A further address of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaggedAddress {
    /// The address.
    pub address: String,
    /// The port there.
    pub port: i64,
}

/// A check as registered, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// Id, unique on its node.
    pub id: String,
    /// Name.
    pub name: String,
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// Node that it is of.
    pub node: String,
    /// How it is made: `http`, `tcp`, `ttl` and so on; empty where nobody said so.
    pub kind: String,
    /// What a person wrote of it.
    pub notes: String,
    /// What it found.
    pub output: String,
    /// Id of the instance that it is of; empty: it is of the node.
    pub service_id: String,
    /// Name of that instance's service.
    pub service_name: String,
    /// Tags of that instance.
    pub service_tags: Vec<String>,
}
