//! Containers behind a bridge of the node, as container engines lay them out: veths whose peers do
//! not poll, with all their offloads on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use crate::{namespace::Namespace, topology::BACKEND_PORT};

/// Name of the bridge.
pub const BRIDGE: &str = "br0";

/// A bridge and the containers plugged into it; 172.30.0.0/24 and fd30::/64, the node is `.1`.
#[derive(Debug)]
pub struct Bridge {
    containers: Vec<Namespace>,
}

impl Bridge {
    /// Makes the bridge on `node`, and `count` containers.
    ///
    /// # Errors
    ///
    /// What `ip` refuses.
    pub fn new(node: &Namespace, count: u8) -> Result<Self> {
        let ip = |host: &Namespace, line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            host.tool("ip", &words).map(drop)
        };
        ip(node, &format!("link add {BRIDGE} type bridge"))?;
        ip(node, &format!("link set {BRIDGE} up"))?;
        ip(node, &format!("address add 172.30.0.1/24 dev {BRIDGE}"))?;
        ip(node, &format!("address add fd30::1/64 dev {BRIDGE} nodad"))?;
        let mut containers = Vec::new();
        for number in 1..=count {
            let container = Namespace::new(&format!("c{number}"))?;
            let name = container.name();
            ip(
                node,
                &format!("link add veth{number} type veth peer name eth0 netns {name}"),
            )?;
            ip(node, &format!("link set veth{number} master {BRIDGE} up"))?;
            ip(&container, "link set eth0 up")?;
            let host = number + 1;
            ip(
                &container,
                &format!("address add 172.30.0.{host}/24 dev eth0"),
            )?;
            ip(
                &container,
                &format!("address add fd30::{host}/64 dev eth0 nodad"),
            )?;
            ip(&container, "route add default via 172.30.0.1")?;
            ip(&container, "-6 route add default via fd30::1")?;
            containers.push(container);
        }
        Ok(Self { containers })
    }

    /// The containers; the first is number 1.
    pub fn containers(&self) -> &[Namespace] {
        &self.containers
    }

    /// Where container `number` (from 1) listens, IPv4 and IPv6.
    pub fn addresses(number: u8) -> [SocketAddr; 2] {
        let host = number + 1;
        let v6 = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, u16::from(host));
        [
            IpAddr::from(Ipv4Addr::new(172, 30, 0, host)),
            IpAddr::from(v6),
        ]
        .map(|ip| SocketAddr::new(ip, BACKEND_PORT))
    }
}
