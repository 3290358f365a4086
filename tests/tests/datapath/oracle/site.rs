//! A client, a node and a backend, twice alike: on one node the kernel's own NAT is at work, on
//! the other the programs.
//!
//! Client and backend are nothing but the ends of cables: their stacks have no addresses and answer
//! nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lb_agent::datapath::Mode;
use lb_tests::{
    link::{self, End},
    namespace::Namespace,
    scratch::Scratch,
    wire::Wire,
    world::PORTS,
};

use super::{
    programs::Programs,
    segment::{Segment, TCP, UDP},
};
use crate::row::Side;

/// Link addresses: the client's, the node's towards it, the node's towards the backend, the
/// backend's.
pub(crate) const MACS: [[u8; 6]; 4] = [
    [2, 0, 0, 0, 0, 2],
    [2, 0, 0, 0, 0, 0xf0],
    [2, 0, 0, 0, 1, 0xf0],
    [2, 0, 0, 0, 1, 2],
];
/// The VIP of each family.
pub(crate) const VIPS: [&str; 2] = ["198.51.100.10", "2001:db8:100::10"];
/// The backend.
pub(crate) const BACKENDS: [&str; 2] = ["10.99.1.2", "fd99:1::2"];
/// The node, as the backend sees it.
pub(crate) const NODES: [&str; 2] = ["10.99.1.1", "fd99:1::1"];
/// The node, as the client sees it.
pub(crate) const FRONTS: [&str; 2] = ["10.99.0.1", "fd99::1"];
/// Hosts 2 up to this one are clients.
pub(crate) const CLIENTS: u8 = 9;
/// Protocol, port of the VIP and of the backend.
pub(crate) const SERVICES: [(u8, u16, u16); 3] = [(TCP, 80, 8080), (UDP, 53, 5353), MARK];
/// The service whose packets say that all before them have come through.
const MARK: (u8, u16, u16) = (UDP, 9, 7);
/// Whose packets these are.
const MARKER: &str = "10.99.0.250";
/// How long they may take. The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// What translates.
enum Means {
    Kernel,
    Programs { _running: Box<Programs> },
}

/// One of the two.
pub(crate) struct Site {
    front: Wire,
    back: Wire,
    /// Port that the marker's packets leave with.
    mark: u16,
    marks: u32,
    _means: Means,
    hosts: [Namespace; 3],
}

/// Where a frame came out, and the frame.
pub(crate) type Arrival = (Side, Vec<u8>);

/// What differs from one pair to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// MTU of the backend's link.
    pub(crate) mtu: u32,
    /// How the programs are attached.
    pub(crate) mode: Mode,
}

impl Site {
    /// With nftables.
    pub(crate) fn kernel(layout: &Layout) -> Result<Self> {
        let hosts = hosts(layout)?;
        let node = &hosts[1];
        for (key, value) in [
            ("ipv4.ip_forward", "1"),
            ("ipv6.conf.all.forwarding", "1"),
            // Whatever is in a packet, it is to be translated: what is checked here is how.
            ("netfilter.nf_conntrack_checksum", "0"),
            ("netfilter.nf_conntrack_tcp_be_liberal", "1"),
            ("netfilter.nf_conntrack_tcp_ignore_invalid_rst", "1"),
        ] {
            node.sysctl(key, value)?;
        }
        for vip in ["198.51.100.10/32", "2001:db8:100::10/128"] {
            node.tool("ip", &["address", "add", vip, "dev", "lo"])?;
        }
        load_rules(node, &rules())?;
        Self::with(hosts, Means::Kernel)
    }

    /// Gives nftables rules.
    pub(crate) fn load_rules(&self, rules: &str) -> Result<()> {
        load_rules(&self.hosts[1], rules)
    }

    /// With the programs, on the same hosts. The node does not forward: what comes out is theirs.
    pub(crate) fn programs(layout: &Layout) -> Result<Self> {
        let hosts = hosts(layout)?;
        for vip in VIPS {
            // What the programs leave to the stack ends there, without a word.
            hosts[1].tool("ip", &["route", "add", "blackhole", vip])?;
        }
        let programs = hosts[1].run(|| Programs::load(layout.mode))?;
        let means = Means::Programs {
            _running: Box::new(programs),
        };
        Self::with(hosts, means)
    }

    fn with(hosts: [Namespace; 3], means: Means) -> Result<Self> {
        let mut site = Self {
            front: Wire::open(&hosts[0], "eth0")?,
            back: Wire::open(&hosts[2], "eth0")?,
            mark: 0,
            marks: 0,
            _means: means,
            hosts,
        };
        // The way is there when the first mark comes through.
        for _ in 0..100 {
            site.front.send(&request_mark(0))?;
            if let Some(frame) = site.back.receive(Duration::from_millis(50))?
                && mark_of(&frame) == Some(0)
            {
                site.mark = u16::from_be_bytes([frame[34], frame[35]]);
                site.settle(&mut Vec::new())?;
                return Ok(site);
            }
        }
        bail!("nothing comes through")
    }

    fn wire(&mut self, side: Side) -> &mut Wire {
        match side {
            Side::Front => &mut self.front,
            Side::Back => &mut self.back,
        }
    }

    /// Sends frames, and returns what comes out because of them.
    pub(crate) fn play(&mut self, frames: &[(Side, Vec<u8>)]) -> Result<Vec<Arrival>> {
        let mut arrivals = Vec::new();
        for (side, frame) in frames {
            self.wire(*side).send(frame)?;
        }
        self.settle(&mut arrivals)?;
        Ok(arrivals)
    }

    /// What comes out late, if anything does for this long. A frame that the stack sends on or
    /// answers may be overtaken by a mark.
    pub(crate) fn late(&mut self, patience: Duration, arrivals: &mut Vec<Arrival>) -> Result<()> {
        for side in [Side::Front, Side::Back] {
            while let Some(frame) = self.wire(side).receive(patience)? {
                if mark_of(&frame).is_none() {
                    arrivals.push((side, frame));
                }
            }
        }
        Ok(())
    }

    /// Sends a mark each way and takes in everything before.
    fn settle(&mut self, arrivals: &mut Vec<Arrival>) -> Result<()> {
        self.marks += 1;
        self.front.send(&request_mark(self.marks))?;
        self.await_mark(Side::Back, arrivals)?;
        self.back.send(&reply_mark(self.marks, self.mark))?;
        self.await_mark(Side::Front, arrivals)
    }

    fn await_mark(&mut self, side: Side, arrivals: &mut Vec<Arrival>) -> Result<()> {
        let number = self.marks;
        loop {
            let frame = self.wire(side).receive(PATIENCE)?;
            let frame = frame.with_context(|| format!("mark {number} was lost"))?;
            match mark_of(&frame) {
                Some(mark) if mark == number => return Ok(()),
                Some(_) => {}
                None => arrivals.push((side, frame)),
            }
        }
    }
}

fn request_mark(number: u32) -> Vec<u8> {
    Segment {
        payload: number.to_be_bytes().to_vec(),
        ..Segment::new(UDP, (MARKER, 9), (VIPS[0], MARK.1))
    }
    .from(Side::Front)
}

fn reply_mark(number: u32, given: u16) -> Vec<u8> {
    Segment {
        payload: number.to_be_bytes().to_vec(),
        ..Segment::new(UDP, (BACKENDS[0], MARK.2), (NODES[0], given))
    }
    .from(Side::Back)
}

/// The number of a mark; `None`: it is none. Marks are plain IPv4 datagrams of 46 bytes.
fn mark_of(frame: &[u8]) -> Option<u32> {
    let udp = frame.len() == 46 && frame[12..15] == [8, 0, 0x45] && frame[23] == UDP;
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let mark = udp && (word(36) == MARK.2 || word(34) == MARK.1);
    mark.then(|| u32::from_be_bytes([frame[42], frame[43], frame[44], frame[45]]))
}

/// The hosts, connected: client, node, backend.
fn hosts(layout: &Layout) -> Result<[Namespace; 3]> {
    let [client, node, backend] = [
        Namespace::new("oracle-c")?,
        Namespace::new("oracle-n")?,
        Namespace::new("oracle-b")?,
    ];
    let cables = [
        (&client, MACS[0], "front", MACS[1], FRONTS),
        (&backend, MACS[3], "back", MACS[2], NODES),
    ];
    for (far, far_mac, near, near_mac, addresses) in cables {
        far.sysctl("ipv6.conf.all.disable_ipv6", "1")?;
        far.sysctl("ipv6.conf.default.disable_ipv6", "1")?;
        let addresses = [
            format!("{}/24", addresses[0]).parse()?,
            format!("{}/64", addresses[1]).parse()?,
        ];
        link::connect(
            End {
                namespace: &node,
                interface: near,
                addresses: &addresses,
            },
            End {
                namespace: far,
                interface: "eth0",
                addresses: &[],
            },
        )?;
        for (host, interface, mac) in [(&node, near, near_mac), (far, "eth0", far_mac)] {
            host.tool("ip", &["link", "set", interface, "address", &mac_text(mac)])?;
        }
    }
    for interface in ["front", "back"] {
        // Segments are to be seen one by one.
        node.tool("ethtool", &["-K", interface, "gro", "off"])?;
    }
    // All errors are sent.
    node.sysctl("ipv4.icmp_ratelimit", "0")?;
    node.sysctl("ipv4.icmp_msgs_per_sec", "1000000")?;
    node.sysctl("ipv4.icmp_msgs_burst", "1000000")?;
    node.sysctl("ipv6.icmp.ratelimit", "0")?;
    if layout.mtu != link::MTU {
        link::set_mtu(&node, "back", layout.mtu)?;
    }
    let clients =
        (2..=CLIENTS).flat_map(|host| [format!("10.99.0.{host}"), format!("fd99::{host}")]);
    let neighbours = clients
        .chain([MARKER.to_owned()])
        .map(|address| (address, "front", MACS[0]))
        .chain(BACKENDS.map(|address| (address.to_owned(), "back", MACS[3])));
    for (address, interface, mac) in neighbours {
        #[rustfmt::skip]
        node.tool("ip", &[
            "neigh", "add", &address, "lladdr", &mac_text(mac), "dev", interface, "nud", "permanent",
        ])?;
    }
    Ok([client, node, backend])
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn load_rules(node: &Namespace, rules: &str) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.join("rules.nft");
    std::fs::write(&file, rules).context("writing the rules")?;
    node.tool("nft", &["-f", &file.display().to_string()])
        .map(drop)
}

/// The same services for nftables.
fn rules() -> String {
    let mut text = String::new();
    for (family, v6) in [("ip", 0), ("ip6", 1)] {
        let [backend, node] = [BACKENDS[v6], NODES[v6]].map(|address| match v6 {
            0 => address.to_owned(),
            _ => format!("[{address}]"),
        });
        let (first, last) = PORTS;
        let mut there = String::new();
        for (proto, port, to) in SERVICES {
            let name = if proto == TCP { "tcp" } else { "udp" };
            let vip = VIPS[v6];
            there += &format!("{family} daddr {vip} {name} dport {port} dnat to {backend}:{to}\n");
        }
        text += &format!(
            "table {family} balance {{\n\
               chain there {{ type nat hook prerouting priority dstnat\n{there}}}\n\
               chain back {{\n\
                 type nat hook postrouting priority srcnat\n\
                 oifname back ct status dnat meta l4proto {{ tcp, udp }} snat to {node}:{first}-{last}\n\
               }}\n\
             }}\n"
        );
    }
    text
}
