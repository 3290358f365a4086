//! bpf-linker, which turns the compiler's bitcode into one BPF object.

use std::{env, path::PathBuf};

use anyhow::{Result, bail};

use crate::{tool::Tool, toolchain::Toolchain};

/// Environment variable by which a person names an LLVM of their own.
const LLVM_PREFIX: &str = "LLVM_PREFIX";
const LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.13.0",
    said: "bpf-linker",
};
/// The LLVM versions that this bpf-linker can be built with.
const LLVM_VERSIONS: std::ops::RangeInclusive<u32> = 21..=23;

/// The bpf-linker to link with.
pub(crate) fn find() -> Option<PathBuf> {
    LINKER.find()
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
            "bpf-linker {} works with LLVM {} to {}, but {} has LLVM {llvm}: install an \
             older nightly, or the distribution's rustc-web",
            LINKER.version,
            LLVM_VERSIONS.start(),
            LLVM_VERSIONS.end(),
            toolchain.describe()
        );
    }
    println!(
        "setup: building bpf-linker {} with LLVM {llvm} (a minute, once)",
        LINKER.version
    );
    let features = format!("llvm-{llvm}");
    let arguments = ["--no-default-features", "--features", &features];
    let prefix = llvm_prefix(llvm);
    LINKER
        .install(&arguments, &[(LLVM_PREFIX, prefix.as_os_str())])
        .map(drop)
}

/// Where a version of LLVM is.
pub(crate) fn llvm_prefix(llvm: u32) -> PathBuf {
    env::var_os(LLVM_PREFIX).map_or_else(
        || PathBuf::from(format!("/usr/lib/llvm-{llvm}")),
        PathBuf::from,
    )
}
