//! The tables and the file.

use anyhow::Result;
use lb_tests::bench::{Row, Samples, Table, write};

use crate::{Figures, case::Case, idle::Memory, stand::Side};

/// What is measured in each case: its name and unit, and whether the proxy's is compared.
type Part = (&'static str, &'static str, fn(&Figures) -> &Samples);
const PARTS: [Part; 5] = [
    ("requests a second", "1/s", |figures| &figures.rate),
    ("p50", "µs", |figures| &figures.latency[0]),
    ("p99", "µs", |figures| &figures.latency[1]),
    ("p99.9", "µs", |figures| &figures.latency[2]),
    ("processor time a request", "µs", |figures| &figures.cpu),
];

/// Prints everything and writes `target/bench/http.json`. `figures` are of the cases, then of the
/// sides.
pub(crate) fn print(
    sides: &[Side],
    cases: &[&Case],
    figures: &[Vec<Figures>],
    memory: &[Memory],
) -> Result<()> {
    println!(
        "Client, proxy and backends share this machine's processors, so whatever the client and \
         the backends cost\nis in every figure but the processor time, which is the proxy's own. \
         Every proxy has {} threads.\nratio: the median, over the rounds, of this side's figure to \
         HAProxy's in the same round\n",
        crate::servers::THREADS
    );
    let mut rows = Vec::new();
    for (case, figures) in cases.iter().zip(figures) {
        for (part, unit, get) in PARTS {
            let name = format!("{}, {part}", case.name);
            let samples: Vec<&Samples> = figures.iter().map(get).collect();
            section(&mut rows, sides, name, unit, &samples);
        }
    }
    for (name, get) in [
        (
            "idle connection, before its first request",
            (|memory| &memory.fresh) as fn(&Memory) -> &Samples,
        ),
        ("idle connection, after its first request", |memory| {
            &memory.used
        }),
    ] {
        let samples: Vec<&Samples> = memory.iter().map(get).collect();
        section(&mut rows, sides, name.to_owned(), "bytes", &samples);
    }
    let rows: Vec<Row<'_>> = rows
        .iter()
        .map(|(case, side, unit, samples)| Row {
            case,
            side: side.name(),
            unit,
            samples,
        })
        .collect();
    let path = write("http", &rows)?;
    println!("written to {}", path.display());
    Ok(())
}

type Owned<'a> = (String, Side, &'static str, &'a Samples);

/// One table; sides of whom this was not measured are left out.
fn section<'a>(
    rows: &mut Vec<Owned<'a>>,
    sides: &[Side],
    name: String,
    unit: &'static str,
    samples: &[&'a Samples],
) {
    let peer = sides.iter().position(|side| *side == Side::Haproxy);
    let heading = format!("{name} ({unit})");
    let mut table = Table::new([heading.as_str(), "median", "min", "max", "spread", "ratio"]);
    let measured = sides.iter().zip(samples).filter(|(_, own)| own.runs() > 0);
    let mut any = false;
    for (side, own) in measured {
        any = true;
        let ratio = peer.map(|peer| own.paired(samples[peer], |own, peer| own / peer));
        let ratio = ratio.map_or(f64::NAN, |ratio| ratio.median());
        table.row([
            side.name().to_owned(),
            format!("{:.1}", own.median()),
            format!("{:.1}", own.min()),
            format!("{:.1}", own.max()),
            format!("{:.0} %", own.spread() * 100.0),
            format!("{ratio:.2}"),
        ]);
        rows.push((name.clone(), *side, unit, *own));
    }
    if any {
        println!("{}", table.text());
    }
}
