//! What the agent must find out about the host it runs on: ports that are free for translated
//! flows, and addresses that it would be foolish to block.

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Context as _, bail};
use tracing::warn;

use crate::{config::Config, domain::block::Vital};

/// The larger of the two port ranges that the host's own connections do not use: below and above
/// its ephemeral range.
pub(crate) fn free_port_range() -> anyhow::Result<(u16, u16)> {
    const FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = fs::read_to_string(FILE).with_context(|| format!("reading {FILE}"))?;
    let mut words = text.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(first)), Some(Ok(last))) = (words.next(), words.next()) else {
        bail!("{FILE} says {text:?}, which is no range of ports; set node.nat_ports");
    };
    let below = (1024, first.saturating_sub(1).max(1024));
    let above = (last.saturating_add(1), u16::MAX);
    let size = |(first, last): (u16, u16)| u32::from(last.saturating_sub(first));
    let range = if size(below) >= size(above) {
        below
    } else {
        above
    };
    if size(range) < 1000 {
        bail!(
            "the host's ephemeral range {first}-{last} leaves no room for translated flows; narrow it (sysctl net.ipv4.ip_local_port_range) or set node.nat_ports"
        );
    }
    Ok(range)
}

/// Addresses of the Consul server, which must not be blocked.
pub(crate) async fn consul_addresses(config: &Config) -> Vec<IpAddr> {
    let Some(consul) = &config.consul else {
        return Vec::new();
    };
    let host = consul.address.split("://").last().unwrap_or_default();
    let host = if host
        .rsplit(']')
        .next()
        .is_some_and(|rest| rest.contains(':'))
    {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    match tokio::time::timeout(Duration::from_secs(2), tokio::net::lookup_host(&host)).await {
        Ok(Ok(addresses)) => addresses
            .map(|address| address.ip().to_canonical())
            .collect(),
        Ok(Err(error)) => {
            warn!(%error, host, "the Consul server's address is not known, so it is not kept from being blocked");
            Vec::new()
        }
        Err(_) => {
            warn!(
                host,
                "the Consul server's name is not resolved in time, so its address is not kept from being blocked"
            );
            Vec::new()
        }
    }
}

/// What would be foolish to block besides the backends.
pub(crate) fn vital(consul: &[IpAddr]) -> Vital {
    let mut addresses: Vec<(IpAddr, String)> = consul
        .iter()
        .map(|address| (*address, "the Consul server".to_owned()))
        .collect();
    match own_addresses() {
        Ok(own) => addresses.extend(own.map(|(interface, ip)| {
            let what = format!("this node's own address on {interface}");
            (ip, what)
        })),
        Err(error) => warn!(%error, "the node's own addresses are not known"),
    }
    Vital { addresses }
}

/// The node's own addresses, each with the name of its interface.
///
/// # Errors
///
/// The kernel does not tell.
pub(crate) fn own_addresses() -> nix::Result<impl Iterator<Item = (String, IpAddr)>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    Ok(interfaces.filter_map(|interface| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let ip = v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
        Some((interface.interface_name, ip))
    }))
}
