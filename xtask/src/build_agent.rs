//! `cargo xtask build`: the agent with the programs for the kernel inside.

use anyhow::Result;

use crate::{build_ebpf, run};

/// Builds `target/release/lb-agent`.
///
/// # Errors
/// Set-up or one of the builds fails.
pub(crate) fn run() -> Result<()> {
    build_ebpf::run()?;
    let mut cargo = run::cargo();
    run::run(
        "build lb-agent",
        cargo.args(["build", "--release", "--package", "lb-agent"]),
    )
}
