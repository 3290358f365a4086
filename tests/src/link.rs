//! Cables between hosts: veth pairs, set up so that XDP can forward between them.

use std::{io::Write, process::Stdio};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;

use crate::namespace::Namespace;

/// MTU of a link unless told otherwise.
pub const MTU: u32 = 1500;

/// One end of a link.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The host it is plugged into.
    pub namespace: &'a Namespace,
    /// Name of the interface there, at most 15 bytes.
    pub interface: &'a str,
    /// Addresses with their prefix length; the first of each family is the preferred source.
    pub addresses: &'a [IpNet],
}

/// Connects two hosts.
///
/// Both ends get `tx off`, as frames from a wire are, for XDP leaves to tc what a local stack has not
/// summed up, and `gro on`, for a frame redirected into a veth is lost unless the peer polls.
pub fn connect(one: End<'_>, other: End<'_>) -> Result<()> {
    #[rustfmt::skip]
    one.namespace.tool("ip", &[
        "link", "add", "name", one.interface, "type", "veth",
        "peer", "name", other.interface, "netns", other.namespace.name(),
    ])?;
    for end in [one, other] {
        configure(end)?;
    }
    Ok(())
}

fn configure(end: End<'_>) -> Result<()> {
    let interface = end.interface;
    let mut batch = format!("link set dev {interface} mtu {MTU} up\n");
    let (mut v4, mut v6) = (0, 0);
    for address in end.addresses {
        // The kernel prefers the first IPv4 address by itself, for IPv6 the others must be
        // marked as deprecated; they can be bound nevertheless.
        let (flags, count) = match address {
            IpNet::V4(_) => ("", &mut v4),
            IpNet::V6(_) if v6 > 0 => ("nodad preferred_lft 0", &mut v6),
            IpNet::V6(_) => ("nodad", &mut v6),
        };
        *count += 1;
        batch += &format!("address add {address} dev {interface} {flags}\n");
    }
    batch_ip(end.namespace, &batch)?;
    // Only now that it is up: a veth tells its peer that it may redirect here when GRO is
    // switched on while it runs (drivers/net/veth.c, `veth_set_features`).
    end.namespace
        .tool("ethtool", &["-K", interface, "tx", "off", "gro", "on"])?;
    Ok(())
}

/// Switches on what [`connect`] switches off, as on links in service: checksums are left to the
/// device, and a segment may be larger than the MTU until the device cuts it.
pub fn offload(namespace: &Namespace, interface: &str) -> Result<()> {
    let on = [
        "-K", interface, "tx", "on", "gso", "on", "tso", "on", "gro", "on",
    ];
    namespace.tool("ethtool", &on).map(drop)
}

/// Adds a route to `destination` through the router `via`.
pub fn route(namespace: &Namespace, destination: IpNet, via: std::net::IpAddr) -> Result<()> {
    batch_ip(namespace, &format!("route add {destination} via {via}\n"))
}

/// Changes the MTU of one interface, for a path that is narrower in one place.
pub fn set_mtu(namespace: &Namespace, interface: &str, mtu: u32) -> Result<()> {
    batch_ip(namespace, &format!("link set dev {interface} mtu {mtu}\n"))
}

/// Runs `ip` once over many commands, one a line.
fn batch_ip(namespace: &Namespace, commands: &str) -> Result<()> {
    let mut child = namespace
        .command("ip")?
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `ip -batch`")?;
    child
        .stdin
        .take()
        .expect("standard input is piped")
        .write_all(commands.as_bytes())
        .context("cannot write to `ip -batch`")?;
    let output = child.wait_with_output().context("`ip -batch` was lost")?;
    ensure!(
        output.status.success(),
        "`ip -batch` failed in {}: {}; it was to do:\n{commands}",
        namespace.name(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
