//! What runs in the guests: the agent, and the tests as cargo has built them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{build_ebpf, catalog::Catalog, run, suite::Archive, workspace};

/// Programs of ours, and a shell.
pub(super) struct Binaries {
    pub(super) agent: PathBuf,
    pub(super) echo: PathBuf,
    pub(super) datapath: PathBuf,
    pub(super) e2e: PathBuf,
    pub(super) busybox: PathBuf,
}

/// Builds everything that the guests run.
///
/// # Errors
/// A build fails, or busybox cannot be fetched.
pub(super) fn build() -> Result<Binaries> {
    build_ebpf::build()?;
    // The same builds as those of `cargo xtask test`: with other ones cargo would begin anew.
    run::run(
        "build the workspace",
        run::cargo().args(["build", "--workspace"]),
    )?;
    let mut cargo = run::cargo();
    cargo
        .args(["test", "--no-run", "--workspace"])
        .args(["--test", "datapath", "--test", "e2e"])
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = cargo.output().context("could not run cargo")?;
    if !output.status.success() {
        bail!(
            "could not build the tests: cargo ended with {}",
            output.status
        );
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let test = |name: &str| {
        executable(&messages, name)
            .with_context(|| format!("cargo did not say where it put the test {name}"))
    };
    let built = workspace::root().join("target/debug");
    Ok(Binaries {
        agent: built.join("lb-agent"),
        echo: built.join("echo"),
        datapath: test("datapath")?,
        e2e: test("e2e")?,
        busybox: busybox()?,
    })
}

/// The names of the tests in a binary.
///
/// # Errors
/// The binary does not list its tests.
pub(super) fn list(binary: &Path) -> Result<BTreeSet<String>> {
    let mut command = Command::new(binary);
    command.arg("--list");
    let told = run::output(
        &format!("list the tests of {}", binary.display()),
        &mut command,
    )?;
    Ok(told
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}

/// Where the test `name` is, among the messages of cargo.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let target = &message["target"];
        let is_it = target["name"] == name && target["kind"][0] == "test";
        is_it.then(|| message["executable"].as_str().map(PathBuf::from))?
    })
}

/// A shell that needs no libraries: the machine's own, or that of the package, unpacked.
fn busybox() -> Result<PathBuf> {
    let directory = workspace::kernels_dir().join("busybox");
    let unpacked = [
        directory.join("bin/busybox"),
        directory.join("usr/bin/busybox"),
    ];
    let find = || unpacked.iter().find(|path| path.exists()).cloned();
    if let Some(path) = find() {
        return Ok(path);
    }
    let catalog = Catalog::fetch(&Archive::find()?, &["bookworm"])?;
    catalog.unpack("busybox-static", &directory)?;
    find().context("the package busybox-static holds no busybox")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_of_a_test_is_found() {
        let messages = "\
{\"reason\":\"compiler-artifact\",\"target\":{\"kind\":[\"bin\"],\"name\":\"e2e\"},\"executable\":\"/no\"}
{\"reason\":\"compiler-artifact\",\"target\":{\"kind\":[\"test\"],\"name\":\"e2e\"},\"executable\":\"/t/e2e-1\"}
{\"reason\":\"build-finished\",\"success\":true}
";
        assert_eq!(executable(messages, "e2e").unwrap(), Path::new("/t/e2e-1"));
        assert_eq!(executable(messages, "datapath"), None);
    }
}
