//! What clients get through a node: new connections and keep-alive requests a second, and how long
//! each takes, through lb-agent and its peers, and routed directly. Every side has hosts of its
//! own, laid out alike; all are measured in turn, several rounds. Prints tables with the goals and
//! writes `target/bench/connections.json`.

mod report;
mod servers;
mod stand;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use lb_tests::{
    bench::{Effort, Over, Progress, Samples, request},
    cleanup,
};

use crate::stand::{Side, Stand};

/// New connections and keep-alive requests through lb-agent, nftables, HAProxy and nginx
#[derive(Parser)]
struct Args {
    /// Rounds; each measures every side once
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Milliseconds a side, and each of the two kinds of requests
    #[arg(long, default_value_t = 250)]
    milliseconds: u64,
    /// Requests under way at any time
    #[arg(long, default_value_t = 16)]
    at_once: usize,
}

/// Share of requests that may fail before a side counts as not measured.
const MOST_FAILED: f64 = 0.001;

/// What is sent before each measurement, unmeasured.
const WARM_UP: Duration = Duration::from_millis(50);

/// The two kinds of requests.
const KINDS: [Over; 2] = [Over::NewConnection, Over::KeptConnection];

/// What was measured of one side and one kind of requests.
#[derive(Clone, Debug, Default)]
struct Figures {
    /// Requests a second.
    rate: Samples,
    /// Microseconds that half of them took at most.
    p50: Samples,
    /// Microseconds that 99 of 100 took at most.
    p99: Samples,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "no round is no measurement");
    ensure!(args.at_once > 0, "no request is no measurement");
    ensure!(args.milliseconds > 0, "no time is no measurement");
    let mut progress = Progress::new(args.rounds * Side::ALL.len() * KINDS.len());
    progress.show("setting up");
    let stands: Vec<Stand> = Side::ALL
        .into_iter()
        .map(|side| Stand::new(side).with_context(|| format!("setting up {}", side.name())))
        .collect::<Result<_>>()?;
    let mut figures = vec![[Figures::default(), Figures::default()]; stands.len()];
    for round in 0..args.rounds {
        for (kind, over) in KINDS.into_iter().enumerate() {
            for turn in 0..stands.len() {
                // Nobody always comes after the same one.
                let number = (round + turn) % stands.len();
                let stand = &stands[number];
                measure(&args, stand, over, &mut figures[number][kind])
                    .with_context(|| format!("measuring {} ({over:?})", stand.side.name()))?;
                progress.step(stand.side.name());
            }
        }
    }
    drop(progress);
    cleanup::park_if_interrupted();
    report::print(&figures)
}

fn measure(args: &Args, stand: &Stand, over: Over, figures: &mut Figures) -> Result<()> {
    let from = stand.topology.client();
    let effort = |time| Effort {
        at_once: args.at_once,
        time,
    };
    request(from, &stand.targets, over, effort(WARM_UP))?;
    let time = Duration::from_millis(args.milliseconds);
    let measured = request(from, &stand.targets, over, effort(time))?;
    let (failed, reason) = &measured.failed;
    ensure!(
        *failed as f64 <= measured.latency.runs() as f64 * MOST_FAILED,
        "{failed} requests failed beside {} answers, the last because: {reason}",
        measured.latency.runs()
    );
    figures.rate.push(measured.rate);
    figures.p50.push(measured.latency.quantile(0.5));
    figures.p99.push(measured.latency.quantile(0.99));
    Ok(())
}
