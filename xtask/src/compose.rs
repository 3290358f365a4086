//! Compose, a plugin of Docker's, for the demonstration in `compose/`. Debian has it from trixie on; older
//! releases carry only its forerunner, which does not understand the files.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{catalog::Catalog, run, suite::Archive, workspace};

/// The suite that it is taken from where Docker has none. It needs nothing but a libc, as old as
/// bookworm's.
const SUITE: &str = "trixie";

/// Where the package has it.
const IN_PACKAGE: &str = "usr/libexec/docker/cli-plugins/docker-compose";

/// Puts Compose under `target/tools` if Docker has none.
///
/// # Errors
/// The suite cannot be reached, or the package is not as expected.
pub(crate) fn ensure() -> Result<()> {
    let brought = workspace::tools_dir().join("bin/docker-compose");
    if brought.exists() || is_plugged_in() {
        return Ok(());
    }
    println!("setup: fetching docker-compose: brings up the demonstration in compose/");
    let unpacked = workspace::tools_dir().join("docker-compose");
    let got = Archive::find()
        .and_then(|archive| Catalog::fetch(&archive, &[SUITE]))
        .and_then(|catalog| catalog.unpack("docker-compose", &unpacked));
    got.context("Docker has no Compose, and it could not be fetched: install it so that `docker compose version` works")?;
    fs::create_dir_all(workspace::tools_dir().join("bin"))
        .and_then(|()| fs::rename(unpacked.join(IN_PACKAGE), &brought))
        .and_then(|()| fs::remove_dir_all(&unpacked))
        .with_context(|| format!("could not put Compose at {}", brought.display()))
}

fn is_plugged_in() -> bool {
    let mut version = Command::new("docker");
    version.args(["compose", "version", "--short"]);
    run::output("ask Docker for Compose", &mut version).is_ok_and(|version| {
        version
            .trim_start_matches('v')
            .starts_with(|digit: char| digit >= '2')
    })
}
