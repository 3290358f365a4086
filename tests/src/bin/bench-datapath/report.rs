//! The table, the goals and the file.

use anyhow::{Context as _, Result};
use lb_tests::bench::{Goal, Row, Samples, Table, write};

use crate::cases::{Case, Group, HOT_HASH};

/// What a hot hash lookup cost on the machine that the goals were set for.
const BRICK: f64 = 33.0;

/// Prints everything and writes `target/bench/datapath.json`.
pub(crate) fn print(groups: &[Group]) -> Result<()> {
    let cases: Vec<&Case> = groups.iter().flat_map(|group| &group.cases).collect();
    let brick = cases
        .iter()
        .find(|case| case.name == HOT_HASH)
        .map(|case| case.above.median())
        .context("the hash lookup was not measured")?;
    let mut table = Table::new([
        "ns a packet",
        "median",
        "min",
        "max",
        "spread",
        "above",
        "bricks",
        "goal",
        "",
    ]);
    let (mut met, mut missed) = (0, 0);
    for case in &cases {
        let above = case.above.median();
        let mut cells = figures(&case.samples);
        cells.insert(0, case.name.clone());
        cells.push(format!("{above:.0}"));
        cells.push(format!("{:.1}", above / brick));
        if let Some(limit) = case.goal {
            let limit = limit * brick / BRICK;
            let goal = Goal::AtMost(limit);
            *(if goal.is_met(above) {
                &mut met
            } else {
                &mut missed
            }) += 1;
            cells.push(format!("{limit:.0}"));
            cells.push(goal.verdict(above).into());
        }
        table.row(cells);
    }
    print!("{}", table.text());
    println!(
        "\nabove: the median of what each run took longer than its floor directly before, on the \
         same packets: bare\ntransmit; for foreign traffic bare parse + pass, for blocked bare \
         parse + drop.\nA brick is a hot lookup in the kernel's hash, {brick:.0} ns here; goals were \
         set where it costs {BRICK:.0}, and scale with it.\n{met} goals met, {missed} not met"
    );
    write_file(&cases)
}

fn figures(samples: &Samples) -> Vec<String> {
    vec![
        format!("{:.0}", samples.median()),
        format!("{:.0}", samples.min()),
        format!("{:.0}", samples.max()),
        format!("{:.0} %", samples.spread() * 100.0),
    ]
}

fn write_file(cases: &[&Case]) -> Result<()> {
    let units: Vec<String> = cases
        .iter()
        .map(|case| format!("ns above {}", case.floor.name()))
        .collect();
    let mut rows = Vec::new();
    for (case, unit) in cases.iter().zip(&units) {
        let side = if case.is_floor() { "floor" } else { "lb-agent" };
        for (unit, samples) in [("ns", &case.samples), (unit.as_str(), &case.above)] {
            rows.push(Row {
                case: &case.name,
                side,
                unit,
                samples,
            });
        }
    }
    let path = write("datapath", &rows)?;
    println!("written to {}", path.display());
    Ok(())
}
