//! The node, and how frames leave it.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{
    flow::{Kind, Lifetimes},
    verdict::Verdict,
};

use super::{
    Model, Prediction,
    fault::Fault,
    link::{Link, Tag},
    rewrite::Expected,
    table::{Half, Way},
};
use crate::world::action;

/// A node's interface that the programs run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub ifindex: u32,
    /// Its link address.
    pub mac: [u8; 6],
    /// Bytes that an IP packet may have there.
    pub mtu: usize,
    /// It takes no frames of its own back by `XDP_TX`.
    pub no_tx: bool,
    /// The node's addresses there that are known, one a family.
    pub addresses: [Option<IpAddr>; 2],
}

/// Who a backend is reached by; all of them at [`Node::back`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The link address.
    pub mac: [u8; 6],
    /// Bytes that an IP packet may have.
    pub mtu: usize,
    /// VLAN tags that frames to it have.
    pub tags: Vec<Tag>,
}

/// What frames alone do not change.
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
    /// XDP leaves packets whose checksum is yet to be computed to tc.
    pub leaves_pending: bool,
    /// Those of backends that are resolved.
    pub neighbours: BTreeMap<IpAddr, Neighbour>,
    /// Addresses of the node that backends see, one a family.
    pub sources: [IpAddr; 2],
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

    /// The way to a neighbour.
    pub(super) fn towards(&self, neighbour: &Neighbour) -> Way {
        Way {
            ifindex: self.back.ifindex,
            smac: self.back.mac,
            dmac: neighbour.mac,
            tags: neighbour.tags.clone(),
        }
    }
}

/// How a half's packets leave at present.
pub(super) struct Departure {
    pub(super) way: Way,
    /// Bytes that an IP packet may have.
    pub(super) mtu: usize,
}

impl Model {
    /// How the packets of a half leave: to the backend as it is reached now, to the client by the
    /// way that is remembered.
    pub(super) fn departure(&self, half: &Half) -> Result<Departure, Verdict> {
        match half.kind {
            Kind::Forward => {
                let neighbour = self.node.neighbours.get(&half.new_dst.ip());
                let neighbour = neighbour.ok_or(Verdict::PassUnresolved)?;
                Ok(Departure {
                    way: self.node.towards(neighbour),
                    mtu: if self.errs(Fault::ForgetsTheHeader) {
                        neighbour.mtu
                    } else {
                        neighbour.mtu.saturating_sub(half.around())
                    },
                })
            }
            Kind::Reply => {
                let interface = self.node.interface(half.way.ifindex);
                Ok(Departure {
                    way: half.way.clone(),
                    mtu: interface.ok_or(Verdict::DropInternal)?.mtu,
                })
            }
        }
    }

    /// Sends a packet, ready from its network header on, by a way. Its tags are those of the way,
    /// its priority that of the frame it came in.
    pub(super) fn send(
        &self,
        verdict: Verdict,
        packet: Expected,
        link: &Link,
        way: &Way,
        ingress: u32,
    ) -> Prediction {
        let mut header = Link {
            dmac: way.dmac,
            smac: way.smac,
            tags: way.tags.clone(),
            ..*link
        };
        if self.errs(Fault::KeepsTags) {
            header.tags.clone_from(&link.tags);
        }
        if self.errs(Fault::DropsPriority) {
            header.priority = 0;
        }
        Prediction {
            verdict,
            action: self.action(way.ifindex, ingress),
            frame: Some(packet.behind(&header)),
        }
    }

    /// Sends a frame, ready from its first byte on, out of the interface that it came in by.
    pub(super) fn send_back(&self, verdict: Verdict, frame: Expected, ingress: u32) -> Prediction {
        Prediction {
            verdict,
            action: self.action(ingress, ingress),
            frame: Some(frame),
        }
    }

    fn action(&self, egress: u32, ingress: u32) -> u32 {
        let refuses = self.node.interface(ingress).is_some_and(|own| own.no_tx);
        if egress == ingress && !refuses {
            action::TX
        } else {
            action::REDIRECT
        }
    }
}
