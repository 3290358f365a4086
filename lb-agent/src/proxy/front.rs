//! Where connections of clients come in: sockets, threads, and what is done before the first
//! request.

mod accepted;
mod admission;
mod certificates;
mod connection;
mod crew;
mod ending;
mod gathering;
mod guard;
mod header;
pub mod holder;
mod http1;
mod http2;
mod life;
mod pool;
mod present;
mod processor;
mod rounds;
mod socket;
mod stream;
mod unread;
mod visit;
mod worker;

#[cfg(test)]
mod tests;

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use tokio_rustls::TlsAcceptor;

use self::certificates::Certificates;
pub use self::pool::Pool;
use crate::{config::proxy::ListenerConfig, surroundings};

/// Names in the certificates of a listener, sorted.
///
/// # Errors
///
/// A file that cannot be read, or does not hold what it should; it is named.
pub fn certificate_names(config: &ListenerConfig) -> anyhow::Result<Vec<String>> {
    Ok(Certificates::read(&config.certificates)?.names())
}

/// Why a connection ends before its time; for the log.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The node's own addresses.
#[derive(Debug, Default)]
pub struct OwnAddresses {
    all: HashSet<IpAddr>,
    /// Of the interfaces of the datapath, in their order, without those of one link only.
    facing: Vec<IpAddr>,
}

impl OwnAddresses {
    /// Whether the node has this address.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.all.contains(&ip)
    }

    /// The first address of a family that others reach the node by.
    pub fn first(&self, v6: bool) -> Option<IpAddr> {
        self.facing.iter().find(|ip| ip.is_ipv6() == v6).copied()
    }
}

/// Reads them; an interface that is not there has none.
pub fn own_addresses(interfaces: &[String]) -> OwnAddresses {
    let mut found = OwnAddresses::default();
    let Ok(all) = surroundings::own_addresses() else {
        return found;
    };
    let mut facing = Vec::new();
    for (interface, ip) in all {
        found.all.insert(ip);
        let one_link = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_loopback(),
        };
        let place = interfaces.iter().position(|name| *name == interface);
        if let (Some(place), false) = (place, one_link) {
            facing.push((place, ip));
        }
    }
    facing.sort_by_key(|(place, _)| *place);
    found.facing = facing.into_iter().map(|(_, ip)| ip).collect();
    found
}

/// A listening socket as connections see it.
struct Place {
    /// The service of a VIP; `None`: requests are routed by their host.
    service: Option<Arc<str>>,
    /// Connections begin with a PROXY protocol header.
    proxy_protocol: bool,
    /// Connections speak TLS.
    tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Place")
            .field("service", &self.service)
            .field("proxy_protocol", &self.proxy_protocol)
            .field("tls", &self.tls.is_some())
            .finish()
    }
}
