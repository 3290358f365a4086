//! What the datapath must do, written a second time, as plainly as can be.
//!
//! The model is told the same steps as the kernel half and predicts of every frame the verdict,
//! the XDP action and each byte of what leaves. It follows the documentation, not the programs:
//! lists and maps instead of slots and bits, checksums computed over the whole packet instead of
//! differences. From `lb_common` it takes bare facts: names of verdicts and states, lifetimes, and
//! the hash, where both sides must choose alike; from the domain the Maglev table.
//!
//! It knows the XDP hook only: what the tc hook does, and backends on the node itself, stay outside.
//! So do races between CPUs, and both budgets: that for new flows must be unlimited, and that for the
//! node's own errors never empty.
//!
//! - [`link`], [`parse`], [`extension`]: bytes to a description; [`sum`]: checksums.
//! - [`destination`]: the filter, services, blocks: what the agent has written.
//! - [`table`]: the flows and where they lie; [`flow`]: their states and times.
//! - [`select`]: backend and port of a new flow; [`rewrite`]: the packet that leaves; [`node`]: by
//!   which way, and what does not change.
//! - [`fragment`]: parts of packets; [`error`]: ICMP errors from elsewhere; [`answer`], [`echo`]:
//!   what the node says itself.
//! - [`fault`]: rules that are wrong on purpose, to see that they are found out.

pub mod answer;
pub mod destination;
pub mod echo;
pub mod error;
pub mod extension;
pub mod fault;
pub mod flow;
pub mod fragment;
pub mod link;
pub mod node;
pub mod parse;
pub mod rewrite;
pub mod select;
pub mod server_return;
pub mod sum;
pub mod table;

use std::collections::BTreeMap;

use lb_common::{
    flow::Kind,
    verdict::{Action, Verdict},
};

pub use self::node::{Interface, Neighbour, Node};
use self::{
    answer::Trouble,
    destination::Destinations,
    fault::Fault,
    flow::Noted,
    fragment::{First, Whole},
    link::Link,
    parse::{ICMP, ICMPV6, Parsed},
    rewrite::Expected,
    table::{Half, Table},
};
use crate::world::action;

/// What must become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// The verdict that is counted.
    pub verdict: Verdict,
    /// The XDP action.
    pub action: u32,
    /// The frame afterwards; `None`: as it was.
    pub frame: Option<Expected>,
}

/// The node and everything it remembers.
#[derive(Clone, Debug)]
pub struct Model {
    /// What does not change.
    pub node: Node,
    /// What the agent has written.
    pub destinations: Destinations,
    /// IPv4 and IPv6 flows.
    pub tables: [Table; 2],
    /// First fragments.
    pub fragments: BTreeMap<Whole, First>,
    /// Time in seconds.
    pub now: u64,
    /// A rule that is wrong on purpose.
    pub fault: Option<Fault>,
    /// Flows begun so far; their names.
    pub begun: u64,
}

impl Model {
    /// A node that nothing has happened to.
    pub fn new(node: Node) -> Self {
        Self {
            destinations: Destinations::default(),
            tables: [Table::new(&node), Table::new(&node)],
            fragments: BTreeMap::new(),
            node,
            now: 0,
            fault: None,
            begun: 0,
        }
    }

    /// The flows of a family.
    pub fn table(&mut self, v6: bool) -> &mut Table {
        &mut self.tables[usize::from(v6)]
    }

    /// Whether a wrong rule is in force.
    pub(crate) fn errs(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Takes a frame in, and predicts what becomes of it.
    pub fn receive(&mut self, frame: &[u8], ingress: u32) -> Prediction {
        match self.decide(frame, ingress) {
            Ok(prediction) => prediction,
            Err(verdict) => Prediction {
                verdict,
                action: match verdict.action() {
                    Action::Drop | Action::Hold => action::DROP,
                    _ => action::PASS,
                },
                frame: None,
            },
        }
    }

    fn decide(&mut self, frame: &[u8], ingress: u32) -> Result<Prediction, Verdict> {
        let link = Link::read(frame)?;
        let ip = parse::network(frame, &link)?;
        if !self.errs(Fault::BlocksNobody)
            && let Some(counter) = self.destinations.blocked(ip.src)
        {
            counter.packets += 1;
            counter.bytes += frame.len() as u64;
            return Err(Verdict::DropBlocked);
        }
        if !self.destinations.may_be_ours(ip.dst) {
            return Err(Verdict::PassForeign);
        }
        let ip = ip.behind_extensions(frame, self.fault)?;
        if ip.is_later_fragment() && !self.errs(Fault::FragmentsAreWhole) {
            return self.follow_first(frame, &link, &ip, ingress);
        }
        if ip.proto == if ip.is_v6() { ICMPV6 } else { ICMP } {
            return if echo::is_request(frame, &ip) {
                self.answer_echo(frame, &link, &ip, ingress)
            } else {
                self.translate_error(frame, &link, &ip, ingress)
            };
        }
        let transport = parse::transport(frame, &ip)?;
        let given = self.node.gives(transport.dport);
        if !given && !self.destinations.may_be_service(&ip, &transport) {
            return Err(Verdict::PassForeign);
        }
        let packet = Parsed {
            link,
            ip,
            transport,
        };
        if self.node.leaves_pending
            && sum::is_pending(&frame[packet.ip.l4..], &packet)
            && !self.errs(Fault::SendsPending)
        {
            return Err(Verdict::PassUnresolved);
        }
        match self.flow_of(&packet, ingress) {
            Ok(half) => self.transmit(frame, &packet, &half, ingress),
            Err(Verdict::DropTtlExceeded) => self.tell(frame, &packet, Trouble::LastHop, ingress),
            Err(verdict) => Err(verdict),
        }
    }

    /// The half of the flow that the packet belongs to, or of the one that it begins.
    fn flow_of(&mut self, packet: &Parsed, ingress: u32) -> Result<Half, Verdict> {
        let key = packet.key();
        let v6 = packet.ip.is_v6();
        if self.table(v6).find(&key).is_some() {
            match self.note(packet, ingress) {
                Noted::GoesOn => {}
                Noted::Over => {
                    self.table(v6).release(&key);
                    self.begin(packet, ingress)?;
                }
                Noted::Superseded => {
                    let now = self.now;
                    self.table(v6).supersede(&key, now);
                    self.begin(packet, ingress)?;
                }
                Noted::Stray => {
                    self.begin(packet, ingress)?;
                }
            }
        } else {
            self.begin(packet, ingress)?;
        }
        self.table(v6)
            .find(&key)
            .cloned()
            .ok_or(Verdict::DropInternal)
    }

    fn transmit(
        &mut self,
        frame: &[u8],
        packet: &Parsed,
        half: &Half,
        ingress: u32,
    ) -> Result<Prediction, Verdict> {
        let departure = self.departure(half)?;
        if packet.ip.ttl <= 1 {
            return self.tell(frame, packet, Trouble::LastHop, ingress);
        }
        if packet.ip.length() > departure.mtu && !self.errs(Fault::IgnoresMtu) {
            return self.tell(frame, packet, Trouble::TooBig(departure.mtu), ingress);
        }
        self.remember(&packet.ip, Some(half));
        if half.is_alone() {
            let (of, by) = ((&packet.link, &packet.ip), (half, &departure));
            return self.pass_on(Self::forwarded(half), frame, of, by, ingress);
        }
        self.count(half, frame);
        let out = rewrite::apply(frame, packet, half, self.fault);
        let verdict = Self::forwarded(half);
        Ok(self.send(verdict, out, &packet.link, &departure.way, ingress))
    }

    /// Counts a frame of a flow that leaves.
    fn count(&mut self, half: &Half, frame: &[u8]) {
        self.destinations
            .count(half.backend, half.kind, frame.len() as u64);
    }

    /// The verdict for what a half sends on.
    fn forwarded(half: &Half) -> Verdict {
        match half.kind {
            Kind::Forward => Verdict::ForwardRequest,
            Kind::Reply => Verdict::ForwardReply,
        }
    }
}
