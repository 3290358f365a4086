//! `cargo xtask audit`: cargo-deny over both halves: licences, bans, duplicates, sources, and known
//! vulnerabilities where a database of them is at hand. What was not looked at is said.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{run, tool::Tool};

const DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    said: "cargo-deny",
};
/// The two halves, which have a lock file each, and what is said of `skip`: of two versions of a crate
/// the programs have next to none, so that most entries are for the agent alone.
const MANIFESTS: [(&str, [&str; 2]); 2] = [
    ("Cargo.toml", ["--deny", "unmatched-skip"]),
    ("lb-ebpf/Cargo.toml", ["--allow", "unmatched-skip"]),
];
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
    // Without what fetches the database over a library of git rather than by its program.
    let deny = DENY.ensure(&["--no-default-features"])?;
    let databases = databases(env::var_os("CARGO_HOME"), env::var_os("HOME"));
    let is_known = databases.as_deref().is_some_and(is_filled);
    for (manifest, allowed) in MANIFESTS {
        println!("audit: {manifest}");
        let check = |offline: bool, checks: &[&str]| {
            let mut command = run::command(&deny);
            command
                .args(["--manifest-path", manifest, "--config", "deny.toml"])
                .args(offline.then_some("--offline"))
                .arg("check")
                .args(allowed)
                .args(checks);
            run::run(&format!("find {manifest} in order"), &mut command)
        };
        check(false, &CHECKS)?;
        if args.fetch || is_known {
            check(!args.fetch, &["advisories"])?;
        }
    }
    if !args.fetch && !is_known {
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

/// Whether a database lies there; a lock file alone is none.
fn is_filled(directory: &Path) -> bool {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| path.is_dir())
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
        let manifests = MANIFESTS.into_iter().map(|(manifest, _)| manifest);
        for file in manifests.chain(["deny.toml"]) {
            assert!(workspace::root().join(file).is_file(), "{file}");
        }
    }
}
