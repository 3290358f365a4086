//! Consul from Debian's bullseye suite, the last that carries it.
//!
//! Where the archive is, the machine's own apt sources know: the entry is derived from them. A
//! preference keeps every other package of that old suite out.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{apt, run};

const SUITE: &str = "bullseye";
const SOURCES: &str = "/etc/apt/sources.list.d/lb-agent-bullseye.sources";
const PREFERENCES: &str = "/etc/apt/preferences.d/lb-agent-bullseye";
/// Debian's keys, from its package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

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

/// One package index that apt follows.
#[derive(Debug, PartialEq, Eq)]
struct Index<'a> {
    label: &'a str,
    uri: &'a str,
    codename: &'a str,
}

/// Makes Consul known to apt. When this fails, what it wrote is gone again.
///
/// # Errors
/// The machine follows no Debian archive, follows bullseye already, or the suite cannot be
/// fetched.
pub(crate) fn add() -> Result<()> {
    let mut targets = Command::new("apt-get");
    targets.args([
        "indextargets",
        "--format",
        "$(LABEL)|$(REPO_URI)|$(CODENAME)",
        "Created-By: Packages",
    ]);
    let indexes = run::output("list apt's sources", &mut targets)?;
    let uri = archive_uri(&indexes)?;
    println!("setup: adding Debian's {SUITE} suite, for Consul alone ({SOURCES})");
    let keyring = Path::new(KEYRING).exists().then_some(KEYRING);
    // The pins first: the suite must at no time be there without them.
    let added = write(PREFERENCES, PINS)
        .and_then(|()| write(SOURCES, &entry(uri, keyring)))
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

/// The archive's address among the lines of `apt-get indextargets`.
fn archive_uri(indexes: &str) -> Result<&str> {
    let archive: Vec<Index<'_>> = indexes
        .lines()
        .filter_map(parse_index)
        .filter(|index| index.label == "Debian")
        .collect();
    // Also keeps the pins off a machine whose own suite this is.
    if archive.iter().any(|index| index.codename == SUITE) {
        bail!("apt follows Debian's {SUITE} already, and finds no Consul there");
    }
    archive
        .first()
        .map(|index| index.uri)
        .context("apt follows no Debian archive from which Consul could come")
}

fn parse_index(line: &str) -> Option<Index<'_>> {
    let mut fields = line.split('|');
    Some(Index {
        label: fields.next()?,
        uri: fields.next()?,
        codename: fields.next()?,
    })
}

fn entry(uri: &str, keyring: Option<&str>) -> String {
    let mut entry = format!(
        "# Of `cargo xtask setup`: Consul for the tests and the demo.\n\
         Types: deb\nURIs: {uri}\nSuites: {SUITE}\nComponents: main\n"
    );
    if let Some(keyring) = keyring {
        entry.push_str(&format!("Signed-By: {keyring}\n"));
    }
    entry
}

fn write(path: &str, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("could not write {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_the_one_labelled_debian() {
        let indexes = "Debian-Security|http://mirror.invalid/security/|bookworm-security\n\
                       Docker|http://docker.invalid/|bookworm\n\
                       Debian|http://mirror.invalid/debian/|bookworm\n";
        assert_eq!(
            archive_uri(indexes).unwrap(),
            "http://mirror.invalid/debian/"
        );
    }

    #[test]
    fn without_debian_or_with_bullseye_itself_nothing_is_added() {
        for (indexes, reason) in [
            ("", "no Debian archive"),
            (
                "Ubuntu|http://mirror.invalid/ubuntu/|noble\n",
                "no Debian archive",
            ),
            (
                "Debian|http://mirror.invalid/debian/|bookworm\n\
                 Debian|http://mirror.invalid/debian/|bullseye\n",
                "already",
            ),
        ] {
            let error = archive_uri(indexes).unwrap_err().to_string();
            assert!(error.contains(reason), "{indexes:?}: {error}");
        }
    }

    #[test]
    fn the_entry_names_the_suite_and_the_key() {
        assert_eq!(
            entry("http://mirror.invalid/debian/", Some("/keys.gpg")),
            "# Of `cargo xtask setup`: Consul for the tests and the demo.\n\
             Types: deb\nURIs: http://mirror.invalid/debian/\nSuites: bullseye\n\
             Components: main\nSigned-By: /keys.gpg\n"
        );
    }
}
