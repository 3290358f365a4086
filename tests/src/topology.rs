//! The usual layout: a client, the node, and backends behind it.
//!
//! ```text
//!                 10.77.0.0/24           10.77.1.0/24
//!   client eth0 ---------------- node ---------------- eth0 backend 1
//!   .2, .3              to-client .1  | to-b1 .1    .2
//!                                     |  10.77.2.0/24
//!                                     +--------------- eth0 backend 2 ...
//! ```
//!
//! The same with fd77:N::/64. The client routes the VIPs, 198.51.100.0/24 and 2001:db8:100::/64,
//! to the node. The node does not forward and the backends know no way back to the client, so
//! that nothing but the load balancer brings a packet through.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use anyhow::{Result, ensure};
use ipnet::IpNet;

use crate::{
    backend::Backend,
    link::{self, End},
    namespace::Namespace,
    scratch::Scratch,
};

/// Port that the echo service listens on in every backend.
pub const BACKEND_PORT: u16 = 8080;

/// Client, node and backends, connected. Removed when dropped.
#[derive(Debug)]
pub struct Topology {
    client: Namespace,
    node: Namespace,
    backends: Vec<Namespace>,
    scratch: Scratch,
}

impl Topology {
    /// Lays out a client, the node, and `backends` (0..=250) backends.
    pub fn new(backends: usize) -> Result<Self> {
        ensure!(backends <= 250, "a topology has at most 250 backends");
        let topology = Self {
            client: Namespace::new("client")?,
            node: Namespace::new("node")?,
            backends: (1..=backends)
                .map(|number| Namespace::new(&format!("b{number}")))
                .collect::<Result<_>>()?,
            scratch: Scratch::new()?,
        };
        topology.connect()?;
        Ok(topology)
    }

    fn connect(&self) -> Result<()> {
        self.node.sysctl("ipv4.ip_forward", "0")?;
        self.node.sysctl("ipv6.conf.all.forwarding", "0")?;
        // A test opens more connections than there are ports in the usual range, and none of
        // them has anything to fear from its predecessor.
        self.client
            .sysctl("ipv4.ip_local_port_range", "1024 65535")?;
        self.client.sysctl("ipv4.tcp_tw_reuse", "1")?;
        link::connect(
            End {
                namespace: &self.node,
                interface: CLIENT_LINK,
                addresses: &[net4(0, 1), net6(0, 1)],
            },
            End {
                namespace: &self.client,
                interface: "eth0",
                addresses: &[net4(0, 2), net6(0, 2), net4(0, 3), net6(0, 3)],
            },
        )?;
        for (destination, via) in [
            ("198.51.100.0/24", address4(0, 1)),
            ("2001:db8:100::/64", address6(0, 1)),
        ] {
            let destination = destination.parse().expect("a valid prefix");
            link::route(&self.client, destination, via)?;
        }
        for (number, backend) in (1..).zip(&self.backends) {
            link::connect(
                End {
                    namespace: &self.node,
                    interface: &backend_link(number),
                    addresses: &[net4(number, 1), net6(number, 1)],
                },
                End {
                    namespace: backend,
                    interface: "eth0",
                    addresses: &[net4(number, 2), net6(number, 2)],
                },
            )?;
        }
        Ok(())
    }

    /// Has all hosts use the congestion control that every kernel has and that every namespace may choose,
    /// whatever this machine's is: BBR, say, paces by a timer for each connection, which would be
    /// measured with every side and be a large part of it.
    pub fn congestion_control_of_every_kernel(&self) -> Result<()> {
        for host in self.backends.iter().chain([&self.client, &self.node]) {
            host.sysctl("ipv4.tcp_congestion_control", "reno")?;
        }
        Ok(())
    }

    /// The host that sends requests.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The host that the agent runs on.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// The hosts that answer; backend 1 is the first.
    pub fn backends(&self) -> &[Namespace] {
        &self.backends
    }

    /// The node's interfaces: the one to the client, then those to the backends.
    pub fn node_interfaces(&self) -> Vec<String> {
        let mut names = vec![CLIENT_LINK.to_owned()];
        names.extend(
            (1..)
                .zip(&self.backends)
                .map(|(number, _)| backend_link(number)),
        );
        names
    }

    /// The client's addresses: the one it uses by itself, and a second one to be bound.
    pub fn client_addresses(&self) -> [IpAddr; 2] {
        [address4(0, 2), address4(0, 3)]
    }

    /// The same for IPv6.
    pub fn client_addresses6(&self) -> [IpAddr; 2] {
        [address6(0, 2), address6(0, 3)]
    }

    /// Where backend `number` (from 1) listens.
    pub fn backend_address(&self, number: u8) -> SocketAddr {
        SocketAddr::new(address4(number, 2), BACKEND_PORT)
    }

    /// The same for IPv6.
    pub fn backend_address6(&self, number: u8) -> SocketAddr {
        SocketAddr::new(address6(number, 2), BACKEND_PORT)
    }

    /// Directory of this run.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// Starts the echo service on backend `number` (from 1), on both families, under the name
    /// `b<number>`, and waits until it answers.
    pub fn start_echo(&self, number: u8) -> Result<Backend> {
        Backend::start(
            &self.backends[usize::from(number) - 1],
            &format!("b{number}"),
            &[self.backend_address(number), self.backend_address6(number)],
            self.directory(),
        )
    }
}

/// The node's interface towards the client.
const CLIENT_LINK: &str = "to-client";

fn backend_link(number: u8) -> String {
    format!("to-b{number}")
}

fn address4(link: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, link, host).into()
}

/// The link's number is written in decimal where the address has hexadecimal, so that link 12 is
/// fd77:12::/64 to the reader.
fn address6(link: u8, host: u8) -> IpAddr {
    let link = u16::from_str_radix(&link.to_string(), 16).expect("digits are hexadecimal");
    Ipv6Addr::new(0xfd77, link, 0, 0, 0, 0, 0, u16::from(host)).into()
}

fn net4(link: u8, host: u8) -> IpNet {
    IpNet::new_assert(address4(link, host), 24)
}

fn net6(link: u8, host: u8) -> IpNet {
    IpNet::new_assert(address6(link, host), 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_carry_the_number_of_the_link() {
        assert_eq!(net4(3, 2).to_string(), "10.77.3.2/24");
        assert_eq!(net6(0, 1).to_string(), "fd77::1/64");
        assert_eq!(net6(12, 2).to_string(), "fd77:12::2/64");
    }
}
