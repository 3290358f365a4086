//! `cargo xtask build`: the agent with the programs for the kernel inside, laid out by the profile that
//! `cargo xtask train` wrote.
//!
//! The profile (rustc book, "Profile-guided optimization") says how often each part of the agent ran
//! under load. It knows functions by names that hang on rustc and on all crates below, so one of others
//! fits in parts or not at all; that costs speed, never what the program does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{build_ebpf, run, workspace};

/// The profile.
pub(crate) fn profile() -> PathBuf {
    workspace::root().join("lb-agent/default.profdata")
}

/// What it was made of, in words.
fn made_of() -> PathBuf {
    workspace::root().join("lb-agent/default.profdata.txt")
}

/// Builds `target/release/lb-agent`.
///
/// # Errors
/// Set-up or one of the builds fails.
pub(crate) fn run() -> Result<()> {
    build(&layout()?, &workspace::target_dir())
}

/// What has the compiler lay the program out by the profile, as far as that is of use here.
fn layout() -> Result<Vec<String>> {
    let (held, here) = (fs::read_to_string(made_of()).ok(), ingredients()?);
    let profile = profile();
    match Fit::of(held.as_deref(), &here) {
        Fit::Whole => {}
        Fit::Crates => eprintln!(
            "build: the profile is of other crates, so the agent may be slower than it could be; \
             `cargo xtask train` writes it anew"
        ),
        Fit::None => {
            eprintln!(
                "build: there is no profile of this rustc, so the agent is slower than it could be; \
                 `cargo xtask train` writes one"
            );
            return Ok(Vec::new());
        }
    }
    Ok(vec![
        format!("-Cprofile-use={}", profile.display()),
        // A function that has changed since is laid out without it: nothing to be told of.
        "-Cllvm-args=-no-pgo-warn-mismatch".into(),
        // What runs often lies together, in less than 2 MiB of 20.
        "-Clink-arg=-Wl,-z,keep-text-section-prefix".into(),
    ])
}

/// How well a profile fits what is built.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Whole,
    /// Crates have changed, and with them the names of functions in all that use them.
    Crates,
    /// Another rustc names all functions otherwise, and may not even be able to read it.
    None,
}

impl Fit {
    /// By what the profile was made of, and what is here.
    fn of(held: Option<&str>, here: &str) -> Self {
        match held {
            Some(held) if held == here => Self::Whole,
            Some(held) if held.lines().next() == here.lines().next() => Self::Crates,
            _ => Self::None,
        }
    }
}

/// Builds an agent under `target` that writes to `raw` how often each part of it runs.
///
/// # Errors
/// As for [`run`].
pub(crate) fn instrumented(target: &Path, raw: &Path) -> Result<PathBuf> {
    build(&[format!("-Cprofile-generate={}", raw.display())], target)?;
    Ok(target.join("release/lb-agent"))
}

/// Writes down what a new profile was made of.
///
/// # Errors
/// It cannot be found out or not be written.
pub(crate) fn describe() -> Result<()> {
    let path = made_of();
    fs::write(&path, ingredients()?).with_context(|| format!("could not write {}", path.display()))
}

/// `RUSTFLAGS` of whoever builds take the place of `flags`.
fn build(flags: &[String], target: &Path) -> Result<()> {
    build_ebpf::run()?;
    let flags: Vec<String> = flags.iter().map(|flag| format!("{flag:?}")).collect();
    let mut cargo = run::cargo();
    cargo
        .args(["build", "--release", "--package", "lb-agent", "--config"])
        .arg(format!("build.rustflags=[{}]", flags.join(", ")))
        .arg("--target-dir")
        .arg(target);
    run::run("build lb-agent", &mut cargo)
}

/// Everything that names of functions hang on.
fn ingredients() -> Result<String> {
    let rustc = run::output("ask rustc for its version", Command::new("rustc").arg("-V"))?;
    let crates = run::output(
        "sum up Cargo.lock",
        run::command(Path::new("sha256sum")).arg("Cargo.lock"),
    )?;
    Ok(format!("{rustc}{crates}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_fits_by_rustc_and_crates() {
        let here = "rustc 1.95.0\nabc  Cargo.lock\n";
        for (held, fit) in [
            (Some(here), Fit::Whole),
            (Some("rustc 1.95.0\nabd  Cargo.lock\n"), Fit::Crates),
            (Some("rustc 1.96.0\nabc  Cargo.lock\n"), Fit::None),
            (Some(""), Fit::None),
            (None, Fit::None),
        ] {
            assert_eq!(Fit::of(held, here), fit, "{held:?}");
        }
    }
}
