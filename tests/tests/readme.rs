//! The README tells no tales: its configurations are valid, its commands work in the order given,
//! and what `cargo xtask` is called with there is what `.ci/run` calls.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use lb_tests::{agent::Setup, topology::Topology};

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    fs::read_to_string(path).expect("the README")
}

/// Bodies of the fenced blocks in this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

/// Words of a command line; double quotes hold words together.
fn words(line: &str) -> Vec<String> {
    line.split('"')
        .enumerate()
        .flat_map(|(index, part)| {
            if index % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        })
        .collect()
}

#[test]
fn configurations_are_valid() {
    let blocks = blocks(&readme(), "toml");
    assert!(blocks.len() >= 3, "{}", blocks.len());
    for (number, block) in blocks.into_iter().enumerate() {
        // Only the first two are whole files.
        let node = "[node]\ninterfaces = [\"eth0\"]\n";
        let block = if number < 2 {
            block
        } else {
            format!("{node}{block}")
        };
        let config = lb_agent::config::parse(&block, Path::new("README.md"));
        assert!(config.is_ok(), "{}", config.unwrap_err());
    }
}

#[test]
fn commands_work() -> Result<()> {
    let readme = readme();
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

/// Every `cargo xtask` command of the README is run by `.ci/run`, or by one that is.
#[test]
fn xtask_commands_are_run_by_ci() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/run");
    let script = fs::read_to_string(script).expect(".ci/run");
    let readme = readme().replace('\n', " ");
    // `test` runs all of its parts, and `demo` builds first.
    let implied = ["build", "test unit"];
    let mut found = 0;
    for rest in readme.split("cargo xtask ").skip(1) {
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
            "`cargo xtask {first}` is in the README, but not in .ci/run"
        );
    }
    assert!(found >= 6, "only {found} found");
}
