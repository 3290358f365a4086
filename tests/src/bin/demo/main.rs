//! The demo: a client, a node and three backends as network namespaces on this machine, the real
//! agent on the node, and what it does, step by step, with figures. Needs root. Leaves nothing
//! behind, also when it is interrupted or fails.

mod requests;
mod screen;
mod stage;
mod steps;

use std::{process::ExitCode, time::Instant};

use anyhow::Result;
use clap::Parser;

use crate::{screen::Screen, stage::Catalog};

/// Shows on this machine what lb-agent does: spread, split, health, block, restart, counters.
#[derive(Parser)]
#[command(name = "demo")]
struct Args {
    /// Where the agent learns of the backends.
    #[arg(long, value_enum, default_value_t = Catalog::Auto)]
    catalog: Catalog,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // SAFETY: geteuid(2) always succeeds and touches no memory.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("demo: namespaces and programs in the kernel need root; run it with sudo");
        return ExitCode::FAILURE;
    }
    let start = Instant::now();
    let mut screen = Screen::new();
    if let Err(error) = play(&mut screen, args.catalog) {
        screen.check(false, &format!("{error:#}"));
    }
    let took = start.elapsed().as_secs();
    match screen.failed() {
        0 => {
            screen.say(&format!(
                "\nEverything came as expected, in {took} seconds."
            ));
            ExitCode::SUCCESS
        }
        failed => {
            screen.say(&format!(
                "\n{failed} of the results marked ✗ above did not come as expected ({took} seconds)."
            ));
            ExitCode::FAILURE
        }
    }
}

fn play(screen: &mut Screen, catalog: Catalog) -> Result<()> {
    let mut stage = steps::set_up(screen, catalog.wants_consul())?;
    let mut answered = steps::spread(screen, &stage);
    requests::by_host(screen, &stage)?;
    answered += steps::split(screen, &stage)?;
    answered += steps::fail(screen, &mut stage)?;
    answered += steps::block(screen, &stage)?;
    answered += steps::restart(screen, &mut stage)?;
    steps::counters(screen, &stage, answered)?;
    steps::tear_down(screen, stage);
    Ok(())
}
