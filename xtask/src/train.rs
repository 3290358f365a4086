//! `cargo xtask train`: writes the profile that release builds of the agent are laid out by.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{build_agent, linker, programs, run, setup, toolchain, workspace};

/// What the agent does meanwhile: requests of every kind, and changes among many services.
const LOADS: [(&str, &[&str]); 2] = [
    (
        "bench-http",
        &["--rounds", "2", "--idle", "100", "--sides", "agent"],
    ),
    (
        "bench-control",
        &["--rounds", "2", "--starts", "1", "--seconds", "3"],
    ),
];

/// Has an agent that counts do its work, and writes `lb-agent/default.profdata`.
///
/// # Errors
/// Not root, or set-up, a build or one of the loads fails.
pub(crate) fn run() -> Result<()> {
    run::require_root("the load that the agent is trained with")?;
    setup::ensure(setup::Purpose::Bench)?;
    let place = workspace::target_dir().join("train");
    let raw = place.join("raw");
    let agent = build_agent::instrumented(&place, &raw)?;
    programs::build("the loads")?;
    // What ran while it was built counted, too.
    if raw.exists() {
        fs::remove_dir_all(&raw).with_context(|| format!("could not remove {}", raw.display()))?;
    }
    for (load, arguments) in LOADS {
        let mut command = Command::new(programs::find(load));
        command.args(arguments).env("LB_AGENT_BIN", &agent);
        run::run(&format!("train with {load}"), &mut command)?;
    }
    let profile = build_agent::profile();
    merge(&raw, &profile)?;
    build_agent::describe()?;
    println!("train: {}", profile.display());
    Ok(())
}

/// Adds up what all agents counted.
fn merge(raw: &Path, profile: &Path) -> Result<()> {
    let llvm = toolchain::llvm_major_of(&mut Command::new("rustc"))?;
    let tool = linker::llvm_prefix(llvm).join("bin/llvm-profdata");
    let mut merge = run::command(&tool);
    merge
        .args(["merge", "--sparse", "--output"])
        .arg(profile)
        .arg(raw);
    run::run("merge what was counted", &mut merge)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that counts, what it counted added up, and rustc reading that: all of one LLVM.
    #[test]
    fn what_was_counted_lays_a_program_out() {
        let place = workspace::target_dir().join(format!("tmp/train-{}", std::process::id()));
        let (source, program) = (place.join("hot.rs"), place.join("hot"));
        let (raw, profile) = (place.join("raw"), place.join("hot.profdata"));
        fs::create_dir_all(&place).unwrap();
        let text =
            "fn main() { println!(\"{}\", std::env::args().map(|arg| arg.len()).sum::<usize>()); }";
        fs::write(&source, text).unwrap();
        let compile = |flag: String| {
            let mut rustc = Command::new("rustc");
            rustc
                .args(["-O", "-o"])
                .arg(&program)
                .arg(&source)
                .arg(flag);
            run::output("compile", &mut rustc)
        };
        compile(format!("-Cprofile-generate={}", raw.display())).unwrap();
        run::output("count", &mut Command::new(&program)).unwrap();
        merge(&raw, &profile).unwrap();
        compile(format!("-Cprofile-use={}", profile.display())).unwrap();
        assert!(fs::metadata(&profile).unwrap().len() > 0);
        fs::remove_dir_all(&place).unwrap();
    }
}
