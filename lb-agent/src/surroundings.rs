//! What the agent must find out about the host it runs on: its name, ports that are free for translated
//! flows, addresses that it would be foolish to block, files that it may have open.

use std::{fs, io, net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::{config::Config, domain::block::Vital};

/// First and last port; none if the first is above the last.
pub(crate) type PortRange = (u16, u16);

/// With so many ports or fewer for translated flows the agent does not start.
pub(crate) const TOO_FEW_PORTS: u32 = 1000;

/// Where the kernel's own settings of the network are.
const NETWORK: &str = "/proc/sys/net";

/// The host's name, as the kernel has it.
pub(crate) fn host_name() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(text.trim().to_owned())
}

/// Bytes that a line such as `VmRSS:   1234 kB` tells of, as in proc_pid_status(5) and proc_meminfo(5).
pub(crate) fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// How many ports there are in a range.
pub(crate) fn count_ports((first, last): PortRange) -> u32 {
    u32::from(last.saturating_sub(first)) + u32::from(last >= first)
}

/// The range of ports that the host's own connections use; `settings` is /proc/sys/net.
///
/// # Errors
///
/// The kernel does not tell, or tells something else.
pub(crate) fn ephemeral_ports(settings: &Path) -> anyhow::Result<PortRange> {
    let path = settings.join("ipv4/ip_local_port_range");
    let file = path.display();
    let text = fs::read_to_string(&path).with_context(|| format!("reading {file}"))?;
    let mut words = text.split_whitespace().map(str::parse::<u16>);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok((first, last)),
        _ => bail!("{file} says {text:?}, which is no range of ports; set node.nat_ports"),
    }
}

/// The larger of the two ranges that the host's own one leaves, below and above it.
pub(crate) fn ports_beside((first, last): PortRange) -> PortRange {
    let below = (1024, first.saturating_sub(1));
    let above = match last {
        u16::MAX => (1, 0),
        last => (last + 1, u16::MAX),
    };
    if count_ports(below) >= count_ports(above) {
        below
    } else {
        above
    }
}

/// Ports for translated flows that the host's own connections do not use.
pub(crate) fn free_port_range() -> anyhow::Result<PortRange> {
    let (first, last) = ephemeral_ports(Path::new(NETWORK))?;
    let range = ports_beside((first, last));
    if count_ports(range) <= TOO_FEW_PORTS {
        bail!(
            "the host's ephemeral range {first}-{last} leaves no room for translated flows; narrow it (sysctl net.ipv4.ip_local_port_range) or set node.nat_ports"
        );
    }
    Ok(range)
}

/// Has this process open as many files as it may at most (setrlimit(2)): shells and systemd give 1024
/// until a program asks for more. Answers how many these are; `None`: any number.
pub(crate) fn raise_open_files() -> Option<u64> {
    let most = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => most,
        Err(_) => getrlimit(Resource::Nofile).current,
    }
}

/// Files that the proxy may need: each client's connection has one to a backend.
pub(crate) fn files_needed(connections: usize) -> u64 {
    2 * connections as u64 + 1024
}

/// What to tell if that is fewer than the proxy may need.
pub(crate) fn too_few_files(files: Option<u64>, connections: usize) -> Option<String> {
    let needed = files_needed(connections);
    let files = files.filter(|files| *files < needed)?;
    Some(format!(
        "this process may have {files} files open, and proxy.bounds.connections = {connections} may need {needed}: \
         raise its limit (LimitNOFILE, ulimit -Hn) or lower the bound"
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        let rows = [
            ("VmHWM:\t 9 kB\nVmRSS:\t  12345 kB\n", Some(12_641_280)),
            ("VmRSS:\t12345\n", None),
            ("VmRSS:\tmuch kB\n", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(bytes_of(text, "VmRSS:"), expected, "{text:?}");
        }
    }

    #[test]
    fn files_are_raised_and_too_few_are_told() {
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(raise_open_files(), limit.maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
        assert_eq!(too_few_files(None, 20_000), None);
        assert_eq!(too_few_files(Some(41_024), 20_000), None);
        let problem = too_few_files(Some(41_023), 20_000).unwrap();
        assert!(
            problem.contains("41023") && problem.contains("41024"),
            "{problem}"
        );
    }
}
