//! Where things are: the source tree and what is built under `target/`.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The top of the source tree. Cargo says where the manifest is at run time, so that a tree that
/// was moved after `xtask` was built is still found.
pub(crate) fn root() -> PathBuf {
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_dir
        .parent()
        .map_or_else(|| manifest_dir.clone(), Path::to_path_buf)
}

/// Cargo's target directory.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(
        || root().join("target"),
        |target| root().join(PathBuf::from(target)),
    )
}

/// Where `cargo install --root` puts tools that belong to this tree only.
pub(crate) fn tools_dir() -> PathBuf {
    root().join("target/tools")
}

/// Cargo's target directory for the BPF half, apart from the agent's.
pub(crate) fn ebpf_target_dir() -> PathBuf {
    root().join("target/ebpf")
}

/// The object that the agent's build script embeds.
pub(crate) fn ebpf_object() -> PathBuf {
    ebpf_target_dir().join("lb-ebpf.o")
}

/// The driver of the datapath benchmark.
pub(crate) fn bench_object() -> PathBuf {
    ebpf_target_dir().join("lb-bench.o")
}

/// The crate with the programs for the kernel.
pub(crate) fn ebpf_crate() -> PathBuf {
    root().join("lb-ebpf")
}

/// Kernels that guests boot, and what belongs to them.
pub(crate) fn kernels_dir() -> PathBuf {
    root().join("target/kernels")
}

/// Root file systems of emulated machines, and what came of them.
pub(crate) fn guests_dir() -> PathBuf {
    root().join("target/guests")
}
