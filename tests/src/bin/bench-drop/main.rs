//! What it costs to drop a flood of blocked sources that arrives over veth: lb-agent, nftables at
//! its two earliest hooks, and a program that drops without a look. Every side has a host and a
//! cable of its own; all are measured in turn, several rounds. Prints a table with the goals and
//! writes `target/bench/drop.json`.
//!
//! The sender is a program in the kernel that puts frames on the wire as a driver would
//! (`BPF_F_TEST_XDP_LIVE_FRAMES`). Sending raises the softirq that receives, on the same CPU, so
//! the time of a run is the sender's and the receiver's, one after the other; what the sender costs
//! alone is measured directly before and taken off. That the packets were dropped, and where, the
//! receiver's own counters say.

mod receiver;
mod report;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use lb_common::maps::MIN_FLOW_SLOTS;
use lb_tests::{
    bench::{Driver, Progress, Samples, Traffic, blocked_sources},
    cleanup,
    namespace::Namespace,
    packet::Packet,
};

use crate::receiver::{Receiver, Side};

/// Nanoseconds that dropping a packet of a flood takes, and packets dropped a second
#[derive(Parser)]
struct Args {
    /// Rounds; each measures every side once
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Packets a side and round
    #[arg(long, default_value_t = 100_000)]
    packets: u32,
    /// Lengths of block lists
    #[arg(long, value_delimiter = ',', default_values_t = [10, 10_000])]
    rules: Vec<u32>,
    /// The driver, built by `cargo xtask build-ebpf`
    #[arg(long, default_value = "target/ebpf/lb-bench.o")]
    driver: PathBuf,
}

/// Share of the packets that the receiver must have dropped.
const DROPPED: f64 = 0.99;

/// One side and what was measured of it.
struct Measured {
    receiver: Receiver,
    traffic: Traffic,
    /// Nanoseconds a packet, sender included.
    whole: Samples,
    /// Nanoseconds a packet of the receiver.
    own: Samples,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "no round is no measurement");
    ensure!(args.packets > 0, "no packet is no measurement");
    ensure!(!args.rules.is_empty(), "no block list is no measurement");
    for rules in &args.rules {
        // From 100.64.0.0 on, a /24 each; up to here it stays within unicast addresses.
        ensure!(
            (1..=4_000_000).contains(rules),
            "a block list of {rules} rules: give 1 to 4000000"
        );
    }
    let object = std::fs::read(&args.driver).with_context(|| {
        format!(
            "reading {}: run `cargo xtask build-ebpf`",
            args.driver.display()
        )
    })?;
    let mut progress = Progress::new(args.rounds * (1 + 3 * args.rules.len()));
    progress.show("setting up");
    let sender = Namespace::new("flood")?;
    let mut sides = Vec::new();
    for (number, (side, rules)) in receiver::sides(&args.rules).into_iter().enumerate() {
        let receiver = Receiver::new(&sender, number, side, rules, &object)
            .with_context(|| format!("setting up {}", side.name()))?;
        // UDP, which GRO lets go at once: what it costs to look for parts to join would count
        // against the sides that drop after it.
        let packet = Packet::udp("100.64.0.7", 40_000, "10.99.0.1", 53);
        sides.push(Measured {
            receiver,
            traffic: blocked_sources(&packet, rules)?,
            whole: Samples::default(),
            own: Samples::default(),
        });
    }
    let mut driver = Driver::load(&object, MIN_FLOW_SLOTS)?;
    let mut sending = Samples::default();
    for round in 0..args.rounds {
        for turn in 0..sides.len() {
            // Nobody always comes after the same one.
            let number = (round + turn) % sides.len();
            let side = &mut sides[number];
            let name = side.receiver.side.name();
            let (alone, whole) = measure(&args, &sender, &mut driver, side)
                .with_context(|| format!("measuring {name} ({} rules)", side.receiver.rules))?;
            sending.push(alone);
            side.whole.push(whole);
            side.own.push(whole - alone);
            progress.step(name);
        }
    }
    drop(progress);
    cleanup::park_if_interrupted();
    report::print(&sides, &sending)
}

/// Nanoseconds a packet: of the sender alone, and of both.
fn measure(
    args: &Args,
    sender: &Namespace,
    driver: &mut Driver,
    side: &Measured,
) -> Result<(f64, f64)> {
    let (traffic, out) = (&side.traffic, side.receiver.out);
    let before = side.receiver.dropped()?;
    let warm_up = args.packets / 10 + 1;
    let times = sender.run(|| -> Result<(f64, f64)> {
        driver.flood(traffic, Some(out), warm_up)?;
        let alone = driver.flood(traffic, None, args.packets)?;
        let whole = driver.flood(traffic, Some(out), args.packets)?;
        Ok((alone, whole))
    })?;
    let sent = f64::from(warm_up) + f64::from(args.packets);
    let dropped = side.receiver.dropped_since(before, sent * DROPPED)?;
    ensure!(
        dropped as f64 >= sent * DROPPED,
        "of {sent} packets only {dropped} were dropped where they should be"
    );
    Ok(times)
}

impl Measured {
    fn is(&self, side: Side) -> bool {
        self.receiver.side == side
    }
}
