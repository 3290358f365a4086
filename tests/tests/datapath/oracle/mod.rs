//! The programs against an oracle nobody here wrote: the kernel's own NAT.
//!
//! Two nodes alike, one with nftables (dnat to a backend, snat to the node's address), one with the
//! programs on real interfaces, are sent the very same packets from both sides. What comes out is
//! compared field by field apart from the chosen port, and every checksum is recomputed. What is to
//! differ stands in one table, [`intended`], each entry with its reason. `LB_ORACLE_SEED` repeats a
//! run, `LB_ORACLE_PACKETS` makes it longer or shorter.

mod answers;
mod draw;
mod errors;
mod flow;
mod intended;
mod pair;
mod pieces;
mod programs;
mod reading;
mod reassembly;
mod rows;
mod segment;
mod site;
mod wrong;

use std::{collections::BTreeSet, time::Instant};

use lb_agent::datapath::Mode;
use lb_tests::link::MTU;

use self::{
    draw::Talk,
    intended::{EXCEPTIONS, Group, Otherwise},
    pair::{LATE, Pair},
    rows::Rows,
    site::Layout,
};
use crate::{chance::Random, fuzz::setting};

/// Packets of a run.
const PACKETS: u64 = 12_000;
/// Conversations at a time.
const TALKS: u32 = 60;
/// Packets of a conversation after which another takes its place.
const LONG_ENOUGH: u32 = 60;

/// Both nodes as they are unless something else is to be seen.
const PLAIN: Layout = Layout {
    mtu: MTU,
    mode: Mode::Native,
};
/// The same without XDP.
const IN_TC: Layout = Layout {
    mode: Mode::Off,
    ..PLAIN
};

/// Lets conversations go on by chance until `packets` have been sent; the first difference ends it.
fn converse(pair: &mut Pair, seed: u64, packets: u64) -> Result<(), String> {
    let mut random = Random::new(seed.max(1));
    let mut talks: Vec<Talk> = (0..TALKS).map(|_| Talk::draw(&mut random)).collect();
    while pair.frames < packets {
        let index = random.below(TALKS) as usize;
        let taken = |talks: &[Talk], new: &Talk| {
            let ends = |talk: &Talk| (talk.flow.client.clone(), talk.flow.port, talk.flow.proto);
            talks.iter().any(|talk| ends(talk) == ends(new))
        };
        if talks[index].packets > LONG_ENOUGH {
            let new = Talk::draw(&mut random);
            if !taken(&talks, &new) {
                talks[index] = new;
            }
        }
        let talk = &mut talks[index];
        let step = talk.next(&mut random);
        if let Some(difference) = pair.play_for(&mut talk.flow, &step, LATE).difference {
            return Err(difference);
        }
    }
    Ok(())
}

/// Thousands of packets of conversations by chance come out alike, with XDP and without.
#[test]
fn kernel_and_programs_translate_alike() {
    let seed = setting("LB_ORACLE_SEED", 0x6b65_726e_656c);
    let packets = setting("LB_ORACLE_PACKETS", PACKETS);
    for layout in [PLAIN, IN_TC] {
        let mut pair = Pair::new(&layout).unwrap();
        let began = Instant::now();
        if let Err(difference) = converse(&mut pair, seed, packets) {
            let sent = pair.frames;
            panic!("LB_ORACLE_SEED={seed}, {layout:?}, after {sent} packets\n{difference}");
        }
        println!(
            "seed {seed}, {layout:?}: {} packets sent to each, {} came out alike, in {:.1?}; \
             intended: {:?}",
            pair.frames,
            pair.arrived,
            began.elapsed(),
            pair.met
        );
        let arrived = pair.arrived;
        assert!(arrived * 10 > pair.frames * 8, "only {arrived} came out");
    }
}

/// Rows with XDP and without, the backend's link this wide. What is intended to differ must.
fn alike(group: Group, mtu: u32, check: impl Fn(&mut Rows<'_>)) {
    for layout in [PLAIN, IN_TC] {
        let mut pair = Pair::new(&Layout { mtu, ..layout }).unwrap();
        let mut rows = Rows::new(&mut pair);
        check(&mut rows);
        let differed = rows.done();
        let all = Otherwise::ALL.iter().copied();
        let expected = all.filter(|otherwise| otherwise.shown_by().contains(&group));
        assert_eq!(differed, expected.collect(), "{layout:?}");
        let met: BTreeSet<&str> = pair.met.keys().copied().collect();
        let shown = EXCEPTIONS
            .iter()
            .filter(|each| each.shown_by.contains(&group));
        assert_eq!(met, shown.map(|each| each.name).collect(), "{layout:?}");
    }
}

/// Cases of their own come out alike, or otherwise where the table says so.
#[test]
fn rows_come_out_alike_or_as_intended() {
    alike(Group::Single, MTU, |rows| {
        rows::connections(rows);
        rows::strangers(rows);
        rows::impostors(rows);
        rows::headers(rows);
    });
}

/// Errors find whom they are for, and nobody else.
#[test]
fn errors_come_out_alike() {
    alike(Group::Errors, MTU, |rows| {
        errors::translated(rows);
        errors::refused(rows);
    });
}

/// The node's own answers are the kernel's.
#[test]
fn answers_are_alike() {
    alike(Group::Answers, MTU, |rows| {
        answers::echoes(rows);
        answers::expired(rows);
    });
}

/// On a narrow way senders are told.
#[test]
fn narrow_ways_are_alike() {
    alike(Group::Narrow, 1280, |rows| answers::too_long(rows, 1280));
}

/// Packets in pieces, or with headers in between, come out alike.
#[test]
fn pieces_come_out_alike() {
    alike(Group::Pieces, MTU, |rows| {
        pieces::fragments(rows);
        pieces::extended(rows);
    });
}
