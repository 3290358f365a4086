//! What the control plane costs with many services: how long a change in Consul takes into the
//! kernel, a start from nothing, memory and processor time; and what it takes to load the same
//! configuration anew with nftables and HAProxy. Prints tables with the goals and writes
//! `target/bench/control.json`.
//!
//! Consul is a stand-in here that speaks its health questions: the real one does not tell when it
//! has answered, and takes longer to take in a hundred thousand instances than all the rest. A
//! smaller case asks the real one.

mod catalog;
mod kernel;
mod peers;
mod real;
mod report;
mod stand;
mod stand_in;

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use lb_tests::{
    bench::{Progress, Samples},
    cleanup,
};

use crate::{
    peers::{Haproxy, Nftables},
    real::RealConsul,
    stand::Stand,
};

/// The control plane with many services, against an nftables ruleset and an HAProxy that are reloaded
#[derive(Parser)]
struct Args {
    /// Services
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Backends of each
    #[arg(long, default_value_t = 100)]
    backends: usize,
    /// Rounds; each makes a few changes, and has each peer reload once
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Starts from nothing
    #[arg(long, default_value_t = 3)]
    starts: usize,
    /// Seconds over which processor time is taken
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Only what a node at rest costs, and starts: no changes, no peers
    #[arg(long)]
    at_rest: bool,
}

/// Changes in a round, of services that have a watch and of services that have none.
const CHANGES: usize = 10;
/// Changes a second of the busy case.
const RATE: u32 = 100;
/// Services of the small case.
const FEW: usize = 10;
/// From a change to the next one, which is to meet an agent at rest.
const REST: Duration = Duration::from_millis(60);
/// From the start until memory and processor time are those of an agent at rest.
const SETTLE: Duration = Duration::from_secs(20);
/// Services that have a watch: the first ones, some fewer than the agent has watches.
const WATCHED: usize = 100;

/// Everything that was measured. Times in milliseconds, processor time in percent of one, memory in
/// mebibytes.
#[derive(Debug, Default)]
struct Figures {
    start: Samples,
    watched: Changes,
    polled: Changes,
    real: Samples,
    all: Samples,
    nftables: Samples,
    haproxy: Samples,
    busy: Samples,
    idle: Samples,
    idle_few: Samples,
    resident: Samples,
    own: Samples,
    resident_few: Samples,
    own_few: Samples,
}

/// Changes of one kind.
#[derive(Debug, Default)]
struct Changes {
    answered: Samples,
    total: Samples,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.services > 0, "no service is no measurement");
    ensure!(
        args.backends > 1,
        "a service of one backend has nothing to change"
    );
    ensure!(args.rounds > 0, "no round is no measurement");
    ensure!(args.starts > 0, "no start is no measurement");
    ensure!(args.seconds > 0, "no time is no measurement");
    let mut figures = Figures::default();
    let mut progress = Progress::new(args.starts + args.rounds + 5);
    let time = Duration::from_secs(args.seconds);

    progress.show("a node of few services");
    let few = Stand::new(FEW.min(args.services), args.backends).context("starting with few")?;
    thread::sleep(SETTLE.min(time));
    figures.idle_few.push(few.idle(time)?);
    let (resident, own) = few.resident()?;
    figures.resident_few.push(resident);
    figures.own_few.push(own);
    drop(few);
    progress.step("starts from nothing");

    let mut stand = None;
    for _ in 0..args.starts {
        // The one before is gone first.
        drop(stand.take());
        let started = Stand::new(args.services, args.backends).context("starting from nothing")?;
        figures.start.push(milliseconds(started.start));
        stand = Some(started);
        progress.step("starts from nothing");
    }
    let stand = stand.context("no start")?;
    thread::sleep(SETTLE.min(time));
    figures.idle.push(stand.idle(time)?);
    if args.at_rest {
        let (resident, own) = stand.resident()?;
        figures.resident.push(resident);
        figures.own.push(own);
        drop(progress);
        cleanup::park_if_interrupted();
        return report::print(&figures, args.services, args.backends);
    }
    progress.step("changes and reloads");

    let nftables = Nftables::new(args.services, args.backends).context("setting up nftables")?;
    let haproxy = Haproxy::new(args.services, args.backends).context("setting up HAProxy")?;
    let real = RealConsul::new().context("setting up Consul")?;
    for round in 0..args.rounds {
        measure(&args, &stand, round, &mut figures).context("changing one instance")?;
        let turn = round + 1;
        figures.nftables.push(milliseconds(nftables.reload(turn)?));
        figures.haproxy.push(milliseconds(haproxy.reload(turn)?));
        for _ in 0..CHANGES {
            figures.real.push(milliseconds(real.change()?));
        }
        progress.step("changes and reloads");
    }
    drop((nftables, haproxy, real));

    progress.show("changes of all");
    for round in 0..args.starts {
        figures.all.push(milliseconds(stand.change_all(round)?));
        thread::sleep(REST);
    }
    progress.step("many changes a second");
    thread::sleep(Duration::from_secs(2));
    figures.busy.push(stand.churn(RATE, time)?);
    progress.step("memory");
    thread::sleep(SETTLE.min(time));
    let (resident, own) = stand.resident()?;
    figures.resident.push(resident);
    figures.own.push(own);
    drop(progress);
    cleanup::park_if_interrupted();
    report::print(&figures, args.services, args.backends)
}

fn measure(args: &Args, stand: &Stand, round: usize, figures: &mut Figures) -> Result<()> {
    for number in 0..CHANGES {
        let number = round * CHANGES + number;
        let watched = WATCHED.min(args.services);
        let mut kinds = vec![(number % watched, &mut figures.watched)];
        // Without more services than watches, none is without one.
        let others = args.services.saturating_sub(2 * WATCHED);
        if others > 0 {
            kinds.push((2 * WATCHED + number % others, &mut figures.polled));
        }
        for (service, changes) in kinds {
            let change = stand.change(service, number / watched)?;
            changes.answered.push(milliseconds(change.answered));
            changes.total.push(milliseconds(change.total));
            thread::sleep(REST);
        }
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
