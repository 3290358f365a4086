//! The tables, the goals and the file.

use anyhow::Result;
use lb_tests::bench::{Goal, Row, Samples, Table, write};

use crate::{Figures, stand::Side};

/// At least so much of what is routed directly.
const RATE: f64 = 0.95;
/// At most so much of the time that routed directly takes.
const P99: f64 = 1.10;

/// What is measured, its name and unit.
type Part = (&'static str, &'static str, fn(&Figures) -> &Samples);
const PARTS: [Part; 3] = [
    ("a second", "1/s", |figures| &figures.rate),
    ("p50", "µs", |figures| &figures.p50),
    ("p99", "µs", |figures| &figures.p99),
];
const KINDS: [&str; 2] = ["new connections", "keep-alive requests"];

/// Prints everything and writes `target/bench/connections.json`. `figures` are of the sides in
/// their order.
pub(crate) fn print(figures: &[[Figures; 2]]) -> Result<()> {
    println!(
        "All interfaces have `tx off` and `gro on`, all hosts TCP timestamps without offsets. \
         Client, node and backends\nshare this machine's processors, so whatever the client and \
         the backends cost is in every figure and draws the\nratios towards 1.\n"
    );
    let mut names = Vec::new();
    for (kind, title) in KINDS.iter().enumerate() {
        for (part, unit, get) in PARTS {
            names.push(format!("{title}, {part}"));
            let heading = format!("{title}, {part} ({unit})");
            let mut table =
                Table::new([heading.as_str(), "median", "min", "max", "spread", "ratio"]);
            for (side, own) in Side::ALL.iter().zip(figures) {
                let samples = get(&own[kind]);
                let ratio = ratio(samples, get(&figures[0][kind]));
                table.row([
                    side.name().to_owned(),
                    format!("{:.0}", samples.median()),
                    format!("{:.0}", samples.min()),
                    format!("{:.0}", samples.max()),
                    format!("{:.0} %", samples.spread() * 100.0),
                    format!("{:.2}", ratio.median()),
                ]);
            }
            println!("{}", table.text());
        }
    }
    println!(
        "ratio: the median, over the rounds, of this side's figure to that of routed directly in \
         the same round\n"
    );
    print!("{}", goals(figures).text());
    let mut rows = Vec::new();
    for (side, own) in Side::ALL.iter().zip(figures) {
        for (number, name) in names.iter().enumerate() {
            let (_, unit, get) = PARTS[number % PARTS.len()];
            rows.push(Row {
                case: name,
                side: side.name(),
                unit,
                samples: get(&own[number / PARTS.len()]),
            });
        }
    }
    let path = write("connections", &rows)?;
    println!("written to {}", path.display());
    Ok(())
}

fn ratio(own: &Samples, other: &Samples) -> Samples {
    own.paired(other, |own, other| own / other)
}

/// What lb-agent is to reach, in new connections.
fn goals(figures: &[[Figures; 2]]) -> Table {
    let of = |wanted: Side| {
        let position = Side::ALL.iter().position(|side| *side == wanted);
        &figures[position.unwrap_or(0)][0]
    };
    let agent = of(Side::Agent);
    let mut table = Table::new(["goals: lb-agent's new connections", "ratio", "goal", ""]);
    for side in Side::ALL {
        let (rate_goal, p99_goal) = match side {
            Side::Agent | Side::AgentXdp => continue,
            Side::Direct => (Goal::AtLeast(RATE), Goal::AtMost(P99)),
            // Ahead in both.
            _ => (Goal::Above(1.0), Goal::Below(1.0)),
        };
        for (what, goal, samples) in [
            ("a second", rate_goal, ratio(&agent.rate, &of(side).rate)),
            ("p99", p99_goal, ratio(&agent.p99, &of(side).p99)),
        ] {
            let figure = samples.median();
            table.row([
                format!("{what}, to {}", side.name()),
                format!("{figure:.2}"),
                goal.to_string(),
                goal.verdict(figure).to_owned(),
            ]);
        }
    }
    table
}
