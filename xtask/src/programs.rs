//! The programs of `lb-tests`: the demo, the benchmarks, and what they start in turn, the agent above all.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{build_agent, run, workspace};

/// Builds all of them and becomes the one of that `name`: its exit code is ours, and Ctrl-C is
/// its to handle.
///
/// # Errors
/// Returns only when they cannot be built or the one cannot be started.
pub(crate) fn become_one(name: &str, arguments: &[String]) -> Result<()> {
    build_agent::run()?;
    build(name)?;
    run::become_command(
        &format!("run {name}"),
        Command::new(find(name)).args(arguments),
    )
}

/// Builds all of them but the agent, and without its optimization across crates, which would take longer
/// than all else of it: what is measured is other programs. `what` completes "could not build …".
///
/// # Errors
/// The build fails.
pub(crate) fn build(what: &str) -> Result<()> {
    run::run(
        &format!("build {what}"),
        run::cargo()
            .args(["build", "--release", "--bins", "--package", "lb-tests"])
            .args(["--config", "profile.release.lto = \"off\""]),
    )
}

/// Where the one of that `name` is.
pub(crate) fn find(name: &str) -> PathBuf {
    workspace::target_dir().join("release").join(name)
}
