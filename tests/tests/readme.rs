//! The documents tell no tales: configurations are valid, commands of the README work in the order
//! given, those elsewhere are at least commands, links lead somewhere, metrics exist, and what
//! `cargo xtask` is called with is what `.ci/run` calls.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use lb_agent::domain::http::exchange::Outcome;
use lb_common::verdict::{Action, Verdict};
use lb_tests::{
    agent::Setup,
    documents::{self, Document, words},
    topology::Topology,
};

/// Bodies of the fenced blocks in this language.
fn blocks(document: &Document, language: &str) -> Vec<String> {
    let blocks = document.blocks().into_iter();
    let blocks = blocks.filter(|block| block.language == language);
    blocks.map(|block| block.text).collect()
}

#[test]
fn configurations_are_valid() {
    let mut found = 0;
    for document in documents::all() {
        for block in blocks(&document, "toml") {
            // Parts of a file are about something else than the node.
            let node = "[node]\ninterfaces = [\"eth0\"]\n";
            let whole = block.contains("[node]");
            let text = if whole {
                block
            } else {
                format!("{node}{block}")
            };
            let config = lb_agent::config::parse(&text, Path::new(&document.path));
            assert!(config.is_ok(), "{}", config.unwrap_err());
            found += 1;
        }
    }
    assert!(found >= 8, "{found}");
}

#[test]
fn commands_work() -> Result<()> {
    let readme = documents::read("README.md");
    let topology = Topology::new(3)?;
    let _backends = (1..=3)
        .map(|number| topology.start_echo(number))
        .collect::<Result<Vec<_>>>()?;
    let config = blocks(&readme, "toml").swap_remove(0);
    let services = config
        .find("[[service]]")
        .context("a service in the first configuration")?;
    let agent = Setup::new(&topology).config(&config[services..]).start()?;
    let file = |name: &str| topology.directory().join(name).display().to_string();
    fs::write(file("config.toml"), &config)?;
    fs::write(
        file("blocklist.txt"),
        "192.0.2.1\n# a comment\n2001:db8:5::/48\n",
    )?;

    let mut ran = 0;
    for line in blocks(&readme, "console").concat().lines() {
        let line = line
            .strip_prefix("$ lb-agent ")
            .with_context(|| format!("`{line}`"))?;
        if line.starts_with("run ") {
            // It is running, by the same configuration.
            continue;
        }
        let words: Vec<String> = words(line)
            .into_iter()
            .map(|word| match word.as_str() {
                "config.toml" | "blocklist.txt" | "drops.pcapng" => file(&word),
                _ => word,
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = agent.cli(&words)?;
        ensure!(
            output.code == 0,
            "`lb-agent {line}` ended with {}: {}",
            output.code,
            output.stderr
        );
        ensure!(
            !output.stdout.trim().is_empty(),
            "`lb-agent {line}` printed nothing"
        );
        ran += 1;
    }
    ensure!(ran >= 15, "only {ran} commands found");
    Ok(())
}

/// Whatever begins with `lb-agent`, in blocks and within lines, is one of its commands, with
/// arguments that it takes. One that is named without any is looked for by its words alone.
#[test]
fn commands_are_commands() {
    let mut found = 0;
    for document in documents::all() {
        let in_blocks = document.blocks().into_iter();
        let in_blocks = in_blocks.filter(|block| ["sh", "console"].contains(&&*block.language));
        let lines: Vec<String> = in_blocks
            .flat_map(|block| block.text.lines().map(str::to_owned).collect::<Vec<_>>())
            .chain(document.spans())
            .collect();
        for line in lines {
            let line = line.trim_start_matches("$ ");
            let Some(rest) = line.trim_start().strip_prefix("lb-agent ") else {
                continue;
            };
            // What a shell makes of the output is not ours.
            let command = rest.split(['|', ';', '#', '>']).next().unwrap_or_default();
            let words: Vec<String> = words(command)
                .into_iter()
                .filter(|word| word != "…")
                .collect();
            let place = format!("{}: `{line}`", document.path);
            // In the reference the usage stands with its own marks.
            if !is_command(&words) {
                check(&words, &place);
            }
            found += 1;
        }
    }
    assert!(found >= 60, "only {found} commands found");
}

/// Whether these are the words of a command, or of a group of them, and nothing else.
fn is_command(words: &[String]) -> bool {
    let mut command = &lb_agent::cli::command();
    for word in words {
        match command.find_subcommand(word) {
            Some(sub) => command = sub,
            None => return false,
        }
    }
    true
}

fn check(words: &[String], place: &str) {
    let words = ["lb-agent"]
        .into_iter()
        .chain(words.iter().map(String::as_str));
    if let Err(error) = lb_agent::cli::command().try_get_matches_from(words) {
        use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
        let asked = matches!(error.kind(), DisplayHelp | DisplayVersion);
        assert!(asked, "{place}: {error}");
    }
}

/// Links within the tree lead to files that are there, and to headings that they have.
#[test]
fn links_lead_somewhere() {
    let documents = documents::all();
    let mut found = 0;
    for document in &documents {
        let directory = Path::new(&document.path).parent().unwrap_or(Path::new(""));
        for link in document.links() {
            if link.contains("://") {
                continue;
            }
            found += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let path = match file {
                "" => documents::top().join(&document.path),
                file => documents::top().join(directory).join(file),
            };
            assert!(path.exists(), "{}: {link} leads nowhere", document.path);
            if anchor.is_empty() || path.extension().is_none_or(|end| end != "md") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a document");
            let target = Document {
                path: file.into(),
                text,
            };
            assert!(
                target.anchors().contains(anchor),
                "{}: {link}: there is no such heading",
                document.path
            );
        }
    }
    assert!(found >= 100, "only {found} links found");
}

/// Metrics that are named exist.
#[test]
fn metrics_exist() {
    let reference = documents::read("docs/reference/metrics.md");
    let families: BTreeSet<String> = reference.spans().into_iter().collect();
    let mut found = 0;
    for document in documents::all() {
        for span in document.spans() {
            let name = span.split('{').next().unwrap_or_default();
            let word = |c: char| c.is_ascii_lowercase() || c == '_';
            if !name.starts_with("lb_") || !name.chars().all(word) {
                continue;
            }
            found += 1;
            assert!(
                families.contains(name),
                "{}: there is no {name}",
                document.path
            );
        }
    }
    assert!(found >= 100, "only {found} metrics found");
}

/// Whoever sees a drop, or an answer of the proxy's own, finds what to do.
#[test]
fn every_failure_has_its_mend() {
    let spans = documents::read("docs/troubleshooting.md").spans();
    let drops = Verdict::ALL
        .iter()
        .filter(|verdict| verdict.action() == Action::Drop);
    let outcomes = Outcome::ALL.iter().map(|outcome| outcome.name());
    for name in drops.map(|verdict| verdict.name()).chain(outcomes) {
        assert!(
            spans.iter().any(|span| span == name),
            "docs/troubleshooting.md says nothing of `{name}`"
        );
    }
}

/// Every `cargo xtask` command of the documents is run by `.ci/run`, or by one that is.
#[test]
fn xtask_commands_are_run_by_ci() {
    let script = fs::read_to_string(documents::top().join(".ci/run")).expect(".ci/run");
    // `test` runs all of its parts, and `demo` builds first; what `reference` and `dashboards` write is
    // compared by the tests. `train` takes a quarter of an hour: its loads are benchmarks, and what they
    // count is added up and used for a small program by a test of its own.
    let implied = ["build", "test unit", "reference", "dashboards", "train"];
    let mut found = 0;
    for document in documents::all() {
        let text = document.text.replace('\n', " ");
        for rest in text.split("cargo xtask ").skip(1) {
            let command: String = rest
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == ' ' || *c == '-')
                .collect();
            let command = command.trim_end();
            let first = command.split(' ').next().unwrap_or_default();
            found += 1;
            assert!(
                implied.iter().any(|known| command.starts_with(known))
                    || script.contains(&format!("cargo xtask {first}")),
                "`cargo xtask {first}` is in {}, but not in .ci/run",
                document.path
            );
        }
    }
    assert!(found >= 6, "only {found} found");
}
