//! Consul from Debian's bullseye suite, the last that carries it.
//!
//! A preference keeps every other package of that old suite out.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::{apt, suite::Archive};

const SUITE: &str = "bullseye";
const SOURCES: &str = "/etc/apt/sources.list.d/lb-agent-bullseye.sources";
const PREFERENCES: &str = "/etc/apt/preferences.d/lb-agent-bullseye";

/// The suite's packages are never taken, Consul alone is where no other source has it.
const PINS: &str = "\
# Of `cargo xtask setup`: from bullseye, Consul and nothing else.
Package: *
Pin: release n=bullseye
Pin-Priority: -1

Package: consul
Pin: release n=bullseye
Pin-Priority: 100
";

/// Makes Consul known to apt. When this fails, what it wrote is gone again.
///
/// # Errors
/// The machine follows no Debian archive, follows bullseye already, or the suite cannot be
/// fetched.
pub(crate) fn add() -> Result<()> {
    let archive = Archive::find().context("there is nowhere Consul could come from")?;
    // Also keeps the pins off a machine whose own suite this is.
    if archive.follows(SUITE) {
        bail!("apt follows Debian's {SUITE} already, and finds no Consul there");
    }
    println!("setup: adding Debian's {SUITE} suite, for Consul alone ({SOURCES})");
    let entry = archive.entry("Consul for the tests and the demo.", &[SUITE]);
    // The pins first: the suite must at no time be there without them.
    let added = write(PREFERENCES, PINS)
        .and_then(|()| write(SOURCES, &entry))
        .and_then(|()| {
            apt::update(&[
                "-o",
                &format!("Dir::Etc::sourcelist={SOURCES}"),
                "-o",
                "Dir::Etc::sourceparts=-",
                // The lists of the other sources stay.
                "-o",
                "APT::Get::List-Cleanup=0",
            ])
        });
    if added.is_err() {
        // Best effort: the error that led here is the one to tell.
        let _ = fs::remove_file(SOURCES);
        let _ = fs::remove_file(PREFERENCES);
    }
    added
}

fn write(path: &str, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("could not write {path}"))
}
