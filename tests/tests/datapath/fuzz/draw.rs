//! What happens next, by chance: frames that mostly make sense, frames that do not, and the
//! agent's doings in between.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use lb_agent::domain::{
    kernel::{KernelBackend, KernelVip, Recipe, Step, Treatment, VipKey},
    service::{Affinity, Forwarding},
};
use lb_tests::{
    model::{
        Model,
        parse::{TCP, UDP},
    },
    packet::{ACK, FIN, RST, SYN},
};

use super::{
    arena::{AGE, Event, UNRESOLVED},
    message, odd,
    sketch::{Sketch, Sum},
    ways,
};
use crate::{chance::Random, row::Side, traffic::ip};

/// How a case is: many clients or few, and how often what happens.
pub(crate) struct Temper {
    /// Clients of a family.
    clients: u32,
    /// Ports of a client.
    ports: u32,
    /// Of 100 frames, how many are odd.
    odd: u32,
    /// Of 1000 events, how many are the agent's.
    agent: u32,
}

impl Temper {
    pub(crate) fn draw(random: &mut Random) -> Self {
        Self {
            clients: [2, 6, 40][random.below(3) as usize],
            ports: [3, 10, 200][random.below(3) as usize],
            odd: [5, 30, 60][random.below(3) as usize],
            agent: [2, 10, 40][random.below(3) as usize],
        }
    }
}

pub(super) fn one<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.below(of.len() as u32) as usize]
}

pub(super) fn client(random: &mut Random, temper: &Temper, v6: bool) -> IpAddr {
    let host = 2 + random.below(temper.clients);
    ip(&if v6 {
        format!("fd99::{host:x}")
    } else {
        format!("10.99.0.{host}")
    })
}

pub(super) fn vip(random: &mut Random, v6: bool) -> SocketAddr {
    let hosts: &[&str] = if v6 {
        &["2001:db8::10", "2001:db8::11", "fd99:1::1"]
    } else {
        &["198.51.100.10", "198.51.100.11", "10.99.1.1"]
    };
    let host = ip(one(random, hosts));
    let ports: &[u16] = if host == ip("10.99.1.1") || host == ip("fd99:1::1") {
        &[80, 53]
    } else {
        &[80, 53, 20_100]
    };
    SocketAddr::new(host, one(random, ports))
}

pub(super) fn backend(random: &mut Random, v6: bool) -> SocketAddr {
    let host = if random.below(40) == 0 {
        UNRESOLVED
    } else {
        2 + random.below(8) as u8
    };
    let address = if v6 {
        format!("fd99:1::{host}")
    } else {
        format!("10.99.1.{host}")
    };
    SocketAddr::new(ip(&address), one(random, &[8080, 8080, 8081]))
}

/// Steps that make a service as an agent makes it.
fn serve(random: &mut Random, temper: &Temper, service: u32) -> Vec<Step> {
    let v6 = service % 2 == 1;
    let mut steps = Vec::new();
    let mut weights = Vec::new();
    for id in service * 16..service * 16 + 1 + random.below(4) {
        let entry = KernelBackend {
            service,
            address: backend(random, v6),
            active: random.below(5) > 0,
        };
        steps.push(Step::PutBackend(id, entry));
        weights.push((id, 1 + random.below(4)));
    }
    steps.push(Step::PutTable(
        service,
        Recipe {
            weights,
            slots: 1021,
        },
    ));
    let key = VipKey {
        address: vip(random, v6),
        protocol: one(random, &[TCP, UDP]),
    };
    steps.push(Step::PutVip(
        key,
        KernelVip {
            service,
            slots: 1021,
            treatment: treatment(random),
        },
    ));
    if random.below(3) == 0 {
        steps.extend(admit(random, temper, service));
    }
    steps
}

fn treatment(random: &mut Random) -> Treatment {
    Treatment {
        affinity: one(random, &[Affinity::Connection, Affinity::Client]),
        restricted: random.below(8) == 0,
        forwarding: one(
            random,
            &[
                Forwarding::Nat,
                Forwarding::Nat,
                Forwarding::Nat,
                Forwarding::Nat,
                Forwarding::Nat,
                Forwarding::Nat,
                Forwarding::DsrL2,
                Forwarding::DsrIpip,
            ],
        ),
    }
}

/// Steps that change whom a service admits.
fn admit(random: &mut Random, temper: &Temper, service: u32) -> Vec<Step> {
    let prefixes = (0..random.below(6)).map(|_| prefix(random, temper));
    let of_family = |prefix: &IpNet| prefix.addr().is_ipv6() == (service % 2 == 1);
    let sources: BTreeSet<IpNet> = prefixes.collect();
    let sources = sources.into_iter().filter(of_family).collect();
    let cut = BTreeSet::from([service, random.below(8)]);
    vec![Step::PutSources(service, sources), Step::CutStrangers(cut)]
}

fn prefix(random: &mut Random, temper: &Temper) -> IpNet {
    let v6 = random.below(2) == 0;
    let length = if v6 {
        one(random, &[128, 128, 127, 124, 64])
    } else {
        one(random, &[32, 32, 31, 28, 24])
    };
    let host = IpNet::new(client(random, temper, v6), length).expect("a length");
    host.trunc()
}

/// Something the agent does.
fn agent(random: &mut Random, temper: &Temper, model: &Model) -> Event {
    let there = &model.destinations;
    let ids: Vec<u32> = there
        .backends
        .keys()
        .copied()
        .filter(|id| *id < 1000)
        .collect();
    let vips: Vec<VipKey> = there.vips.keys().copied().collect();
    let service = random.below(8);
    match random.below(100) {
        0..17 => Event::Steps(serve(random, temper, service)),
        17..20 => Event::Steps(admit(random, temper, service)),
        20..32 if !ids.is_empty() => {
            let id = one(random, &ids);
            let former = there.backends[&id];
            let now = KernelBackend {
                active: !former.active,
                ..former
            };
            Event::Steps(vec![Step::PutBackend(id, now)])
        }
        32..40 if !ids.is_empty() => Event::Steps(vec![Step::CutUdp(one(random, &ids))]),
        40..44 if !ids.is_empty() => Event::Steps(vec![Step::FreeBackend(one(random, &ids))]),
        44..48 if !vips.is_empty() => Event::Steps(vec![Step::DeleteVip(one(random, &vips))]),
        48..50 => Event::Steps(vec![Step::DeleteTable(service)]),
        50..56 => Event::Block(prefix(random, temper)),
        56..66 => match there.blocks.keys().next() {
            Some(prefix) => Event::Unblock(*prefix),
            None => Event::Sweep,
        },
        66..70 => Event::Cut(vec![prefix(random, temper)]),
        70..75 => Event::Sweep,
        75..80 => Event::Lose(random.below(2) == 0, random.below(1024) as usize),
        80 if random.below(6) == 0 => Event::Reopen(one(
            random,
            &[(20_000, 29_999), (20_000, 20_003), (40_000, 40_500)],
        )),
        80..90 => Event::Change(ways::draw(random)),
        _ => Event::Age(AGE * one(random, &[1, 1, 1, 8, 30, 100, 3000])),
    }
}

fn flags(random: &mut Random) -> u8 {
    match random.below(20) {
        0..6 => ACK,
        6..11 => SYN,
        11..13 => SYN | ACK,
        13..16 => FIN | ACK,
        16 => RST,
        17 => RST | ACK,
        _ => random.below(256) as u8,
    }
}

/// A packet that makes sense, or could.
fn sketch(random: &mut Random, temper: &Temper, model: &Model) -> (Side, Sketch) {
    let v6 = random.below(2) == 0;
    let slots = model.node.slots;
    let known = model.tables[usize::from(v6)].at(random.below(slots) as usize);
    let port = one(random, &[20_000, 20_000, 40_000, 1024]) + random.below(temper.ports) as u16;
    let services: Vec<&VipKey> = model
        .destinations
        .vips
        .keys()
        .chain(model.destinations.retired.keys())
        .filter(|key| key.address.is_ipv6() == v6)
        .collect();
    let (mut side, mut from, mut to, mut proto) = match random.below(10) {
        0..4 if !services.is_empty() => {
            let vip = one(random, &services);
            let from = SocketAddr::new(client(random, temper, v6), port);
            (Side::Front, from, vip.address, vip.protocol)
        }
        4..9 if known.is_some() => {
            let half = known.expect("looked at");
            let side = match half.kind {
                lb_common::flow::Kind::Forward => Side::Front,
                lb_common::flow::Kind::Reply => Side::Back,
            };
            (side, half.key.src, half.key.dst, half.key.proto)
        }
        8 => {
            let node = SocketAddr::new(model.node.sources[usize::from(v6)], port);
            (
                Side::Back,
                backend(random, v6),
                node,
                one(random, &[TCP, UDP]),
            )
        }
        _ => {
            let from = SocketAddr::new(client(random, temper, v6), port);
            (Side::Front, from, vip(random, v6), one(random, &[TCP, UDP]))
        }
    };
    match random.below(60) {
        0 => side = Side::Back,
        1 => proto = one(random, &[1, 58, 132, 47, 6, 17]),
        2 => to.set_port(random.below(65_536) as u16),
        3 => from.set_ip(client(random, temper, v6)),
        4 => to.set_ip(client(random, temper, v6)),
        _ => {}
    }
    (side, packet(random, from, to, proto))
}

/// A packet between these two, with nothing unusual about it.
pub(super) fn packet(random: &mut Random, from: SocketAddr, to: SocketAddr, proto: u8) -> Sketch {
    let length = match random.below(40) {
        0 => 1200 + random.below(700),
        _ => one(random, &[0, 1, 7, 18, 60, 200, 1000]),
    };
    Sketch {
        dmac: [2, 0, 0, 0, 0, 1],
        smac: [2, 0, 0, 0, 0, 2 + u8::from(random.below(8) == 0)],
        tags: Vec::new(),
        src: from.ip(),
        dst: to.ip(),
        tos: 0,
        id: random.below(65_536) as u16,
        fragment: one(random, &[0, 0x4000]),
        ttl: one(random, &[64, 64, 255, 2]),
        options: Vec::new(),
        extensions: Vec::new(),
        proto,
        sport: from.port(),
        dport: to.port(),
        flags: flags(random),
        sequence: random.below(u32::MAX),
        tcp_options: Vec::new(),
        payload: (0..length).map(|_| random.below(256) as u8).collect(),
        sum: Sum::Right,
        padding: 0,
    }
}

/// What some cases begin with: so few ports that the rules about taken ones show.
pub(crate) fn scarcity(random: &mut Random) -> Option<Event> {
    let last = one(random, &[20_000, 20_001, 20_003]);
    (random.below(16) == 0).then_some(Event::Reopen((20_000, last)))
}

/// What happens next.
pub(crate) fn event(random: &mut Random, temper: &Temper, model: &Model) -> Event {
    if random.below(1000) < temper.agent {
        return agent(random, temper, model);
    }
    let special = match random.below(16) {
        0..2 => message::error(random, temper, model),
        2 => Some(message::echo(random, temper)),
        3..5 => message::fragment(random, model),
        _ => None,
    };
    let (side, mut sketch) = special.unwrap_or_else(|| sketch(random, temper, model));
    if random.below(100) < temper.odd {
        for _ in 0..=random.below(2) {
            odd::make(random, &mut sketch);
        }
    }
    let mut frame = sketch.build();
    if random.below(100) < temper.odd / 3 {
        odd::damage(random, &mut frame);
    }
    if random.below(200) == 0 {
        let ethertype: u16 = one(random, &[0x0806, 0x88cc, 0x0800, 0x86dd]);
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
    }
    Event::Frame(side, frame)
}

/// The services that a case begins with.
pub(crate) fn services(random: &mut Random, temper: &Temper) -> Event {
    let steps = (0..8)
        .flat_map(|service| serve(random, temper, service))
        .collect();
    Event::Steps(steps)
}
