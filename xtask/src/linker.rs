//! bpf-linker, which turns the compiler's bitcode into one BPF object. Kept under `target/tools`,
//! so that no other project's version gets in the way.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{run, toolchain::Toolchain, workspace};

/// Environment variable by which a person names an LLVM of their own.
const LLVM_PREFIX: &str = "LLVM_PREFIX";
const VERSION: &str = "0.13.0";
/// The LLVM versions that this bpf-linker can be built with.
const LLVM_VERSIONS: std::ops::RangeInclusive<u32> = 21..=23;

/// The bpf-linker to link with: this tree's own, else one of the same version in PATH.
pub(crate) fn find() -> Option<PathBuf> {
    let own = workspace::tools_dir().join("bin/bpf-linker");
    [Some(own), run::find_program("bpf-linker")]
        .into_iter()
        .flatten()
        .find(|linker| is_right_version(linker))
}

/// The Debian packages that building bpf-linker with the given LLVM needs.
pub(crate) fn packages(llvm: u32) -> Vec<String> {
    // LLVM's own libraries name these; g++ brings the C++ library.
    let mut packages = ["zlib1g-dev", "libzstd-dev", "libxml2-dev", "g++"]
        .map(String::from)
        .to_vec();
    if env::var_os(LLVM_PREFIX).is_none() {
        packages.extend([format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]);
    }
    packages
}

/// Builds bpf-linker under `target/tools` with the LLVM that `toolchain` uses.
///
/// # Errors
/// No bpf-linker fits that LLVM, or `cargo install` fails.
pub(crate) fn install(toolchain: Toolchain) -> Result<()> {
    let llvm = toolchain.llvm_major()?;
    if !LLVM_VERSIONS.contains(&llvm) {
        bail!(
            "bpf-linker {VERSION} works with LLVM {} to {}, but {} has LLVM {llvm}: install an \
             older nightly, or the distribution's rustc-web",
            LLVM_VERSIONS.start(),
            LLVM_VERSIONS.end(),
            toolchain.describe()
        );
    }
    println!("setup: building bpf-linker {VERSION} with LLVM {llvm} (a minute, once)");
    let tools = workspace::tools_dir();
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(env::split_paths(&path).chain([tools.join("bin")]))
        .context("the path of this tree cannot stand in PATH")?;
    let mut install = run::cargo();
    install
        .args(["install", "bpf-linker", "--version", VERSION, "--locked"])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ])
        .arg("--root")
        .arg(&tools)
        // Else cargo advises to add it to PATH, which nobody needs.
        .env("PATH", path)
        .env(LLVM_PREFIX, llvm_prefix(llvm));
    run::run("install bpf-linker", &mut install)
}

fn llvm_prefix(llvm: u32) -> PathBuf {
    env::var_os(LLVM_PREFIX).map_or_else(
        || PathBuf::from(format!("/usr/lib/llvm-{llvm}")),
        PathBuf::from,
    )
}

fn is_right_version(linker: &Path) -> bool {
    // Running it also shows that the libraries it was linked with are still there.
    run::output(
        "ask bpf-linker for its version",
        Command::new(linker).arg("--version"),
    )
    .is_ok_and(|said| said.trim() == format!("bpf-linker {VERSION}"))
}
