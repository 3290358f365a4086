//! A host at the end of a cable, and what drops there.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_agent::{
    datapath::{Datapath, Mode, Options},
    domain::kernel::Kernel as _,
};
use lb_common::{flow::Lifetimes, maps::MIN_FLOW_SLOTS, verdict::Verdict};
use lb_tests::{
    bench::{Bare, Driver, block_rule},
    link::{self, End},
    namespace::Namespace,
    pins::Pins,
    process::wait_for,
    scratch::Scratch,
    world::PORTS,
};

/// The interface that the flood comes in on, in every receiver's namespace.
const INTERFACE: &str = "eth0";
/// Its link address: that of [`lb_tests::packet::Packet`].
const MAC: &str = "02:00:00:00:00:01";

/// Who drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// A program that drops everything without a look.
    Bare,
    /// Us.
    Agent,
    /// nftables at the ingress hook of the interface: behind the driver.
    Ingress,
    /// nftables at prerouting, priority raw: before connection tracking.
    Prerouting,
}

impl Side {
    /// The name in tables and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Bare => "bare XDP_DROP",
            Side::Agent => "lb-agent",
            Side::Ingress => "nftables ingress",
            Side::Prerouting => "nftables prerouting",
        }
    }
}

/// The sides and the lengths of their block lists. The bare program has none; its flood comes
/// from the sources of the first.
pub(crate) fn sides(rules: &[u32]) -> Vec<(Side, u32)> {
    let mut sides = vec![(Side::Bare, rules[0])];
    for rules in rules {
        sides.extend([
            (Side::Agent, *rules),
            (Side::Ingress, *rules),
            (Side::Prerouting, *rules),
        ]);
    }
    sides
}

/// A host with a side's way to drop.
pub(crate) struct Receiver {
    pub(crate) side: Side,
    /// Length of its block list.
    pub(crate) rules: u32,
    /// The sender's interface towards it.
    pub(crate) out: u32,
    // What drops goes before the host does.
    means: Means,
    host: Namespace,
}

/// What drops, kept as long as the receiver.
enum Means {
    Bare {
        _attached: Driver,
    },
    Agent {
        datapath: Box<Datapath>,
        _pins: Pins,
    },
    Nftables,
}

impl Means {
    fn bare(host: &Namespace, object: &[u8]) -> Result<Self> {
        let mut driver = Driver::load(object, MIN_FLOW_SLOTS)?;
        host.run(|| driver.attach(Bare::Drop, INTERFACE))?;
        Ok(Means::Bare { _attached: driver })
    }

    fn agent(host: &Namespace, rules: u32) -> Result<Self> {
        let pins = Pins::new()?;
        let options = Options {
            bpf_dir: pins.path().to_owned(),
            interfaces: vec![INTERFACE.into()],
            mode: Mode::Native,
            flow_slots: MIN_FLOW_SLOTS,
            ports: PORTS,
            lifetimes: Lifetimes::DEFAULT_SECONDS,
            cgroup: None,
            tc_filters: false,
            pending: None,
            announce: Vec::new(),
            grace: std::time::Duration::from_millis(200),
            budget: lb_agent::datapath::Budget::Auto,
            decapsulate: Vec::new(),
            decapsulate_from: Vec::new(),
        };
        let mut datapath = host.run(|| Datapath::open(&options))?;
        let rules: Vec<_> = (0..rules).map(block_rule).collect::<Result<_>>()?;
        datapath.block(&rules)?;
        Ok(Means::Agent {
            datapath: Box::new(datapath),
            _pins: pins,
        })
    }

    /// A set of the same prefixes, and a rule with a counter at the given place.
    fn nftables(host: &Namespace, rules: u32, family: &str, hook: &str) -> Result<Self> {
        let mut text = format!(
            "table {family} flood {{\n\
               counter dropped {{ }}\n\
               set blocked {{ type ipv4_addr; flags interval; elements = {{\n"
        );
        for number in 0..rules {
            writeln!(text, "{},", block_rule(number)?)?;
        }
        writeln!(
            text,
            "}} }}\n\
               chain in {{\n\
                 type filter hook {hook};\n\
                 ip saddr @blocked counter name dropped drop\n\
               }}\n\
             }}"
        )?;
        let scratch = Scratch::new()?;
        let file = scratch.join("rules.nft");
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        host.tool("nft", &["-f", &file.display().to_string()])?;
        Ok(Means::Nftables)
    }
}

impl Receiver {
    /// Lays the cable, number `number`, from the sender, and sets up what drops.
    pub(crate) fn new(
        sender: &Namespace,
        number: usize,
        side: Side,
        rules: u32,
        object: &[u8],
    ) -> Result<Self> {
        let host = Namespace::new(&format!("r{number}"))?;
        let interface = format!("to-r{number}");
        link::connect(
            End {
                namespace: sender,
                interface: &interface,
                addresses: &[],
            },
            End {
                namespace: &host,
                interface: INTERFACE,
                addresses: &["10.99.0.1/24".parse()?],
            },
        )?;
        host.tool("ip", &["link", "set", INTERFACE, "address", MAC])?;
        let out = sender.run(|| index(&interface))?;
        let means = match side {
            Side::Bare => Means::bare(&host, object),
            Side::Agent => Means::agent(&host, rules),
            Side::Ingress => {
                let hook = format!("ingress device \"{INTERFACE}\" priority -500");
                Means::nftables(&host, rules, "netdev", &hook)
            }
            Side::Prerouting => Means::nftables(&host, rules, "ip", "prerouting priority raw"),
        }?;
        Ok(Self {
            side,
            rules,
            out,
            means,
            host,
        })
    }

    /// Packets dropped so far, by this side's own word.
    pub(crate) fn dropped(&self) -> Result<u64> {
        match &self.means {
            Means::Bare { .. } => {
                let text = self.host.tool("ethtool", &["-S", INTERFACE])?;
                driver_drops(&text).context("the driver counts no drops of XDP")
            }
            Means::Agent { datapath, .. } => {
                Ok(datapath.verdicts()?[Verdict::DropBlocked as usize].packets)
            }
            Means::Nftables => {
                let text = self.host.tool("nft", &["list", "counters"])?;
                number_after(&text, "packets").context("nftables shows no counter")
            }
        }
    }

    /// Packets dropped since there were `before`; waits a little for those that are still under
    /// way, until there are `enough`.
    pub(crate) fn dropped_since(&self, before: u64, enough: f64) -> Result<u64> {
        let mut dropped = 0;
        let arrived = wait_for("the flood to arrive", Duration::from_secs(1), || {
            dropped = self.dropped()? - before;
            Ok((dropped as f64 >= enough).then_some(()))
        });
        // Whether it is enough, the caller decides and says.
        drop(arrived);
        Ok(dropped)
    }
}

/// Index of an interface of the calling thread's namespace.
fn index(interface: &str) -> Result<u32> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: a valid C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "no interface {interface}");
    Ok(index)
}

/// Sum over the queues of what veth's driver counts (drivers/net/veth.c, `veth_rq_stats_desc`).
fn driver_drops(statistics: &str) -> Option<u64> {
    let drops: Vec<u64> = statistics
        .lines()
        .filter(|line| line.contains("rx_queue_") && line.contains("xdp_drops:"))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    (!drops.is_empty()).then(|| drops.iter().sum())
}

/// The number that follows a word.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    words.find(|candidate| *candidate == word)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read() {
        let statistics = "NIC statistics:\n     peer_ifindex: 2\n     rx_queue_0_xdp_packets: 9\n     \
                          rx_queue_0_xdp_drops: 7\n     rx_queue_1_xdp_drops: 1\n";
        assert_eq!(driver_drops(statistics), Some(8));
        assert_eq!(driver_drops("NIC statistics:\n"), None);
        let counter = "table ip flood {\n\tcounter dropped {\n\t\tpackets 12 bytes 700\n\t}\n}\n";
        assert_eq!(number_after(counter, "packets"), Some(12));
        assert_eq!(number_after("", "packets"), None);
    }

    #[test]
    fn the_bare_program_is_measured_once() {
        let names: Vec<&str> = sides(&[10, 20])
            .iter()
            .map(|(side, _)| side.name())
            .collect();
        assert_eq!(names.len(), 7);
        assert_eq!(
            names
                .iter()
                .filter(|name| **name == "bare XDP_DROP")
                .count(),
            1
        );
    }
}
