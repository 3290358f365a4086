//! What the programs cost a packet, by test run: every case over its floor, both measured next to
//! each other, all cases in turn, several rounds. Prints a table with the goals and writes
//! `target/bench/datapath.json`.

mod alone;
mod blocked;
mod cases;
mod population;
mod report;
mod stage;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use lb_tests::bench::Progress;

use crate::{
    cases::{Case, Group},
    stage::Stage,
};

/// Nanoseconds a packet, and what of it is above a program that does next to nothing.
#[derive(Parser)]
struct Args {
    /// Rounds; each runs every case once
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Packets a case and round
    #[arg(long, default_value_t = 100_000)]
    packets: u32,
    /// Only cases whose name contains this (and the floors)
    #[arg(long)]
    only: Option<String>,
    /// The driver, built by `cargo xtask build-ebpf`
    #[arg(long, default_value = "target/ebpf/lb-bench.o")]
    driver: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "no round is no measurement");
    ensure!(args.packets > 0, "no packet is no measurement");
    let driver = std::fs::read(&args.driver).with_context(|| {
        format!(
            "reading {}: run `cargo xtask build-ebpf`",
            args.driver.display()
        )
    })?;
    let mut groups = cases::all()?;
    if let Some(part) = &args.only {
        for group in &mut groups {
            group
                .cases
                .retain(|case| case.is_floor() || case.name.contains(part));
        }
        // A large world is not made for the sake of its floor.
        groups.retain(|group| group.is_floors() || group.cases.iter().any(|c| !c.is_floor()));
        ensure!(
            groups.iter().flat_map(|g| &g.cases).any(|c| !c.is_floor()),
            "no case's name contains `{part}`"
        );
    }
    let progress = Progress::new(args.rounds * groups.iter().map(|g| g.cases.len()).sum::<usize>());
    progress.show("setting up");
    let mut stages: Vec<Stage> = Vec::new();
    for group in &groups {
        if !stages.iter().any(|stage| stage.scene == group.scene) {
            stages.push(Stage::start(group.scene, &driver)?);
        }
    }
    measure(&args, &stages, &mut groups, progress)?;
    drop(stages);
    report::print(&groups)
}

fn measure(
    args: &Args,
    stages: &[Stage],
    groups: &mut [Group],
    mut progress: Progress,
) -> Result<()> {
    for _ in 0..args.rounds {
        for group in &mut *groups {
            let stage = stages
                .iter()
                .find(|stage| stage.scene == group.scene)
                .context("a stage for every group")?;
            let prepare = group.prepare.clone();
            let fails = || format!("preparing {}", group.name);
            stage
                .call(move |bench| bench.prepare(&prepare))?
                .with_context(fails)?;
            for case in &mut group.cases {
                progress.show(&case.name);
                measure_case(args, stage, case).with_context(|| case.name.clone())?;
                progress.step(&case.name);
            }
        }
    }
    Ok(())
}

/// One run of the case, with one of its floor directly before.
fn measure_case(args: &Args, stage: &Stage, case: &mut Case) -> Result<()> {
    let packets = case
        .most
        .map_or(args.packets, |most| most.min(args.packets));
    let (traffic, program, floor) = (case.traffic.clone(), case.program, case.floor);
    let expect = case.expect;
    let (below, cost) = stage.call(move |bench| -> Result<(f64, f64)> {
        let below = bench.bare(&traffic, floor, packets)?;
        let cost = match expect {
            Some(expect) => bench.agent(&traffic, packets, expect)?,
            None => bench.bare(&traffic, program, packets)?,
        };
        Ok((below, cost))
    })??;
    case.samples.push(cost);
    case.above.push(cost - below);
    Ok(())
}
