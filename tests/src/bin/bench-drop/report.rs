//! The table, the goals and the file.

use anyhow::{Context as _, Result};
use lb_tests::bench::{Goal, Row, Samples, Table, write};

use crate::{Measured, receiver::Side};

/// At most so much of what the bare program costs.
const GOAL: Goal = Goal::AtMost(1.1);

/// Prints everything and writes `target/bench/drop.json`. `sending` is what the sender costs
/// alone.
pub(crate) fn print(sides: &[Measured], sending: &Samples) -> Result<()> {
    let bare = sides
        .iter()
        .find(|side| side.is(Side::Bare))
        .context("the bare program was not measured")?;
    let mut table = Table::new([
        "ns a packet",
        "median",
        "min",
        "max",
        "spread",
        "receiver",
        "ratio",
        "whole",
        "M/s",
    ]);
    let mut goals = Table::new(["goals: lb-agent to bare XDP_DROP", "ratio", "goal", ""]);
    let mut row = vec!["the sender alone".to_owned()];
    row.extend(figures(sending));
    table.row(row);
    for side in sides {
        let name = name(side);
        let own = ratio(&side.own, &bare.own);
        let whole = ratio(&side.whole, &bare.whole);
        let mut row = vec![name.clone()];
        row.extend(figures(&side.whole));
        row.push(format!("{:.0}", side.own.median()));
        row.push(format!("{own:.2}"));
        row.push(format!("{whole:.2}"));
        row.push(format!("{:.2}", rate(&side.whole).median() / 1e6));
        table.row(row);
        if side.is(Side::Agent) {
            for (what, ratio) in [("whole", whole), ("the receiver", own)] {
                goals.row([
                    format!("{what}, {} prefixes", side.receiver.rules),
                    format!("{ratio:.2}"),
                    GOAL.to_string(),
                    GOAL.verdict(ratio).to_owned(),
                ]);
            }
        }
    }
    print!("{}", table.text());
    println!(
        "\nThe sender makes frames on the CPU that also receives them, so one CPU's time is the \
         limit, not the wire:\nthe median is of both, `receiver` without the sender, measured \
         alone directly before. The sender's half of\nthe wire (redirect, ring) is with the \
         receiver. ratio: the receiver's to bare XDP_DROP's; whole: with the\nsender. M/s: \
         millions dropped a second by that CPU. All interfaces have `tx off` and `gro on`: without \
         GRO nothing\npolls where no XDP program is; the flood is UDP, which GRO does not hold.\n"
    );
    print!("{}", goals.text());
    write_file(sides, sending)
}

fn name(side: &Measured) -> String {
    match side.receiver.side {
        Side::Bare => side.receiver.side.name().to_owned(),
        other => format!("{}, {} prefixes", other.name(), side.receiver.rules),
    }
}

/// Median over the rounds of this side's figure to the other's in the same round.
fn ratio(own: &Samples, other: &Samples) -> f64 {
    own.paired(other, |own, other| own / other).median()
}

/// Packets a second from nanoseconds a packet.
fn rate(nanoseconds: &Samples) -> Samples {
    nanoseconds.values().iter().map(|ns| 1e9 / ns).collect()
}

fn figures(samples: &Samples) -> [String; 4] {
    [
        format!("{:.0}", samples.median()),
        format!("{:.0}", samples.min()),
        format!("{:.0}", samples.max()),
        format!("{:.0} %", samples.spread() * 100.0),
    ]
}

fn write_file(sides: &[Measured], sending: &Samples) -> Result<()> {
    let rates: Vec<Samples> = sides.iter().map(|side| rate(&side.whole)).collect();
    let cases: Vec<String> = sides
        .iter()
        .map(|side| match side.receiver.side {
            Side::Bare => "flood".to_owned(),
            _ => format!("flood, {} prefixes", side.receiver.rules),
        })
        .collect();
    let mut rows = vec![Row {
        case: "sending alone",
        side: "floor",
        unit: "ns",
        samples: sending,
    }];
    for ((side, rate), case) in sides.iter().zip(&rates).zip(&cases) {
        for (unit, samples) in [
            ("ns", &side.whole),
            ("ns of the receiver", &side.own),
            ("1/s", rate),
        ] {
            rows.push(Row {
                case,
                side: side.receiver.side.name(),
                unit,
                samples,
            });
        }
    }
    let path = write("drop", &rows)?;
    println!("written to {}", path.display());
    Ok(())
}
