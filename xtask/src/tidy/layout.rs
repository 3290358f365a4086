//! What files there are, what they are called, how long they get, how crates are declared.

use std::collections::BTreeSet;

use super::{Finding, Tree};

/// The entries of the top level, dotfiles and the configuration of tools aside.
const TOP_LEVEL: [&str; 12] = [
    "Cargo.toml",
    "Cargo.lock",
    "xtask",
    "lb-ebpf",
    "lb-agent",
    "lb-common",
    "proto",
    "compose",
    "vagrant",
    "tests",
    "docs",
    "README.md",
];

/// Tools look for these at the top level.
const TOOL_CONFIGURATION: [&str; 4] = [
    "clippy.toml",
    "rustfmt.toml",
    "rust-toolchain.toml",
    "deny.toml",
];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 5] = ["utils", "helpers", "common", "types", "manager"];

/// Longer files do more than one thing, with the exceptions in [`LONG_FILES`].
const MOST_LINES: usize = 400;

/// Files that do one thing and are longer all the same: path and reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Finds what is at the top level and shouldn't be, or isn't and should.
pub(super) fn check_top_level(tree: &Tree) -> Vec<Finding> {
    let present: BTreeSet<&str> = tree
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    let missing = TOP_LEVEL
        .iter()
        .filter(|&entry| !present.contains(entry))
        .map(|entry| finding(entry, 1, "is missing at the top level"));
    let surplus = present
        .iter()
        .filter(|entry| {
            !entry.starts_with('.')
                && !TOP_LEVEL.contains(entry)
                && !TOOL_CONFIGURATION.contains(entry)
        })
        .filter_map(|entry| tree.keys().find(|path| path.starts_with(entry)))
        .map(|path| {
            finding(
                path,
                1,
                "has no place at the top level, whose entries are fixed",
            )
        });
    missing.chain(surplus).collect()
}

/// Checks one file's name and size and, for a manifest, its lints.
pub(super) fn check_file(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stems = path
        .split('/')
        .map(|part| part.split('.').next().unwrap_or(part));
    if let Some(name) = stems.into_iter().find(|stem| EMPTY_NAMES.contains(stem)) {
        let rule = format!("called `{name}`, which does not say what it is for");
        findings.push(finding(path, 1, &rule));
    }
    let lines = text.lines().count();
    if path.ends_with(".rs")
        && lines > MOST_LINES
        && !LONG_FILES.iter().any(|&(long, _)| long == path)
    {
        let rule = format!("longer than {MOST_LINES} lines: it does more than one thing");
        findings.push(finding(path, lines, &rule));
    }
    // lb-ebpf is no member of the workspace and inherits nothing.
    if path.ends_with("/Cargo.toml") && !path.starts_with("lb-ebpf/") && !inherits_lints(text) {
        let rule = "must say `workspace = true` under `[lints]`";
        findings.push(finding(path, 1, rule));
    }
    findings
}

fn inherits_lints(manifest: &str) -> bool {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(|&line| line != "[lints]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .any(|line| line == "workspace = true")
}

fn finding(path: &str, line: usize, rule: &str) -> Finding {
    Finding {
        path: path.into(),
        line,
        rule: rule.into(),
    }
}
