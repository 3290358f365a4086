//! How clients and backends are reached: MTUs, VLAN tags, the node's own addresses.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{entry::hop_flags::NO_TX, maps::MIN_FLOW_SLOTS, vlan::Tags};
use lb_tests::{
    model::{Interface, Model, Neighbour, Node, link::Tag},
    world::{BACK_MAC, FRONT_MAC, NODE, NODE6, PORTS, World, backend_mac},
};

use super::arena::{GRACE, LIFETIMES, anchor};
use crate::{chance::Random, memory, row::Side, traffic::ip};

/// The MTU that everything begins with.
const MTU: usize = 1500;
/// Host numbers of the backends that are resolved.
const HOSTS: std::ops::RangeInclusive<u8> = 2..=9;

/// What changes.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A backend is reached with another MTU, and its frames have these tags.
    Neighbour(IpAddr, usize, Vec<Tag>),
    /// An interface has another MTU, takes frames back by `XDP_TX` or not, and its addresses are
    /// known or not.
    Interface {
        side: Side,
        mtu: usize,
        no_tx: bool,
        known: bool,
    },
}

fn neighbours() -> impl Iterator<Item = (IpAddr, [u8; 6])> {
    HOSTS.flat_map(|host| {
        let mac = backend_mac(host);
        [format!("10.99.1.{host}"), format!("fd99:1::{host}")].map(|text| (ip(&text), mac))
    })
}

/// The node's addresses on an interface.
fn addresses(side: Side) -> [Option<IpAddr>; 2] {
    match side {
        Side::Front => ["10.99.0.1", "fd99::1"],
        Side::Back => [NODE, NODE6],
    }
    .map(|text| Some(ip(text)))
}

fn index(world: &World, side: Side) -> u32 {
    match side {
        Side::Front => world.front,
        Side::Back => world.back,
    }
}

/// The node as the model begins with it.
pub(super) fn node(world: &World, seed: u64) -> Node {
    let interface = |side, mac| Interface {
        ifindex: index(world, side),
        mac,
        mtu: MTU,
        no_tx: true,
        addresses: addresses(side),
    };
    let neighbours: BTreeMap<_, _> = neighbours()
        .map(|(address, mac)| {
            let neighbour = Neighbour {
                mac,
                mtu: MTU,
                tags: Vec::new(),
            };
            (address, neighbour)
        })
        .collect();
    Node {
        seed,
        slots: MIN_FLOW_SLOTS,
        ports: PORTS,
        lifetimes: LIFETIMES,
        grace: GRACE,
        front: interface(Side::Front, FRONT_MAC),
        back: interface(Side::Back, BACK_MAC),
        leaves_pending: true,
        neighbours,
        sources: [ip(NODE), ip(NODE6)],
    }
}

/// Brings the world's ways back to where they began.
pub(super) fn restore(world: &World) {
    for side in [Side::Front, Side::Back] {
        set_interface(world, side, MTU, true, true);
    }
    for (address, _) in neighbours() {
        set_neighbour(world, address, MTU, &[]);
        set_flags(world, address, true);
    }
}

fn set_interface(world: &World, side: Side, mtu: usize, no_tx: bool, known: bool) {
    let position = memory::position_of(world, index(world, side));
    memory::change_hop(world, position, |hop| {
        hop.mtu = mtu as u32;
        hop.flags = if no_tx { NO_TX } else { 0 };
    });
    let addresses = addresses(side).map(|address| address.filter(|_| known));
    memory::set_addresses(world, position, addresses);
}

fn set_neighbour(world: &World, address: IpAddr, mtu: usize, tags: &[Tag]) {
    let hop = memory::hop_of(world, anchor(address));
    memory::change_hop(world, hop, |hop| {
        hop.mtu = mtu as u32;
        hop.tags = tags
            .iter()
            .fold(Tags::NONE, |tags, tag| tags.with(tag.kind, tag.vlan));
    });
}

fn set_flags(world: &World, address: IpAddr, no_tx: bool) {
    let flags = if no_tx { NO_TX } else { 0 };
    memory::set_hop_flags(world, memory::hop_of(world, anchor(address)), flags);
}

/// Changes world and model.
pub(super) fn change(world: &World, model: &mut Model, change: &Change) {
    match change {
        Change::Neighbour(address, mtu, tags) => {
            set_neighbour(world, *address, *mtu, tags);
            if let Some(neighbour) = model.node.neighbours.get_mut(address) {
                neighbour.mtu = *mtu;
                neighbour.tags.clone_from(tags);
            }
        }
        Change::Interface {
            side,
            mtu,
            no_tx,
            known,
        } => {
            set_interface(world, *side, *mtu, *no_tx, *known);
            // Frames to backends leave by a next hop of their own, with flags of its own.
            for (address, _) in neighbours().filter(|_| matches!(side, Side::Back)) {
                set_flags(world, address, *no_tx);
            }
            let interface = match side {
                Side::Front => &mut model.node.front,
                Side::Back => &mut model.node.back,
            };
            interface.mtu = *mtu;
            interface.no_tx = *no_tx;
            interface.addresses = addresses(*side).map(|address| address.filter(|_| *known));
        }
    }
}

/// Draws a change.
pub(super) fn draw(random: &mut Random) -> Change {
    let mtu = [MTU, MTU, 1280, 1004, 300, 68][random.below(6) as usize];
    if random.below(3) == 0 {
        return Change::Interface {
            side: [Side::Front, Side::Back][random.below(2) as usize],
            mtu,
            no_tx: random.below(2) == 0,
            known: random.below(4) > 0,
        };
    }
    let all: Vec<_> = neighbours().collect();
    let (address, _) = all[random.below(all.len() as u32) as usize];
    let tags = (0..random.below(3))
        .map(|_| Tag {
            kind: [0x8100, 0x88a8][random.below(2) as usize],
            vlan: random.below(4096) as u16,
        })
        .collect();
    Change::Neighbour(address, mtu, tags)
}
