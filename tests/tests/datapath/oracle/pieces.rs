//! Packets in pieces, and IPv6 packets with headers between IP and transport.

use super::{
    flow::Flow,
    pair::Step,
    rows::{ALL, Expect, HERE, Rows, THERE},
    segment::{MF, Segment, TCP, UDP},
};
use crate::row::Side;

/// Number of the fragment header (RFC 8200, section 4.5).
const FRAGMENT: u8 = 44;

/// Cuts a segment into pieces that begin at these offsets, multiples of eight.
fn cut(segment: &Segment, from: Side, offsets: &[usize], id: u32) -> Vec<Vec<u8>> {
    let whole = segment.transport();
    let ends = offsets[1..].iter().copied().chain([whole.len()]);
    let pieces = offsets.iter().zip(ends).map(|(start, end)| {
        let more = end < whole.len();
        let mut piece = segment.clone();
        if segment.src.is_ipv4() {
            piece.id = id as u16;
            piece.fragment = (start / 8) as u16 | if more { MF } else { 0 };
        } else {
            let field = *start as u16 | u16::from(more);
            let mut header = vec![0];
            header.extend(field.to_be_bytes());
            header.extend(id.to_be_bytes());
            piece.extensions.push((FRAGMENT, header));
        }
        piece.framed_around(from, &whole[*start..end])
    });
    pieces.collect()
}

/// The pieces of a packet in this order.
fn pieces(
    flow: &Flow,
    side: Side,
    length: usize,
    (offsets, order): (&[usize], &[usize]),
    id: u32,
) -> Step {
    let frames = [0, 1].map(|site| {
        let plain = match side {
            Side::Front => flow.request(),
            Side::Back => flow.reply(site),
        };
        let segment = Segment {
            payload: (0..length).map(|index| (index * 7) as u8).collect(),
            ..plain
        };
        let frames = cut(&segment, side, offsets, id);
        order
            .iter()
            .map(|index| (side, frames[*index].clone()))
            .collect()
    });
    Step {
        what: format!("{length} bytes cut at {offsets:?}, in the order {order:?}, of {flow:?}"),
        frames,
    }
}

/// Fragments, in order and not, both ways.
pub(crate) fn fragments(rows: &mut Rows<'_>) {
    let mut id = 100;
    for (v6, proto) in ALL {
        let mut flow = rows.open(v6, proto);
        for length in [600, 601, 1400] {
            let cuts: [(&[usize], &[usize]); 6] = [
                (&[0, 64], &[0, 1]),
                (&[0, 64], &[1, 0]),
                (&[0, 256, 512], &[0, 1, 2]),
                (&[0, 256, 512], &[0, 2, 1]),
                (&[0, 256, 512], &[2, 1, 0]),
                (&[0, 256, 512], &[1, 2, 0]),
            ];
            for how in cuts {
                for side in [Side::Front, Side::Back] {
                    id += 1;
                    // So many pieces.
                    let count = how.1.len();
                    let expect = match side {
                        Side::Front => Expect::Alike(0, count),
                        Side::Back => Expect::Alike(count, 0),
                    };
                    rows.check(
                        &mut flow,
                        |flow| pieces(flow, side, length, how, id),
                        expect,
                    );
                }
            }
        }
        if proto == UDP {
            // A conversation that begins in pieces.
            let mut new = rows.fresh(v6, proto);
            id += 1;
            let how: (&[usize], &[usize]) = (&[0, 64], &[0, 1]);
            let expect = Expect::Alike(0, 2);
            rows.check(
                &mut new,
                |flow| pieces(flow, Side::Front, 100, how, id),
                expect,
            );
        }
    }
}

/// IPv6 packets with extension headers.
pub(crate) fn extended(rows: &mut Rows<'_>) {
    // Padding options of hop-by-hop (0) and destination options (60); an atomic fragment
    // (RFC 6946); a routing header with nothing left to do (RFC 8200, section 4.4).
    let padding: (u8, &[u8]) = (60, &[0, 1, 4, 0, 0, 0, 0]);
    let hops: (u8, &[u8]) = (0, &[0, 1, 4, 0, 0, 0, 0]);
    let long: (u8, &[u8]) = (60, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let routed: (u8, &[u8]) = (43, &[0, 253, 0, 0, 0, 0, 0]);
    let chains: [&[(u8, &[u8])]; 6] = [
        &[padding],
        &[hops],
        &[long],
        &[hops, padding],
        &[routed],
        &[hops, padding, routed],
    ];
    for proto in [TCP, UDP] {
        for chain in chains {
            let mut flow = rows.open(true, proto);
            let set = |s: &mut Segment| {
                s.extensions = chain
                    .iter()
                    .map(|(kind, rest)| (*kind, rest.to_vec()))
                    .collect();
                s.payload = b"behind".to_vec();
            };
            let what = format!("headers {chain:?}");
            rows.check(&mut flow, |flow| flow.asks(&what, set), THERE);
            rows.check(&mut flow, |flow| flow.answers(&what, set), HERE);
        }
    }
}
