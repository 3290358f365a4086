//! Where the proxy takes the connections to the VIPs of its services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// What the proxy tells of its sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyReport {
    /// By service: addresses that the proxy listens on for it: VIPs that are the node's own, and for
    /// each family at most one that the others are steered to.
    pub steering: BTreeMap<String, BTreeSet<SocketAddr>>,
    /// What does not work, each a sentence.
    pub problems: Vec<String>,
}
