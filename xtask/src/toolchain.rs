//! Which Rust can build for the BPF target here.
//!
//! The stable toolchain that builds the agent has no `core` for that target. Two others do: the
//! distribution's, where a package carries `core` ready-made, and rustup's nightly, which builds
//! it from `rust-src`. When both are complete the distribution's is taken: it is a release, and
//! the same one every day.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{run, workspace};

/// The target of the programs: BPF, little-endian like every machine that is supported.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

const DISTRIBUTION_CARGO: &str = "/usr/bin/cargo";
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";
const DISTRIBUTION_CLIPPY: &str = "/usr/bin/cargo-clippy";

/// Major version of the LLVM inside the distribution's `rustc-web`, for when it is not yet there
/// to be asked.
pub(crate) const DISTRIBUTION_LLVM: u32 = 22;

/// A Rust that can build for [`TARGET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// `/usr/bin/cargo`, with a ready-made `core`.
    Distribution,
    /// rustup's nightly, with `rust-src`.
    Nightly,
}

impl Toolchain {
    /// The toolchain to build with, if there is one.
    pub(crate) fn find() -> Option<Self> {
        if distribution_has_core() {
            Some(Self::Distribution)
        } else if nightly_has_source() {
            Some(Self::Nightly)
        } else {
            None
        }
    }

    /// What it is, for a person.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Distribution => "the distribution's Rust with core built for BPF",
            Self::Nightly => "rustup's nightly with rust-src",
        }
    }

    /// `cargo build` of the programs for the BPF target.
    pub(crate) fn build(self, rustflags: &[String]) -> Command {
        let mut build = match self {
            Self::Distribution => distribution(DISTRIBUTION_CARGO),
            Self::Nightly => nightly("cargo"),
        };
        build.arg("build");
        self.for_programs(build, rustflags)
    }

    /// `cargo clippy` of the programs for the BPF target.
    pub(crate) fn clippy(self, rustflags: &[String]) -> Command {
        let mut clippy = match self {
            Self::Distribution => {
                // By its path: `cargo clippy` would look for rustup's first, whose compiler is
                // another.
                let mut clippy = distribution(DISTRIBUTION_CLIPPY);
                clippy.env("CARGO", DISTRIBUTION_CARGO);
                clippy
            }
            Self::Nightly => nightly("cargo"),
        };
        clippy.arg("clippy");
        self.for_programs(clippy, rustflags)
    }

    /// Major version of the LLVM that this toolchain's code generation comes from; bpf-linker has
    /// to be built with the same.
    ///
    /// # Errors
    /// `rustc -vV` fails or does not say.
    pub(crate) fn llvm_major(self) -> Result<u32> {
        let mut rustc = match self {
            Self::Distribution => Command::new(DISTRIBUTION_RUSTC),
            Self::Nightly => nightly("rustc"),
        };
        llvm_major_of(&mut rustc)
            .with_context(|| format!("no version of LLVM is known for {}", self.describe()))
    }

    fn for_programs(self, mut cargo: Command, rustflags: &[String]) -> Command {
        cargo
            .current_dir(workspace::ebpf_crate())
            .args(["--release", "--target", TARGET, "--target-dir"])
            .arg(workspace::ebpf_target_dir())
            // The encoded form is split at this character alone: paths may hold spaces.
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\u{1f}"));
        if self == Self::Nightly {
            cargo.args(["-Z", "build-std=core"]);
        }
        cargo
    }
}

/// Whether `cargo clippy` of [`Toolchain::Distribution`] is there.
pub(crate) fn distribution_has_clippy() -> bool {
    Path::new(DISTRIBUTION_CLIPPY).exists()
}

fn distribution(program: &str) -> Command {
    let mut command = Command::new(program);
    without_surrounding_build(&mut command);
    command
        .env("RUSTC", DISTRIBUTION_RUSTC)
        // A release compiler, which refuses the unstable features that programs for BPF need
        // unless it is told otherwise.
        .env("RUSTC_BOOTSTRAP", "1");
    command
}

fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    without_surrounding_build(&mut command);
    command.args(["run", "nightly", program]);
    command
}

/// This tool is itself run by cargo: what that has set is for another toolchain and target.
fn without_surrounding_build(command: &mut Command) {
    for inherited in [
        "CARGO",
        "CARGO_BUILD_TARGET",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(inherited);
    }
}

fn distribution_has_core() -> bool {
    if !Path::new(DISTRIBUTION_CARGO).exists() {
        return false;
    }
    let mut rustc = Command::new(DISTRIBUTION_RUSTC);
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    run::output("ask rustc for its libraries", &mut rustc)
        .is_ok_and(|dir| holds_core(Path::new(dir.trim())))
}

fn nightly_has_source() -> bool {
    let mut rustc = nightly("rustc");
    run::output(
        "ask nightly for its root",
        rustc.args(["--print", "sysroot"]),
    )
    .is_ok_and(|root| {
        PathBuf::from(root.trim())
            .join("lib/rustlib/src/rust/library/core")
            .is_dir()
    })
}

fn holds_core(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut files| {
        files.any(|file| {
            file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
        })
    })
}

/// Major version of the LLVM that a rustc generates code with.
///
/// # Errors
/// `rustc -vV` fails or does not say.
pub(crate) fn llvm_major_of(rustc: &mut Command) -> Result<u32> {
    let said = run::output("ask rustc for its LLVM", rustc.arg("-vV"))?;
    llvm_major_in(&said).context("rustc -vV names no LLVM version")
}

fn llvm_major_in(version: &str) -> Option<u32> {
    version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?
        .split('.')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_is_read_from_the_verbose_version() {
        for (said, expected) in [
            (
                "rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n",
                Some(22),
            ),
            ("rustc 1.96.0\nrelease: 1.96.0\n", None),
            ("LLVM version: unknown\n", None),
        ] {
            assert_eq!(llvm_major_in(said), expected, "{said:?}");
        }
    }

    #[test]
    fn a_directory_without_core_is_not_taken_for_a_target() {
        assert!(!holds_core(Path::new("/nonexistent")));
        assert!(!holds_core(Path::new(env!("CARGO_MANIFEST_DIR"))));
    }
}
