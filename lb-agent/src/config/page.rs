//! The section `[page]`.

use std::path::PathBuf;

use toml::de::DeValue;

use super::{
    locate::Report,
    scalar,
    table::{Table, elements},
};

/// Section `[page]`: the status page, beside `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// File with the token that orders from the page need; `None`: the page gives none.
    pub token_file: Option<PathBuf>,
    /// Names by which browsers may ask for this node, in lower case; addresses need no mention.
    pub hosts: Vec<String>,
}

impl Default for PageConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            token_file: None,
            hosts: Vec::new(),
        }
    }
}

/// Reads `[page]`.
pub(super) fn page(mut table: Table, report: &mut Report) -> PageConfig {
    let config = PageConfig {
        enabled: table
            .get("enabled", report, scalar::boolean)
            .unwrap_or(true),
        token_file: table.get("token_file", report, scalar::path),
        hosts: table
            .value("hosts")
            .and_then(|value| elements(value, report, host))
            .unwrap_or_default()
            .into_iter()
            .map(toml::Spanned::into_inner)
            .collect(),
    };
    table.close(report);
    config
}

/// A name of a host, without a port.
fn host(value: &DeValue) -> Result<String, String> {
    let text = scalar::string(value)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match (1..=253).contains(&text.len()) && text.chars().all(fits) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(format!(
            "`{text}` is no name of a host; write it without scheme and port, as in \"lb1.example\""
        )),
    }
}
