//! `generate`: manual pages and completions of shells, made from the command line's definition. For
//! packages, and for whoever has installed the program without one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, failure::Failure};

/// The configuration file that packages install; it explains each key.
const EXAMPLE: &str = include_str!("../../packaging/config.toml");

/// What to generate.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Generated {
    /// Manual pages of all commands and of the configuration file
    Man {
        /// Directory for them; made if there is none
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Completions for bash, zsh and fish
    Completions {
        /// Directory for them; made if there is none
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

impl Generated {
    pub(super) fn execute(&self) -> Result<(), Failure> {
        match self {
            Self::Man { directory } => man(directory),
            Self::Completions { directory } => completions(directory),
        }
        .map_err(Failure::Run)
    }
}

fn man(directory: &Path) -> anyhow::Result<()> {
    make(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)
        .with_context(|| format!("writing manual pages into {}", directory.display()))?;
    let file = directory.join("lb-agent.toml.5");
    fs::write(&file, configuration_page()).with_context(|| format!("writing {}", file.display()))
}

/// lb-agent.toml(5).
fn configuration_page() -> String {
    let mut page = Roff::new();
    let version = concat!("lb-agent ", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["lb-agent.toml", "5", "", version, ""]);
    page.control("SH", ["NAME"]);
    page.text([roman(
        "lb-agent.toml - configuration of the load balancer lb-agent",
    )]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("/etc/lb-agent/config.toml")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "What interfaces lb-agent works on, where services and backends come from, and what the \
         proxy does, in TOML (https://toml.io). Keys that are not known are refused.",
    )]);
    page.control("PP", []);
    page.text([
        bold("lb-agent check"),
        roman(" tells every fault of a file, each with its line. At "),
        bold("lb-agent reload"),
        roman(
            " or SIGHUP the services are read again; other keys count from the next start on. A file \
             with a fault changes nothing.",
        ),
    ]);
    page.control("SH", ["KEYS"]);
    page.text([roman(
        "The file that the package installs, with every key there is:",
    )]);
    page.control("PP", []);
    page.control("nf", []);
    for line in EXAMPLE.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("lb-agent"),
        roman("(1), "),
        bold("lb-agent-check"),
        roman("(1)"),
    ]);
    page.render()
}

/// What a person types: completions would show the hidden commands as well.
fn typed() -> Command {
    let all = Cli::command();
    let seen = all.get_subcommands().filter(|one| !one.is_hide_set());
    Command::new("lb-agent")
        .version(env!("CARGO_PKG_VERSION"))
        .args(all.get_arguments().cloned())
        .subcommands(seen.cloned())
}

fn completions(directory: &Path) -> anyhow::Result<()> {
    make(directory)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut typed(), "lb-agent", directory).with_context(
            || {
                format!(
                    "writing the completions for {shell} into {}",
                    directory.display()
                )
            },
        )?;
    }
    Ok(())
}

fn make(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// What is shown as commented out must be right as well. Prose stands behind `# `, keys behind `#`.
    fn uncommented() -> String {
        let keys = EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
            Some(rest) if rest.starts_with("  {") => rest,
            _ => line,
        });
        keys.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_packaged_configuration_is_valid_and_serves_nothing() {
        let path = Path::new("config.toml");
        let config = config::parse_in(EXAMPLE, path, &|_| None).unwrap();
        assert!(config.services.is_empty() && config.consul.is_none());
        assert_eq!(config.node.interfaces, ["eth0"]);
        let all = config::parse_in(&uncommented(), path, &|_| None).unwrap();
        assert_eq!(all.services.len(), 2);
        assert!(all.consul.is_some() && all.docker.is_some() && all.dtab.is_some());
    }

    /// Every key that the sections take stands in the packaged file: what the reader asks a table for.
    #[test]
    fn the_packaged_configuration_has_every_key() {
        let sources = [
            include_str!("../config/node.rs"),
            include_str!("../config/consul.rs"),
            include_str!("../config/docker.rs"),
            include_str!("../config/dtab.rs"),
            include_str!("../config/proxy/read.rs"),
        ];
        let asked = sources.iter().flat_map(|source| {
            let (code, _) = source.split_once("#[cfg(test)]").unwrap_or((source, ""));
            let calls = code
                .split("get(")
                .skip(1)
                .chain(code.split("value(").skip(1));
            calls.filter_map(|rest| {
                let (key, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
                Some(key)
            })
        });
        let text = uncommented();
        let missing: Vec<&str> = asked
            .filter(|key| {
                !text.contains(&format!("\n{key} = ")) && !text.contains(&format!("{key} = "))
            })
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_command_has_a_page_and_a_completion() {
        let temporary = tempfile::tempdir().unwrap();
        man(temporary.path()).unwrap();
        completions(temporary.path()).unwrap();
        let mut names: Vec<String> = fs::read_dir(temporary.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        for name in [
            "lb-agent.1",
            "lb-agent-run.1",
            "lb-agent-split-set.1",
            "lb-agent-block-allow-add.1",
            "lb-agent.toml.5",
            "lb-agent.bash",
            "_lb-agent",
            "lb-agent.fish",
        ] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
        for name in &names {
            let text = fs::read_to_string(temporary.path().join(name)).unwrap();
            assert!(
                !text.contains("hold-sockets"),
                "{name} tells of hidden commands"
            );
        }
    }
}
