//! The sections `[node]` and `[metrics]`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use lb_common::maps::{DEFAULT_FLOW_SLOTS, MAX_FLOW_SLOTS, MAX_INTERFACES, MIN_FLOW_SLOTS};
use toml::{Spanned, de::DeValue};

use super::{
    held,
    locate::Report,
    scalar,
    table::{Table, elements},
};

/// Name of the socket, beside the agent's, of the process that holds listening sockets.
pub const HELD_SOCKETS: &str = "held.sock";

/// Longest name of an interface: `IFNAMSIZ` of `linux/if.h`, less the final zero.
const MAX_INTERFACE_NAME: usize = 15;

/// How often the kernel is compared with what was written there, unless told otherwise.
const DRIFT_CHECK: Duration = Duration::from_secs(10);

/// Section `[node]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Interfaces where packets for the VIPs arrive: 1 to 16, each once.
    pub interfaces: Vec<String>,
    /// Those of `interfaces` where the node answers for VIPs that are no addresses of its own.
    pub announce: Vec<String>,
    /// How the XDP program is attached.
    pub xdp_mode: XdpMode,
    /// Where the last good state is kept; absolute.
    pub state_dir: PathBuf,
    /// Where the socket of the command line stands; absolute.
    pub runtime_dir: PathBuf,
    /// Where programs and maps are pinned; absolute, on a BPF file system.
    pub bpf_dir: PathBuf,
    /// Slots of the flow table of each address family; a power of two.
    pub flow_slots: u32,
    /// New flows admitted a second, all together.
    pub new_flows: NewFlows,
    /// Ports that flows are given on the node's own addresses.
    pub nat_ports: NatPorts,
    /// Send the calls of processes on this node to VIPs to backends.
    pub local_clients: bool,
    /// The cgroup (version 2) of those processes, absolute; `None`: all of them.
    pub cgroup: Option<PathBuf>,
    /// VIPs that this node holds for others: packets for them that come within another header are
    /// freed of it, and handed to the stack. Each once.
    pub decapsulate: Vec<IpAddr>,
    /// Where such packets may come from, of each family that there are such VIPs of; empty: from
    /// anywhere.
    pub decapsulate_from: Vec<IpNet>,
    /// As whom the agent works, if it is started as root.
    pub user: RunAs,
    /// How often all that the kernel holds is compared with what was written there.
    pub drift_check: Duration,
}

impl NodeConfig {
    /// The socket that the command line talks to.
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir.join("agent.sock")
    }

    /// Where the process listens that holds the proxy's listening sockets over a restart.
    pub fn held_sockets(&self) -> PathBuf {
        self.runtime_dir.join(HELD_SOCKETS)
    }
}

/// As whom the agent works, if it is started as root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RunAs {
    /// As the user `lb-agent`, where there is one; else as root.
    #[default]
    Auto,
    /// As this user; `root` stays what it is.
    User(String),
}

/// How the XDP program is attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver where it can, else not at all: tc does the work.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the stack, in front of everything else there.
    Generic,
    /// Not at all: tc does the work.
    Off,
}

/// Ports that flows are given on the node's own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NatPorts {
    /// Chosen at start, clear of the host's ephemeral ports.
    #[default]
    Auto,
    /// As configured, both ends included.
    Range {
        /// First port, at least 1024.
        first: u16,
        /// Last port, not below the first.
        last: u16,
    },
}

/// How many new flows are admitted, so that a flood cannot turn the flow tables over faster than
/// clients can answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewFlows {
    /// Twice as many a second as a flow table has slots.
    #[default]
    Auto,
    /// As many as come.
    Unlimited,
    /// So many a second, above zero.
    PerSecond(u32),
}

/// Section `[metrics]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Where `/metrics` is served.
    pub listen: SocketAddr,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 9180).into(),
        }
    }
}

/// Reads `[node]`.
pub(super) fn node(mut table: Table, report: &mut Report) -> NodeConfig {
    let mut path = |key, default: &str, report: &mut Report| {
        table
            .get(key, report, scalar::path)
            .unwrap_or_else(|| default.into())
    };
    let state_dir = path("state_dir", "/var/lib/lb-agent", report);
    let runtime_dir = path("runtime_dir", "/run/lb-agent", report);
    let bpf_dir = path("bpf_dir", "/sys/fs/bpf/lb-agent", report);
    let interfaces = interfaces(&mut table, report);
    let (decapsulate, decapsulate_from) = held::decapsulate(&mut table, report);
    let config = NodeConfig {
        announce: announce(&mut table, &interfaces, report),
        interfaces,
        xdp_mode: table.get("xdp_mode", report, xdp_mode).unwrap_or_default(),
        state_dir,
        runtime_dir,
        bpf_dir,
        flow_slots: table
            .get("flow_slots", report, flow_slots)
            .unwrap_or(DEFAULT_FLOW_SLOTS),
        new_flows: table
            .get("new_flows", report, new_flows)
            .unwrap_or_default(),
        nat_ports: table
            .get("nat_ports", report, nat_ports)
            .unwrap_or_default(),
        local_clients: table
            .get("local_clients", report, scalar::boolean)
            .unwrap_or_default(),
        cgroup: table.get("cgroup", report, scalar::path),
        decapsulate,
        decapsulate_from,
        user: table
            .get("user", report, scalar::word)
            .map_or(RunAs::Auto, RunAs::User),
        drift_check: table
            .get("drift_check", report, |value| {
                scalar::duration(value, Duration::from_secs(1)..=Duration::from_secs(3600))
            })
            .unwrap_or(DRIFT_CHECK),
    };
    table.close(report);
    config
}

/// Reads `[metrics]`.
pub(super) fn metrics(mut table: Table, report: &mut Report) -> MetricsConfig {
    let listen = table.get("listen", report, scalar::listen);
    table.close(report);
    listen.map_or_else(MetricsConfig::default, |listen| MetricsConfig { listen })
}

fn interfaces(table: &mut Table, report: &mut Report) -> Vec<String> {
    let Some(value) = table.value("interfaces") else {
        report.add(
            &table.span,
            "`interfaces` is missing under [node]; name those where packets for the VIPs arrive, as \
             in interfaces = [\"eth0\"]",
        );
        return Vec::new();
    };
    let Some(names) = elements(value, report, interface) else {
        return Vec::new();
    };
    let written = value.get_ref().as_array().map_or(0, |array| array.len());
    if !(1..=MAX_INTERFACES).contains(&written) {
        report.add(
            &value.span(),
            format!("must name 1 to {MAX_INTERFACES} interfaces"),
        );
    }
    let mut seen = BTreeSet::new();
    for name in &names {
        if !seen.insert(name.get_ref()) {
            report.add(
                &name.span(),
                format!("interface `{}` is named twice; remove one", name.get_ref()),
            );
        }
    }
    names.into_iter().map(Spanned::into_inner).collect()
}

/// Names among those of `interfaces`, each once.
fn announce(table: &mut Table, interfaces: &[String], report: &mut Report) -> Vec<String> {
    let Some(value) = table.value("announce") else {
        return Vec::new();
    };
    let names = elements(value, report, interface).unwrap_or_default();
    let mut announce = Vec::new();
    for name in names {
        if !interfaces.contains(name.get_ref()) {
            let reason = format!(
                "`{}` is not one of `interfaces`, where packets for the VIPs arrive; name it there too",
                name.get_ref()
            );
            report.add(&name.span(), reason);
        } else if announce.contains(name.get_ref()) {
            let reason = format!("interface `{}` is named twice; remove one", name.get_ref());
            report.add(&name.span(), reason);
        } else {
            announce.push(name.into_inner());
        }
    }
    announce
}

/// A name that the kernel would accept (`dev_valid_name` of `net/core/dev.c`).
fn interface(value: &DeValue) -> Result<String, String> {
    let name = scalar::string(value)?;
    let fits = (1..=MAX_INTERFACE_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if fits {
        Ok(name)
    } else {
        Err(format!(
            "`{name}` is no name of an interface; `ip link` shows those there are"
        ))
    }
}

fn xdp_mode(value: &DeValue) -> Result<XdpMode, String> {
    match scalar::string(value)?.as_str() {
        "auto" => Ok(XdpMode::Auto),
        "native" => Ok(XdpMode::Native),
        "generic" => Ok(XdpMode::Generic),
        "off" => Ok(XdpMode::Off),
        other => Err(format!(
            "`{other}` is no XDP mode; use `auto`, `native`, `generic` or `off`"
        )),
    }
}

fn flow_slots(value: &DeValue) -> Result<u32, String> {
    let slots = scalar::integer(value, MIN_FLOW_SLOTS..=MAX_FLOW_SLOTS)?;
    if slots.is_power_of_two() {
        Ok(slots)
    } else {
        Err(format!(
            "must be a power of two; near {slots} are {} and {}",
            slots.next_power_of_two() / 2,
            slots.next_power_of_two()
        ))
    }
}

fn new_flows(value: &DeValue) -> Result<NewFlows, String> {
    if value.as_str().is_some() {
        return match scalar::string(value)?.as_str() {
            "auto" => Ok(NewFlows::Auto),
            "unlimited" => Ok(NewFlows::Unlimited),
            other => Err(format!(
                "`{other}` is no budget for new flows; write \"auto\", \"unlimited\" or a number a second"
            )),
        };
    }
    scalar::integer(value, 1..=u32::MAX).map(NewFlows::PerSecond)
}

fn nat_ports(value: &DeValue) -> Result<NatPorts, String> {
    let text = scalar::string(value)?;
    if text == "auto" {
        return Ok(NatPorts::Auto);
    }
    let range = || {
        let (first, last) = text.split_once('-')?;
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    match range() {
        Some((first, last)) if 1024 <= first && first <= last => {
            Ok(NatPorts::Range { first, last })
        }
        Some(_) => Err(format!(
            "`{text}` is no range of ports; the first must be at least 1024 and not above the last"
        )),
        None => Err(format!(
            "`{text}` is no range of ports; write \"auto\" or \"FIRST-LAST\", as in \"40000-59999\""
        )),
    }
}
