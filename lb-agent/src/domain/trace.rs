//! Watching single packets: which ones, and what is told of each.

use std::{net::SocketAddr, time::SystemTime};

use ipnet::IpNet;
use lb_common::{
    IPPROTO_TCP, IPPROTO_UDP,
    verdict::{Action, Verdict},
};

use super::kernel::KernelError;

/// IANA protocol number of ICMP.
pub const IPPROTO_ICMP: u8 = 1;
/// IANA protocol number of ICMPv6.
pub const IPPROTO_ICMPV6: u8 = 58;

/// What packets may be told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP of either family.
    Icmp,
}

impl PacketProtocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }

    /// IANA protocol numbers, twice the same where there is one.
    pub fn numbers(self) -> [u8; 2] {
        match self {
            Self::Tcp => [IPPROTO_TCP; 2],
            Self::Udp => [IPPROTO_UDP; 2],
            Self::Icmp => [IPPROTO_ICMP, IPPROTO_ICMPV6],
        }
    }
}

/// A set of verdicts, a bit for each discriminant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictSet(pub u64);

impl VerdictSet {
    /// Every verdict.
    pub fn all() -> Self {
        Verdict::ALL.iter().copied().collect()
    }

    /// Whether it is one of them.
    pub fn contains(self, verdict: Verdict) -> bool {
        self.0 >> verdict as u32 & 1 == 1
    }

    /// The verdicts of these names; the name of an action stands for all of its verdicts.
    ///
    /// # Errors
    ///
    /// The first name that is neither.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownVerdict> {
        let mut set = Self(0);
        for name in names {
            let named =
                |verdict: &&Verdict| [verdict.name(), verdict.action().name()].contains(&name);
            let found: Self = Verdict::ALL.iter().filter(named).copied().collect();
            if found.0 == 0 {
                return Err(UnknownVerdict(name.to_owned()));
            }
            set.0 |= found.0;
        }
        Ok(set)
    }
}

impl FromIterator<Verdict> for VerdictSet {
    fn from_iter<I: IntoIterator<Item = Verdict>>(verdicts: I) -> Self {
        let bits = verdicts.into_iter().map(|verdict| 1 << verdict as u32);
        Self(bits.fold(0, |set, bit: u64| set | bit))
    }
}

/// No verdict and no action is called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no verdict `{}`; there are {}", .0, known_verdicts())]
pub struct UnknownVerdict(pub String);

fn known_verdicts() -> String {
    let groups = [
        Action::Drop,
        Action::Pass,
        Action::Forward,
        Action::Answer,
        Action::Hold,
    ];
    let group = |action: Action| {
        let names: Vec<&str> = Verdict::ALL
            .iter()
            .filter(|verdict| verdict.action() == action)
            .map(|verdict| verdict.name())
            .collect();
        format!("{} ({})", action.name(), names.join(", "))
    };
    groups.map(group).join(", ")
}

/// Which packets a watcher wants. All conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketFilter {
    /// The source, as it came in or as it was sent on.
    pub src: Option<IpNet>,
    /// The destination, as it came in or as it was sent on; of the same family.
    pub dst: Option<IpNet>,
    /// How it ended.
    pub verdicts: VerdictSet,
    /// What it carries.
    pub protocol: Option<PacketProtocol>,
    /// Source or destination port, as it came in or as it was sent on.
    pub port: Option<u16>,
    /// Bytes of the frame to keep.
    pub snap: u16,
    /// Events a second on each CPU; what is beyond counts as lost.
    pub rate: u32,
}

impl PacketFilter {
    /// Everything, without bytes.
    pub fn everything(rate: u32) -> Self {
        Self {
            src: None,
            dst: None,
            verdicts: VerdictSet::all(),
            protocol: None,
            port: None,
            snap: 0,
            rate,
        }
    }

    /// Whether the event is of a packet that is wanted.
    pub fn wants(&self, event: &PacketEvent) -> bool {
        let ends = [event.ends, event.sent];
        let any = |test: &dyn Fn(&Ends) -> bool| ends.iter().flatten().any(test);
        self.verdicts.contains(event.verdict)
            && self.protocol.is_none_or(|protocol| {
                event
                    .protocol
                    .is_some_and(|n| protocol.numbers().contains(&n))
            })
            && self
                .src
                .is_none_or(|net| any(&|ends| net.contains(&ends.src.ip())))
            && self
                .dst
                .is_none_or(|net| any(&|ends| net.contains(&ends.dst.ip())))
            && self.port.is_none_or(|port| {
                any(&|ends| event.has_ports && [ends.src.port(), ends.dst.port()].contains(&port))
            })
    }
}

/// Where a packet comes from and where it goes; port 0 where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
}

/// A packet and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketEvent {
    /// When it came in.
    pub at: SystemTime,
    /// How it ended.
    pub verdict: Verdict,
    /// Index of the interface it came in on.
    pub ingress: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// EtherType behind VLAN tags.
    pub ethertype: u16,
    /// IANA protocol number; `None`: no IP.
    pub protocol: Option<u8>,
    /// As it came in; `None`: no IP.
    pub ends: Option<Ends>,
    /// As its flow has it leave; `None`: of no known flow.
    pub sent: Option<Ends>,
    /// Id of its flow's backend.
    pub backend: Option<u32>,
    /// It carries ports.
    pub has_ports: bool,
    /// It is a fragment.
    pub fragment: bool,
    /// TCP flags.
    pub flags: u8,
    /// ICMP type and code.
    pub icmp: [u8; 2],
    /// The frame's first bytes as it came in, as many as some watcher wanted.
    pub bytes: Vec<u8>,
}

/// What became of the events of one slot, summed over CPUs, since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// Handed over.
    pub events: u64,
    /// Not handed over: beyond the rate, or no room.
    pub lost: u64,
}

/// The kernel's side of the trace. Implemented by `datapath`, and by a fake for tests.
pub trait Tap: Send {
    /// Puts a watcher's filter in force, or takes it out.
    ///
    /// # Errors
    ///
    /// A map that cannot be written.
    fn set(&mut self, slot: usize, filter: Option<&PacketFilter>) -> Result<(), KernelError>;

    /// Switches the trace on until it is renewed, or off. It falls by itself some seconds after
    /// the last call.
    ///
    /// # Errors
    ///
    /// A map that cannot be written.
    fn switch(&mut self, on: bool) -> Result<(), KernelError>;

    /// Hands over what has come in, at most `most` events; answers with their number.
    fn drain(&mut self, most: usize, see: &mut dyn FnMut(PacketEvent)) -> usize;

    /// Counters of each slot.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    fn counts(&self) -> Result<Vec<SlotCounts>, KernelError>;
}

#[cfg(test)]
pub(crate) mod tests;
