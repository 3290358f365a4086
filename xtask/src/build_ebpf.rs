//! `cargo xtask build-ebpf`: the programs for the kernel, as one object that the agent embeds.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    linker, run, setup,
    toolchain::{TARGET, Toolchain},
    workspace,
};

/// Sets up what is missing and builds the object.
///
/// # Errors
/// Set-up or build fails.
pub(crate) fn run() -> Result<()> {
    setup::ensure(setup::Purpose::Build)?;
    build()
}

/// Builds `target/ebpf/lb-ebpf.o`; everything that is needed is there already.
///
/// # Errors
/// A tool is missing, or the build fails.
pub(crate) fn build() -> Result<()> {
    let mut build = toolchain()?.build(&rustflags()?);
    run::run("build lb-ebpf", &mut build)?;
    let built = workspace::ebpf_target_dir().join(TARGET).join("release");
    publish(&built.join("lb-ebpf"), &workspace::ebpf_object())?;
    publish(&built.join("lb-bench"), &workspace::bench_object())
}

/// Lints the programs for the target that they are built for, warnings denied.
///
/// # Errors
/// A tool is missing, or clippy finds something.
pub(crate) fn clippy() -> Result<()> {
    let mut clippy = toolchain()?.clippy(&rustflags()?);
    run::run("lint lb-ebpf", clippy.args(["--", "-D", "warnings"]))
}

fn toolchain() -> Result<Toolchain> {
    Toolchain::find().context("no Rust here can build for BPF: run `cargo xtask setup`")
}

fn rustflags() -> Result<Vec<String>> {
    let linker = linker::find().context("bpf-linker is missing: run `cargo xtask setup`")?;
    Ok([
        format!("linker={}", linker.display()),
        // bpf-linker turns the debug information into the BTF that maps and the verifier's
        // messages need.
        "debuginfo=2".into(),
        "link-arg=--btf".into(),
        // 32-bit arithmetic and jumps: in every kernel since 5.1.
        "target-cpu=v3".into(),
        // Packets are read unaligned; without this each such read is done byte by byte.
        "link-arg=--cpu-features=+allows-misaligned-mem-access".into(),
    ]
    .into_iter()
    .flat_map(|flag| ["-C".to_string(), flag])
    .collect())
}

/// Puts `built` where the agent's build script looks, but only when it differs: a new time stamp
/// alone would have cargo build the agent again.
fn publish(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built)
        .with_context(|| format!("could not read the object {}", built.display()))?;
    if fs::read(object).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    // Never a half-written object under the final name.
    let partial = object.with_extension("o.partial");
    fs::write(&partial, &bytes)
        .and_then(|()| fs::rename(&partial, object))
        .with_context(|| format!("could not write the object {}", object.display()))?;
    println!("build-ebpf: {} ({} bytes)", object.display(), bytes.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{env, process, time::SystemTime};

    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time_stamp() {
        let dir = env::temp_dir().join(format!("xtask-publish-{}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (built, object) = (dir.join("built"), dir.join("lb-ebpf.o"));
        let long_ago = SystemTime::UNIX_EPOCH;

        fs::write(&built, b"one").unwrap();
        publish(&built, &object).unwrap();
        fs::File::options()
            .write(true)
            .open(&object)
            .and_then(|file| file.set_modified(long_ago))
            .unwrap();
        publish(&built, &object).unwrap();
        let kept = fs::metadata(&object).unwrap().modified().unwrap();

        fs::write(&built, b"two").unwrap();
        publish(&built, &object).unwrap();
        let content = fs::read(&object).unwrap();
        let left_over = dir.join("lb-ebpf.o.partial").exists();
        fs::remove_dir_all(&dir).unwrap();

        assert_eq!(kept, long_ago);
        assert_eq!(content, b"two");
        assert!(!left_over);
    }
}
