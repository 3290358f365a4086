//! `cargo xtask demo`: from a fresh machine to the agent at work.

use anyhow::Result;

use crate::{programs, run, setup};

/// What `cargo xtask demo` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to the demo
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Sets up, builds, and becomes the demo: its exit code is ours, and Ctrl-C is its to handle.
///
/// # Errors
/// Not root, or set-up or build fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    run::require_root("the demo")?;
    setup::ensure(setup::Purpose::Demo)?;
    programs::become_one("demo", &args.rest)
}
