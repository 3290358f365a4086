//! The interfaces where packets for the VIPs arrive: whether their drivers run XDP programs, and
//! what they do to frames before a program sees them.

mod read;

pub(super) use self::read::read;
use super::Finding;
use crate::{
    config::XdpMode,
    datapath::feature::{driver::has_local_stack, ethtool::Amount},
};

/// Drivers that run XDP programs, for kernels that do not say so themselves (before Linux 6.3).
const NATIVE: [&str; 22] = [
    "bnxt_en",
    "ena",
    "fec",
    "fsl_dpaa2_eth",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "nfp",
    "qede",
    "sfc",
    "veth",
    "virtio_net",
];

/// Above it, most drivers refuse programs that do not take frames in parts, as ours: what a page
/// of 4096 bytes has beside the room that XDP asks for (256 in front, 320 behind, and the header).
const LONGEST_MTU: u32 = 3498;

/// A ring that holds fewer frames loses bursts.
const SHORT_RING: u32 = 1024;

/// Bits of `enum netdev_xdp_act`.
const RUNS: u64 = 1;
const REDIRECTS: u64 = 2;

/// What is known of an interface; absent: the kernel or the driver does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    /// There is such an interface.
    pub(super) present: bool,
    pub(super) up: bool,
    pub(super) mtu: u32,
    pub(super) driver: Option<String>,
    /// Bits of `enum netdev_xdp_act`.
    pub(super) xdp: Option<u64>,
    pub(super) lro: Option<bool>,
    pub(super) gro_hw: Option<bool>,
    pub(super) strips_vlan: Option<bool>,
    pub(super) rx_checksum: Option<bool>,
    /// There are VLAN interfaces on top of it.
    pub(super) has_vlans: bool,
    /// Receive queues, and whether they are combined with those that send.
    pub(super) queues: Option<(Amount, bool)>,
    pub(super) ring: Option<Amount>,
    pub(super) processors: u32,
}

/// What to say of it, if it is to be used in this way.
pub(super) fn findings(link: &Link, mode: XdpMode) -> Vec<Finding> {
    let name = &link.name;
    let subject = |what: &str| format!("{name} {what}");
    if !link.present {
        return vec![Finding::missing(
            name.clone(),
            "there is no such interface",
            "`ip link` shows those there are; see `interfaces` under [node]",
        )];
    }
    let mut findings = vec![native(link, mode)];
    if !link.up {
        findings.push(Finding::advice(
            subject("state"),
            "it is down, so nothing arrives",
            format!("`ip link set dev {name} up`"),
        ));
    }
    findings.extend(mtu(link, mode));
    findings.extend(merging(link));
    findings.extend(vlan(link));
    if link.rx_checksum == Some(false) && runs_programs(link) != Some(false) {
        findings.push(Finding::advice(
            subject("checksums"),
            "the processor checks what the hardware could",
            format!("`ethtool -K {name} rx on`"),
        ));
    }
    findings.extend(queues(link));
    findings.extend(ring(link));
    findings
}

/// Whether it is left to tc for its driver's sake.
fn is_for_tc(link: &Link, mode: XdpMode) -> bool {
    mode == XdpMode::Auto && link.driver.as_deref().is_some_and(has_local_stack)
}

/// Whether the driver runs programs; `None`: nobody knows.
fn runs_programs(link: &Link) -> Option<bool> {
    match (link.xdp, link.driver.as_deref()) {
        (Some(bits), _) => Some(bits & RUNS != 0 && bits & REDIRECTS != 0),
        (None, Some(driver)) if NATIVE.contains(&driver) => Some(true),
        _ => None,
    }
}

fn native(link: &Link, mode: XdpMode) -> Finding {
    let subject = format!("{} XDP", link.name);
    let driver = link.driver.as_deref().unwrap_or("without a driver's name");
    if matches!(mode, XdpMode::Off | XdpMode::Generic) {
        let found = format!("driver {driver}; xdp_mode does without its support");
        return Finding::fine(subject, found);
    }
    if is_for_tc(link, mode) {
        let found =
            format!("driver {driver}; tc serves it, which takes what a local stack sends as it is");
        return Finding::fine(subject, found);
    }
    let slower = "it is served by tc, which costs more for each packet";
    match (runs_programs(link), mode) {
        (Some(true), _) => Finding::fine(subject, format!("driver {driver} runs programs")),
        (Some(false), XdpMode::Native) => Finding::missing(
            subject,
            format!("driver {driver} does not run and redirect"),
            "set xdp_mode = \"auto\" under [node], or use an interface whose driver does",
        ),
        (Some(false), _) => Finding::advice(
            subject,
            format!("driver {driver} does not run and redirect; {slower}"),
            "name the interface below it under [node] (of a VLAN, bridge or bond), or use another card",
        ),
        (None, _) => Finding::advice(
            subject,
            format!("driver {driver} is not known to run programs, and this kernel does not tell"),
            "`lb-agent status` says `native` once the agent runs, or that tc serves it",
        ),
    }
}

fn mtu(link: &Link, mode: XdpMode) -> Option<Finding> {
    // A veth gives frames of any length to its program.
    let bound = link.driver.as_deref() != Some("veth") && runs_programs(link) != Some(false);
    let without = matches!(mode, XdpMode::Off | XdpMode::Generic) || is_for_tc(link, mode);
    if link.mtu <= LONGEST_MTU || !bound || without {
        return None;
    }
    Some(Finding::advice(
        format!("{} MTU", link.name),
        format!(
            "with {} most drivers refuse XDP programs, which take frames in one piece of a page",
            link.mtu
        ),
        format!(
            "`ip link set dev {} mtu {LONGEST_MTU}` or less, on both ends; or leave it to tc",
            link.name
        ),
    ))
}

/// Frames that come merged are longer than any link takes.
fn merging(link: &Link) -> Vec<Finding> {
    let name = &link.name;
    let mut findings = Vec::new();
    if link.lro == Some(true) {
        findings.push(Finding::advice(
            format!("{name} LRO"),
            "frames are merged beyond what can be sent on; drivers refuse XDP with it",
            format!("`ethtool -K {name} lro off`"),
        ));
    }
    if link.gro_hw == Some(true) {
        findings.push(Finding::advice(
            format!("{name} GRO-HW"),
            "the hardware merges frames, and some drivers refuse XDP with it",
            format!("`ethtool -K {name} rx-gro-hw off`"),
        ));
    }
    if findings.is_empty() && link.lro.is_some() {
        findings.push(Finding::fine(
            format!("{name} LRO"),
            "the hardware merges no frames",
        ));
    }
    findings
}

fn vlan(link: &Link) -> Option<Finding> {
    let subject = format!("{} VLAN", link.name);
    match (link.strips_vlan?, link.has_vlans) {
        (true, true) => Some(Finding::advice(
            subject,
            "the driver takes VLAN tags off, where native XDP does not see them",
            format!("`ethtool -K {} rxvlan off`", link.name),
        )),
        (true, false) => Some(Finding::fine(
            subject,
            "tags are taken off by the driver; no VLAN is on top of it",
        )),
        (false, _) => Some(Finding::fine(subject, "tags are left in the frames")),
    }
}

/// Each queue is served by one processor at a time.
fn queues(link: &Link) -> Option<Finding> {
    let (Amount { current, most }, combined) = link.queues.filter(|(queues, _)| queues.most > 0)?;
    let kind = if combined { "combined" } else { "rx" };
    let subject = format!("{} queues", link.name);
    let useful = link.processors.min(most);
    if current >= useful {
        let all = if current < link.processors {
            ", which is all there can be"
        } else {
            ""
        };
        let found = format!("{current} for {} processors{all}", link.processors);
        return Some(Finding::fine(subject, found));
    }
    Some(Finding::advice(
        subject,
        format!(
            "{current} for {} processors, of {most} that there can be",
            link.processors
        ),
        format!("`ethtool -L {} {kind} {useful}`", link.name),
    ))
}

fn ring(link: &Link) -> Option<Finding> {
    let Amount { current, most } = link.ring.filter(|ring| ring.most > 0)?;
    let subject = format!("{} ring", link.name);
    let better = most.min(SHORT_RING);
    if current >= better {
        return Some(Finding::fine(subject, format!("{current} frames")));
    }
    Some(Finding::advice(
        subject,
        format!("{current} frames of {most} that there can be; bursts are lost"),
        format!("`ethtool -G {} rx {better}`", link.name),
    ))
}

#[cfg(test)]
mod tests;
