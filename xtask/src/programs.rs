//! The programs of `lb-tests`: the demo, the benchmarks, and what they start in turn.

use anyhow::Result;

use crate::run;

/// Builds all of them and becomes the one of that `name`: its exit code is ours, and Ctrl-C is
/// its to handle.
///
/// # Errors
/// Returns only when they cannot be built or the one cannot be started.
pub(crate) fn become_one(name: &str, arguments: &[String]) -> Result<()> {
    let options = ["--release", "--package", "lb-tests"];
    // `cargo run` would leave out the servers that demo and benchmarks start.
    run::run(
        &format!("build {name}"),
        run::cargo().arg("build").args(options).arg("--bins"),
    )?;
    let mut cargo = run::cargo();
    cargo
        .args(["run", "--quiet"])
        .args(options)
        .args(["--bin", name, "--"])
        .args(arguments);
    run::become_command(&format!("run {name}"), &mut cargo)
}
