//! Packets about packets: ICMP errors, echo requests, and fragments other than the first.

use std::net::SocketAddr;

use lb_common::flow::Kind;
use lb_tests::model::{
    Model,
    parse::{ICMP, ICMPV6, TCP, UDP},
};

use super::{
    draw::{Temper, backend, client, one, packet, vip},
    odd::{make, make_fragment},
    sketch::{Sketch, Sum},
};
use crate::{chance::Random, row::Side, traffic::ip};

/// Slots that are looked into for a flow to complain of.
const TRIES: u32 = 8;

fn icmp(v6: bool) -> u8 {
    if v6 { ICMPV6 } else { ICMP }
}

/// An error about something that the answer to is a known half's, by one who was on its way.
pub(super) fn error(random: &mut Random, temper: &Temper, model: &Model) -> Option<(Side, Sketch)> {
    let v6 = random.below(2) == 0;
    let table = &model.tables[usize::from(v6)];
    let half = (0..TRIES).find_map(|_| table.at(random.below(model.node.slots) as usize))?;
    let (mut side, router) = match half.kind {
        Kind::Forward => (Side::Front, client(random, temper, v6)),
        Kind::Reply => (Side::Back, backend(random, v6).ip()),
    };
    if random.below(30) == 0 {
        side = Side::Front;
    }
    // As it was sent.
    let mut quoted = packet(random, half.key.dst, half.key.src, half.key.proto);
    quoted.ttl = random.below(256) as u8;
    quoted.sum = one(
        random,
        &[Sum::Right, Sum::Right, Sum::Absent, Sum::Wrong(7)],
    );
    match random.below(12) {
        0 => quoted.proto = one(random, &[TCP, UDP, 47, icmp(v6)]),
        1 => quoted.src = client(random, temper, v6),
        2 => quoted.dport = random.below(65_536) as u16,
        3 | 4 => make(random, &mut quoted),
        5 => {
            let (offset, id) = (random.below(3) as u16, random.below(9));
            make_fragment(&mut quoted, offset, random.below(2) == 0, id);
        }
        _ => {}
    }
    quoted.tags.clear();
    quoted.padding = 0;
    let mut quote = quoted.build().split_off(14);
    let headers = if v6 { 40 } else { 20 + quoted.options.len() };
    match random.below(10) {
        0..4 => quote.truncate(headers + 8),
        4 => quote.truncate(headers + 8 + random.below(16) as usize),
        5 => quote.truncate(random.below(headers as u32 + 12) as usize),
        6 => {
            let at = random.below(quote.len().min(48) as u32) as usize;
            quote[at] = random.below(256) as u8;
        }
        _ => quote.truncate(560),
    }
    let kinds: &[u8] = if v6 {
        &[1, 2, 3, 4, 1, 2, 3, 4, 5, 0, 133, 136]
    } else {
        &[3, 3, 11, 12, 3, 11, 12, 4, 5, 0, 13]
    };
    let mut payload = vec![one(random, kinds), random.below(6) as u8, 0, 0];
    payload.extend(random.below(1500).to_be_bytes());
    payload.extend(quote);
    let addressee = match random.below(12) {
        // Somebody who has sent nothing of the kind.
        0 => vip(random, v6).ip(),
        _ => half.key.dst.ip(),
    };
    let ends = [router, addressee].map(|address| SocketAddr::new(address, 0));
    let outer = packet(random, ends[0], ends[1], icmp(v6));
    Some((side, Sketch { payload, ..outer }))
}

/// An echo request, mostly to a VIP.
pub(super) fn echo(random: &mut Random, temper: &Temper) -> (Side, Sketch) {
    let v6 = random.below(2) == 0;
    let from = SocketAddr::new(client(random, temper, v6), 0);
    let to = match random.below(10) {
        0 => backend(random, v6),
        1 => SocketAddr::new(ip(if v6 { "fd99::1" } else { "10.99.0.1" }), 0),
        _ => vip(random, v6),
    };
    let outer = packet(random, from, to, icmp(v6));
    let request = if v6 { 128 } else { 8 };
    let mut payload = vec![one(random, &[request, request, request, request, 129, 0])];
    payload.extend([one(random, &[0, 0, 0, 0, 0, 1]), 0, 0, 1, 2, 3, 4]);
    payload.extend(&outer.payload);
    (Side::Front, Sketch { payload, ..outer })
}

/// What follows the first fragment of a packet, whatever that was.
pub(super) fn fragment(random: &mut Random, model: &Model) -> Option<(Side, Sketch)> {
    let count = model.fragments.len() as u32;
    if count == 0 {
        return None;
    }
    let (whole, _) = model.fragments.iter().nth(random.below(count) as usize)?;
    let proto = whole.proto.unwrap_or(one(random, &[TCP, UDP, 60]));
    let ends = [whole.src, whole.dst].map(|address| SocketAddr::new(address, 0));
    let side = if model.node.sources.contains(&whole.dst) {
        Side::Back
    } else {
        Side::Front
    };
    let mut sketch = packet(random, ends[0], ends[1], proto);
    match random.below(12) {
        0 => sketch.ttl = random.below(2) as u8,
        1 => sketch.proto = one(random, &[TCP, UDP, icmp(whole.src.is_ipv6())]),
        _ => {}
    }
    let id = whole.id + u32::from(random.below(12) == 0);
    let offset = one(random, &[1, 2, 185, 8191]);
    make_fragment(&mut sketch, offset, random.below(2) == 0, id);
    Some((side, sketch))
}
