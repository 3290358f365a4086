//! Suites of Debian's archive that the machine's apt does not follow.
//!
//! Where the archive is, the machine's own apt sources know: entries for other suites are derived
//! from them.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::run;

/// Debian's keys, from its package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The archive that the machine's apt follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Archive {
    uri: String,
    codenames: Vec<String>,
}

impl Archive {
    /// Asks apt where it is.
    ///
    /// # Errors
    /// apt follows no Debian archive, or has never fetched its lists.
    pub(crate) fn find() -> Result<Self> {
        let mut targets = Command::new("apt-get");
        targets.args([
            "indextargets",
            "--format",
            "$(LABEL)|$(REPO_URI)|$(CODENAME)",
            "Created-By: Packages",
        ]);
        Self::among(&run::output("list apt's sources", &mut targets)?)
    }

    /// The archive among the lines of `apt-get indextargets`.
    fn among(indexes: &str) -> Result<Self> {
        let mut uri = None;
        let mut codenames = Vec::new();
        for line in indexes.lines() {
            let mut fields = line.split('|');
            if let (Some("Debian"), Some(at), Some(codename)) =
                (fields.next(), fields.next(), fields.next())
            {
                uri.get_or_insert(at);
                codenames.push(codename.to_owned());
            }
        }
        let uri = uri.context("apt follows no Debian archive")?.to_owned();
        Ok(Self { uri, codenames })
    }

    /// Whether apt follows this suite, by its codename.
    pub(crate) fn follows(&self, suite: &str) -> bool {
        self.codenames.iter().any(|codename| codename == suite)
    }

    /// Its address.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// An entry of apt's sources for `suites`, to be written into a file `*.sources`; `purpose`
    /// says in a sentence what it is for.
    pub(crate) fn entry(&self, purpose: &str, suites: &[&str]) -> String {
        let keyring = Path::new(KEYRING).exists().then_some(KEYRING);
        self.entry_signed(purpose, suites, keyring)
    }

    fn entry_signed(&self, purpose: &str, suites: &[&str], keyring: Option<&str>) -> String {
        let mut entry = format!(
            "# Of `cargo xtask`: {purpose}\n\
             Types: deb\nURIs: {}\nSuites: {}\nComponents: main\n",
            self.uri,
            suites.join(" ")
        );
        if let Some(keyring) = keyring {
            entry.push_str(&format!("Signed-By: {keyring}\n"));
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_the_one_labelled_debian() {
        let indexes = "Debian-Security|http://mirror.invalid/security/|bookworm-security\n\
                       Docker|http://docker.invalid/|bookworm\n\
                       Debian|http://mirror.invalid/debian/|bookworm\n\
                       Debian|http://mirror.invalid/debian/|bullseye\n";
        let archive = Archive::among(indexes).unwrap();
        assert_eq!(archive.uri, "http://mirror.invalid/debian/");
        assert!(archive.follows("bullseye") && !archive.follows("bookworm-security"));
    }

    #[test]
    fn without_debian_there_is_none() {
        for indexes in ["", "Ubuntu|http://mirror.invalid/ubuntu/|noble\n"] {
            let error = Archive::among(indexes).unwrap_err().to_string();
            assert!(error.contains("no Debian archive"), "{indexes:?}: {error}");
        }
    }

    #[test]
    fn the_entry_names_the_suites_and_the_key() {
        let archive = Archive {
            uri: "http://mirror.invalid/debian/".into(),
            codenames: Vec::new(),
        };
        let entry = archive.entry_signed("for a test.", &["trixie", "sid"], Some("/keys.gpg"));
        assert_eq!(
            entry,
            "# Of `cargo xtask`: for a test.\n\
             Types: deb\nURIs: http://mirror.invalid/debian/\nSuites: trixie sid\n\
             Components: main\nSigned-By: /keys.gpg\n"
        );
    }
}
