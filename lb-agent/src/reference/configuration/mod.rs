//! `configuration.md`: every key of the file.

mod checks;
mod node;
mod proxy;
mod requests;
mod schema;
mod service;

use std::fmt::Write as _;

use self::schema::{Absent, Key, Kind, Section};
use super::{cell, settle};

const HEAD: &str = "\
# Configuration

Every key of the configuration file, which is TOML. Unknown keys are refused; `lb-agent check FILE` tells every fault
with file, line and column. Times are texts such as `\"500ms\"`, `\"2s\"`, `\"1m 30s\"`. Examples stand in the
[README](../../README.md#configuration) and the [guides](../README.md).

";

/// Every table of the file.
fn sections() -> impl Iterator<Item = &'static Section> {
    [
        node::SECTIONS,
        proxy::SECTIONS,
        service::SECTIONS,
        requests::SECTIONS,
    ]
    .into_iter()
    .flatten()
}

#[test]
fn page() {
    let mut page = HEAD.to_owned();
    for section in sections() {
        let head = format!("- [`{0}`](#{1})\n", section.path, anchor(section.path));
        page.push_str(&head);
    }
    for section in sections() {
        let Section { path, help, .. } = section;
        write!(page, "\n## `{path}`\n\n{}\n\n", cell(help)).unwrap();
        page.push_str("| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in section.keys {
            let (value, default) = (value(&key.kind), default(key));
            writeln!(
                page,
                "| `{}` | {value} | {default} | {} |",
                key.name,
                cell(key.help)
            )
            .unwrap();
        }
    }
    settle("configuration.md", &page);
}

/// What the heading's link is called (GitHub's rules).
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || "_- ".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn value(kind: &Kind) -> String {
    let link = |path: &str| format!("[`{path}`](#{})", anchor(path));
    match kind {
        Kind::Duration(from, to) => format!("`\"{from}\"` to `\"{to}\"`"),
        Kind::Integer(from, i64::MAX) => format!("{from} or more"),
        Kind::Integer(from, to) => format!("{from} to {to}"),
        Kind::Words(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            words.join(", ")
        }
        Kind::Boolean => "`true`, `false`".into(),
        Kind::Path => "an absolute path".into(),
        Kind::Table(path) => format!("table {}", link(path)),
        Kind::OrTable(other, path) => format!("{other}, or table {}", link(path)),
        Kind::Tables(path) => format!("list of {}", link(path)),
        Kind::Other(words) => cell(words),
    }
}

fn default(Key { default, .. }: &Key) -> String {
    match default {
        Absent::Refused("") => "required".into(),
        Absent::Refused(words) => format!("required: {words}"),
        Absent::Is("{}") => "every key's own".into(),
        Absent::Is(value) => format!("`{value}`"),
        Absent::Means(words) => cell(words),
    }
}
