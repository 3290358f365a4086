//! What a proxy of requests gets through: requests a second, how long they take, the processor
//! time each costs the proxy, and the memory of idle connections. lb-agent beside HAProxy and nginx
//! with two threads each, all of which write the same headers, and beside a backend asked directly.
//! Every side has hosts of its own, laid out alike; all are measured in turn, several rounds. Prints
//! tables and writes `target/bench/http.json`.

mod case;
mod clients;
mod idle;
mod report;
mod servers;
mod stand;
mod usage;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use lb_tests::{
    bench::{Progress, Samples},
    cleanup,
};

use crate::{
    case::{CASES, Case},
    stand::{Side, Stand},
};

/// Requests through lb-agent's proxy, HAProxy and nginx
#[derive(Parser)]
struct Args {
    /// Rounds; each measures every side once in every case
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds a side and case
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// Connections at a time; with HTTP/2 and gRPC a quarter of them, with four streams each
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Idle connections whose memory is measured; 0 leaves that out
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Rounds of the idle connections, each with new processes
    #[arg(long, default_value_t = 3)]
    idle_rounds: usize,
    /// Only these sides
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Side::ALL)]
    sides: Vec<Side>,
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    case: String,
    /// HAProxy and nginx write X-Forwarded-For and no other header, instead of all that lb-agent writes
    #[arg(long)]
    bare: bool,
}

/// What was measured of one side in one case.
#[derive(Clone, Debug, Default)]
struct Figures {
    /// Requests a second.
    rate: Samples,
    /// Microseconds that so many of 1000 took at most: 500, 990, 999.
    latency: [Samples; 3],
    /// Microseconds of processor time that a request cost the proxy.
    cpu: Samples,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        args.rounds > 0 && args.seconds > 0,
        "no time is no measurement"
    );
    ensure!(args.connections >= 4, "at least four connections");
    let cases: Vec<&Case> = CASES
        .iter()
        .filter(|case| case.name.contains(&args.case))
        .collect();
    let proxies = args.sides.iter().filter(|side| **side != Side::Direct);
    let idle_rounds = if args.idle > 0 { args.idle_rounds } else { 0 };
    let idle_steps = idle_rounds * proxies.count();
    let mut progress = Progress::new(args.rounds * cases.len() * args.sides.len() + idle_steps);
    progress.show("setting up");
    let stands: Vec<Stand> = args
        .sides
        .iter()
        .map(|side| {
            Stand::new(*side, args.bare).with_context(|| format!("setting up {}", side.name()))
        })
        .collect::<Result<_>>()?;
    let mut figures = vec![vec![Figures::default(); stands.len()]; cases.len()];
    for round in 0..args.rounds {
        for (case, figures) in cases.iter().zip(&mut figures) {
            for turn in 0..stands.len() {
                // Nobody always comes after the same one.
                let number = (round + turn) % stands.len();
                let stand = &stands[number];
                measure(&args, stand, case, &mut figures[number])
                    .with_context(|| format!("measuring {} ({})", stand.side.name(), case.name))?;
                progress.step(stand.side.name());
            }
        }
    }
    drop(stands);
    let mut memory = vec![idle::Memory::default(); args.sides.len()];
    for _ in 0..idle_rounds {
        for (side, memory) in args.sides.iter().zip(&mut memory) {
            if *side == Side::Direct {
                continue;
            }
            idle::measure(*side, args.bare, args.idle, memory)
                .with_context(|| format!("measuring idle connections of {}", side.name()))?;
            progress.step(side.name());
        }
    }
    drop(progress);
    cleanup::park_if_interrupted();
    report::print(&args.sides, &cases, &figures, &memory)
}

fn measure(args: &Args, stand: &Stand, case: &Case, figures: &mut Figures) -> Result<()> {
    let before = stand.usage.processor()?;
    let measured = clients::run(stand, case, args.connections, args.seconds)?;
    let spent = stand.usage.processor()?.saturating_sub(before);
    ensure!(
        measured.failed == 0,
        "{} of {} requests failed",
        measured.failed,
        measured.requests
    );
    figures.rate.push(measured.rate);
    for (samples, value) in figures.latency.iter_mut().zip(measured.latency) {
        samples.push(value);
    }
    if stand.side != Side::Direct {
        let microseconds = spent.as_secs_f64() * 1e6;
        figures.cpu.push(microseconds / measured.requests as f64);
    }
    Ok(())
}
