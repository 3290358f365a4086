//! The pages under `docs/reference`, made of the code: `cargo xtask reference` writes them, and a
//! test fails while they differ.
//!
//! - `configuration`: keys as they are declared there, every declaration held against the reader.
//! - `cli`: the definition of the command line.
//! - `metrics`: the families of a scrape, and the verdicts.
//! - `api`: the comments of the proto file.

mod api;
mod cli;
mod configuration;
mod metrics;

use std::{fs, path::PathBuf};

/// Set by `cargo xtask reference`: pages are written rather than compared.
const WRITE: &str = "LB_WRITE_REFERENCE";

/// Compares a page with what lies there, or writes it.
fn settle(name: &str, text: &str) {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/reference")
        .join(name);
    let text = format!(
        "<!-- Written by `cargo xtask reference`; what is changed by hand is lost. -->\n\n{text}"
    );
    if std::env::var_os(WRITE).is_some() {
        fs::create_dir_all(page.parent().unwrap()).unwrap();
        fs::write(&page, text).unwrap();
        return;
    }
    let found = fs::read_to_string(&page).unwrap_or_default();
    let differs = found
        .lines()
        .zip(text.lines())
        .position(|(found, made)| found != made);
    assert!(
        found == text,
        "docs/reference/{name} is not what the code says, from line {} on; run `cargo xtask reference`",
        1 + differs.unwrap_or(found.lines().count().min(text.lines().count()))
    );
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}
