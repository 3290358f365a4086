//! `cargo xtask audit`: cargo-deny over both halves: licences, bans, duplicates, sources, and known
//! vulnerabilities where a database of them is at hand. What was not looked at is said.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{
    run,
    tool::{self, Tool},
};

const DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    // What fetches the database over a library of git rather than by its program.
    arguments: &["--no-default-features"],
};
/// The two halves have a lock file each.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "lb-ebpf/Cargo.toml"];
const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

/// What `cargo xtask audit` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fetch the database of known vulnerabilities first (from GitHub)
    #[arg(long)]
    fetch: bool,
}

/// Checks both halves.
///
/// # Errors
/// cargo-deny cannot be installed or finds something.
pub(crate) fn run(args: &Args) -> Result<()> {
    let deny = tool::ensure(&DENY)?;
    let databases = databases(env::var_os("CARGO_HOME"), env::var_os("HOME"));
    let known = args.fetch || databases.as_deref().is_some_and(is_filled);
    for manifest in MANIFESTS {
        println!("audit: {manifest}");
        let mut checks = CHECKS.to_vec();
        if known {
            checks.push("advisories");
        }
        let mut command = run::command(&deny);
        command
            .args([
                "--manifest-path",
                manifest,
                "check",
                "--config",
                "deny.toml",
            ])
            .args((!args.fetch).then_some("--disable-fetch"))
            .args(checks);
        run::run(&format!("find {manifest} in order"), &mut command)?;
    }
    if !known {
        let place = databases.map_or_else(
            || "~/.cargo/advisory-dbs".into(),
            |path| path.display().to_string(),
        );
        println!(
            "audit: known vulnerabilities were NOT looked for: there is no database in {place}; \
             `cargo xtask audit --fetch` gets one"
        );
    }
    Ok(())
}

/// Where cargo-deny keeps its databases.
fn databases(
    cargo_home: Option<std::ffi::OsString>,
    home: Option<std::ffi::OsString>,
) -> Option<PathBuf> {
    let cargo = cargo_home.map(PathBuf::from);
    let cargo = cargo.or_else(|| home.map(|home| Path::new(&home).join(".cargo")))?;
    Some(cargo.join("advisory-dbs"))
}

fn is_filled(directory: &Path) -> bool {
    directory
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn databases_are_where_cargo_has_its_home() {
        let text = |text: &str| Some(text.into());
        let rows = [
            (text("/c"), text("/h"), Some("/c/advisory-dbs")),
            (None, text("/h"), Some("/h/.cargo/advisory-dbs")),
            (None, None, None),
        ];
        for (cargo, home, expected) in rows {
            assert_eq!(databases(cargo, home), expected.map(PathBuf::from));
        }
    }

    #[test]
    fn the_configuration_is_there() {
        for file in MANIFESTS.into_iter().chain(["deny.toml"]) {
            assert!(workspace::root().join(file).is_file(), "{file}");
        }
    }
}
