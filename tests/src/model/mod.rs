//! What the datapath must do, written a second time, as plainly as can be.
//!
//! The model is told the same steps as the kernel half and predicts of every frame the verdict,
//! the XDP action and each byte of what leaves. It follows the documentation, not the programs:
//! lists and maps instead of slots and bits, checksums computed over the whole packet instead of
//! differences. From `lb_common` it takes bare facts: names of verdicts and states, lifetimes, and
//! the hash, where both sides must choose alike; from the domain the Maglev table.
//!
//! It knows the XDP hook only: what the tc hook does, and backends on the node itself, stay outside.
//! So do races between CPUs, and the budget for new flows, which must be unlimited.
//!
//! - [`parse`]: bytes to a description; [`sum`]: checksums.
//! - [`destination`]: the filter, services, blocks: what the agent has written.
//! - [`table`]: the flows and where they lie; [`flow`]: their states and times.
//! - [`select`]: backend and port of a new flow; [`rewrite`]: the frame that leaves.
//! - [`fault`]: rules that are wrong on purpose, to see that they are found out.

pub mod destination;
pub mod fault;
pub mod flow;
pub mod parse;
pub mod rewrite;
pub mod select;
pub mod sum;
pub mod table;

use std::{collections::BTreeMap, net::IpAddr};

use lb_agent::domain::service::Forwarding;
use lb_common::{
    flow::{Kind, Lifetimes},
    verdict::{Action, Verdict},
};

use self::{
    destination::Destinations,
    fault::Fault,
    flow::Noted,
    parse::Parsed,
    rewrite::Expected,
    table::{Half, Table},
};
use crate::world::action;

/// Bytes of the longest packet that leaves by an interface.
const MTU: usize = 1500;

/// A node's interface that the programs run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub ifindex: u32,
    /// Its link address.
    pub mac: [u8; 6],
}

/// What does not change while frames come in.
#[derive(Clone, Debug)]
pub struct Node {
    /// Seed of the hash.
    pub seed: u64,
    /// Slots of each flow table.
    pub slots: u32,
    /// First and last port that flows may be given.
    pub ports: (u16, u16),
    /// Idle times in seconds.
    pub lifetimes: Lifetimes,
    /// How long a flow that is not established is safe from newer ones, in seconds.
    pub grace: u64,
    /// Towards the clients.
    pub front: Interface,
    /// Towards the backends.
    pub back: Interface,
    /// Interfaces that take no frames of their own back by `XDP_TX`.
    pub no_tx: Vec<u32>,
    /// Link addresses of the backends that are resolved; all at [`Self::back`].
    pub neighbours: BTreeMap<IpAddr, [u8; 6]>,
    /// Addresses of the node that backends see, one a family.
    pub sources: [IpAddr; 2],
}

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
        let ip = parse::network(frame)?;
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
        let transport = parse::transport(frame, &ip, self.fault)?;
        let given = self.node.gives(transport.dport);
        if !given && !self.destinations.may_be_service(&ip, &transport) {
            return Err(Verdict::PassForeign);
        }
        let packet = Parsed { ip, transport };
        let half = self.flow_of(frame, &packet, ingress)?;
        self.transmit(frame, &packet, &half, ingress)
    }

    /// The half of the flow that the packet belongs to, or of the one that it begins.
    fn flow_of(&mut self, frame: &[u8], packet: &Parsed, ingress: u32) -> Result<Half, Verdict> {
        let key = packet.key();
        let v6 = packet.ip.is_v6();
        if self.table(v6).find(&key).is_some() {
            match self.note(frame, packet, ingress) {
                Noted::GoesOn => {}
                Noted::Over => {
                    self.table(v6).release(&key);
                    self.begin(frame, packet, ingress)?;
                }
                Noted::Superseded => {
                    let now = self.now;
                    self.table(v6).supersede(&key, now);
                    self.begin(frame, packet, ingress)?;
                }
                Noted::Stray => {
                    self.begin(frame, packet, ingress)?;
                }
            }
        } else {
            self.begin(frame, packet, ingress)?;
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
        if packet.ip.ttl <= 1 {
            return Err(Verdict::DropTtlExceeded);
        }
        let frame_out = if half.forwarding == Forwarding::Nat {
            rewrite::apply(frame, packet, half, self.fault)
        } else {
            let tunnel = half.forwarding == Forwarding::DsrIpip;
            let around = if tunnel && !self.errs(Fault::ForgetsTheHeader) {
                packet.ip.header_length()
            } else {
                0
            };
            if packet.ip.length() + around > MTU {
                return Err(Verdict::DropTooBig);
            }
            let hash = self.tables[usize::from(packet.ip.is_v6())].hash(&half.key);
            rewrite::pass_on(frame, packet, half, hash, self.fault)
        };
        let verdict = match half.kind {
            Kind::Forward => Verdict::ForwardRequest,
            Kind::Reply => Verdict::ForwardReply,
        };
        self.destinations
            .count(half.backend, half.kind, frame.len() as u64);
        let back = half.way.ifindex == ingress && !self.node.no_tx.contains(&ingress);
        let action = if back { action::TX } else { action::REDIRECT };
        Ok(Prediction {
            verdict,
            action,
            frame: Some(frame_out),
        })
    }
}

impl Node {
    /// Whether flows may be given this port.
    pub fn gives(&self, port: u16) -> bool {
        (self.ports.0..=self.ports.1).contains(&port)
    }

    /// The interface of an index.
    pub(crate) fn interface(&self, ifindex: u32) -> Option<Interface> {
        [self.front, self.back]
            .into_iter()
            .find(|interface| interface.ifindex == ifindex)
    }

    /// The address of the node that backends of a family see.
    pub(crate) fn source(&self, v6: bool) -> IpAddr {
        self.sources[usize::from(v6)]
    }
}
