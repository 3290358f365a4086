//! `cargo xtask bench`: benchmarks, which need root and are no part of the tests.

use anyhow::Result;
use clap::ValueEnum;

use crate::{programs, run, setup};

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which benchmark
    name: Name,
    /// Passed on to the benchmark
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// What the programs in the kernel cost a packet
    Datapath,
    /// What a flood from a blocked source costs, against nftables and a bare XDP program
    Drop,
    /// What clients get through a node, against nftables, HAProxy, nginx and plain routing
    Connections,
    /// What many services cost, against an nftables ruleset and an HAProxy that are reloaded
    Control,
    /// What a proxy of requests gets through and costs, against HAProxy, nginx and none
    Http,
}

/// Builds and becomes the benchmark.
///
/// # Errors
/// Not root, or set-up or build fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    run::require_root("the benchmark")?;
    setup::ensure(setup::Purpose::Bench)?;
    let binary = match args.name {
        Name::Datapath => "bench-datapath",
        Name::Drop => "bench-drop",
        Name::Connections => "bench-connections",
        Name::Control => "bench-control",
        Name::Http => "bench-http",
    };
    programs::become_one(binary, &args.rest)
}
