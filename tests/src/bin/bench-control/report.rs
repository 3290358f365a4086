//! The tables, the goals and the file.

use anyhow::Result;
use lb_tests::bench::{Goal, Row, Samples, Table, write};

use crate::{
    Figures, RATE,
    real::{INSTANCES, SERVICES},
};

/// Milliseconds that a change may take from Consul's answer into the kernel.
const CHANGE: f64 = 10.0;
/// Milliseconds that a start from nothing may take.
const START: f64 = 5000.0;
/// Mebibytes that may be resident with all services, and with few.
const RESIDENT: f64 = 150.0;
/// See [`RESIDENT`].
const RESIDENT_FEW: f64 = 25.0;
/// Percent of a processor while nothing happens.
const IDLE: f64 = 0.5;

/// A row: what, of whom, in which unit, and the values.
type Line<'a> = (&'static str, &'static str, &'static str, &'a Samples);

/// Prints everything and writes `target/bench/control.json`.
pub(crate) fn print(figures: &Figures, services: usize, backends: usize) -> Result<()> {
    let real = format!("lb-agent, real Consul, {SERVICES}×{INSTANCES}");
    println!(
        "{services} services of {backends} backends each; Consul is a stand-in that answers health questions, but for\n\
         \"{real}\". A change: the check of one instance fails or passes again. The first 100 services have\n\
         watches of their own, those counted as without watch are beyond the agent's limit of watches.\n"
    );
    let lines: Vec<Line<'_>> = vec![
        (
            "a change, from Consul's answer",
            "lb-agent",
            "ms",
            &figures.watched.answered,
        ),
        (
            "a change, from the change in Consul",
            "lb-agent",
            "ms",
            &figures.watched.total,
        ),
        (
            "a change without watch, from the answer",
            "lb-agent",
            "ms",
            &figures.polled.answered,
        ),
        (
            "a change without watch, from the change",
            "lb-agent",
            "ms",
            &figures.polled.total,
        ),
        (
            "a change, from the request to Consul",
            "lb-agent, real Consul",
            "ms",
            &figures.real,
        ),
        (
            "a change, file and reload",
            "nftables",
            "ms",
            &figures.nftables,
        ),
        (
            "a change, file and reload",
            "HAProxy",
            "ms",
            &figures.haproxy,
        ),
        ("a change of every service", "lb-agent", "ms", &figures.all),
        ("a start from nothing", "lb-agent", "ms", &figures.start),
        (
            "processor, 100 changes a second",
            "lb-agent",
            "%",
            &figures.busy,
        ),
        ("processor, nothing happens", "lb-agent", "%", &figures.idle),
        (
            "processor, nothing happens, ten services",
            "lb-agent",
            "%",
            &figures.idle_few,
        ),
        (
            "resident, after all this",
            "lb-agent",
            "MiB",
            &figures.resident,
        ),
        ("of that its own", "lb-agent", "MiB", &figures.own),
        (
            "resident, ten services",
            "lb-agent",
            "MiB",
            &figures.resident_few,
        ),
        (
            "of that its own, ten services",
            "lb-agent",
            "MiB",
            &figures.own_few,
        ),
    ];
    debug_assert_eq!(RATE, 100);
    // Where all services have a watch, nothing was measured of others.
    let lines: Vec<Line<'_>> = lines
        .into_iter()
        .filter(|(_, _, _, samples)| samples.runs() > 0)
        .collect();
    let mut table = Table::new([
        "case", "side", "unit", "median", "p99", "min", "max", "runs",
    ]);
    for (case, side, unit, samples) in &lines {
        table.row([
            (*case).to_owned(),
            (*side).to_owned(),
            (*unit).to_owned(),
            format!("{:.2}", samples.median()),
            format!("{:.2}", samples.quantile(0.99)),
            format!("{:.2}", samples.min()),
            format!("{:.2}", samples.max()),
            samples.runs().to_string(),
        ]);
    }
    println!("{}", table.text());
    print!("{}", goals(figures).text());
    let rows: Vec<Row<'_>> = lines
        .iter()
        .map(|(case, side, unit, samples)| Row {
            case,
            side,
            unit,
            samples,
        })
        .collect();
    let path = write("control", &rows)?;
    println!("written to {}", path.display());
    Ok(())
}

/// What lb-agent is to reach.
fn goals(figures: &Figures) -> Table {
    let mut table = Table::new(["goals", "figure", "goal", ""]);
    let mut goal = |what: &str, samples: &Samples, goal: Goal| {
        if samples.runs() > 0 {
            let figure = samples.median();
            table.row([
                what.to_owned(),
                format!("{figure:.2}"),
                goal.to_string(),
                goal.verdict(figure).to_owned(),
            ]);
        }
    };
    let at_most = Goal::AtMost;
    goal(
        "a change, from Consul's answer (ms)",
        &figures.watched.answered,
        at_most(CHANGE),
    );
    goal(
        "the same without watch (ms)",
        &figures.polled.answered,
        at_most(CHANGE),
    );
    let nftables = figures.watched.total.median();
    goal(
        "a change by nftables, against ours (ms)",
        &figures.nftables,
        Goal::Above(nftables),
    );
    goal(
        "a change by HAProxy, against ours (ms)",
        &figures.haproxy,
        Goal::Above(nftables),
    );
    goal(
        "a start from nothing (ms)",
        &figures.start,
        Goal::Below(START),
    );
    goal("resident (MiB)", &figures.resident, Goal::Below(RESIDENT));
    goal(
        "resident, ten services (MiB)",
        &figures.resident_few,
        Goal::Below(RESIDENT_FEW),
    );
    goal(
        "processor, nothing happens (%)",
        &figures.idle,
        Goal::Below(IDLE),
    );
    goal(
        "the same with ten services (%)",
        &figures.idle_few,
        Goal::Below(IDLE),
    );
    table
}
