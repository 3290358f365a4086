//! Programs of others that are built with cargo, in exact versions, and kept under `target/tools`.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{run, workspace};

/// A program that `cargo install` builds.
pub(crate) struct Tool {
    /// Its name, which is also that of its crate.
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// Further arguments of `cargo install`.
    pub(crate) arguments: &'static [&'static str],
}

/// The program: this tree's own, else one of the same version in PATH, else it is built.
///
/// # Errors
/// `cargo install` fails.
pub(crate) fn ensure(tool: &Tool) -> Result<PathBuf> {
    let tools = workspace::tools_dir();
    let own = tools.join("bin").join(tool.name);
    let found = [Some(own.clone()), run::find_program(tool.name)]
        .into_iter()
        .flatten()
        .find(|program| is_right_version(program, tool));
    if let Some(program) = found {
        return Ok(program);
    }
    println!(
        "setup: building {} {} (minutes, once)",
        tool.name, tool.version
    );
    let mut install = run::cargo();
    install
        .args(["install", tool.name, "--version", tool.version, "--locked"])
        .args(tool.arguments)
        .arg("--root")
        .arg(&tools);
    run::run(&format!("install {}", tool.name), &mut install)?;
    Ok(own)
}

fn is_right_version(program: &Path, tool: &Tool) -> bool {
    run::output(
        &format!("ask {} for its version", tool.name),
        run::command(program).arg("--version"),
    )
    .is_ok_and(|said| said.split_whitespace().any(|word| word == tool.version))
}
