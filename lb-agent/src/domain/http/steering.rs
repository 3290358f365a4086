//! Where the proxy takes the connections to the VIPs of its services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// What the proxy tells of its sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyReport {
    /// By service: addresses of the node that VIPs are steered to; empty where the proxy listens
    /// on the VIPs themselves, or nowhere.
    pub steering: BTreeMap<String, BTreeSet<SocketAddr>>,
    /// What does not work, each a sentence.
    pub problems: Vec<String>,
}
