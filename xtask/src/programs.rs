//! The programs of `lb-tests`: the demo, the benchmarks, and what they start in turn, the agent above all.

use std::{env, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{build_ebpf, run, workspace};

/// Builds all of them and becomes the one of that `name`: its exit code is ours, and Ctrl-C is
/// its to handle.
///
/// # Errors
/// Returns only when they cannot be built or the one cannot be started.
pub(crate) fn become_one(name: &str, arguments: &[String]) -> Result<()> {
    build_ebpf::run()?;
    // In one go: alone, each would have other features of what both use, and have it compiled twice.
    run::run(
        &format!("build {name}"),
        run::cargo().args(["build", "--release", "--bins"]).args([
            "--package",
            "lb-agent",
            "--package",
            "lb-tests",
        ]),
    )?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || workspace::root().join("target"),
        |target| workspace::root().join(PathBuf::from(target)),
    );
    run::become_command(
        &format!("run {name}"),
        Command::new(target.join("release").join(name)).args(arguments),
    )
}
