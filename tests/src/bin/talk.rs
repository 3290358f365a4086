//! A local client as a program: see [`lb_tests::talk`].

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use lb_tests::{cgroup, talk};

/// Makes socket calls on request.
#[derive(Parser)]
#[command(name = "talk")]
struct Args {
    /// Where to listen for requests.
    #[arg(long)]
    socket: PathBuf,
    /// Cgroup to be in.
    #[arg(long)]
    cgroup: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(cgroup) = args.cgroup {
        cgroup::join(&cgroup)?;
    }
    talk::serve(args.socket)
}
