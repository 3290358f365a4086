//! Everything about one row.

use super::{
    super::{
        order::Order,
        picture::{BackendRow, Picture},
    },
    Pane, sheet,
};
use crate::cli::output::{bytes, one_line};

/// Facts of one row for which the row has no room, each behind its name; empty ones are left out.
pub(in crate::cli::top) fn detail(
    picture: &Picture,
    pane: Pane,
    id: &str,
) -> Option<Vec<(&'static str, String)>> {
    let row = sheet(picture, pane, Order::default(), "");
    let found = row.rows.iter().find(|row| row.id == id)?;
    let mut facts: Vec<(&'static str, String)> = row
        .columns
        .iter()
        .zip(&found.cells)
        .filter(|(column, _)| column.name != "SHARE")
        .map(|(column, cell)| (column.name, cell.text.clone()))
        .collect();
    match pane {
        Pane::Services => {
            let of = picture.services.iter().find(|of| of.name == id)?;
            facts[1].1 = of.vips.join(", ");
            facts.extend(of.more.iter().cloned());
        }
        Pane::Backends => {
            let same = |of: &&BackendRow| format!("{} {}", of.id, of.address) == id;
            let of = picture.backends.iter().find(same)?;
            facts.insert(1, ("id", of.id.clone()));
            facts.extend(of.more.iter().cloned());
        }
        Pane::Blocks => {
            let of = picture.blocks.iter().find(|of| of.prefix == id)?;
            facts.push(("dropped", bytes(of.dropped_bytes)));
            facts.push(("from", of.origin.clone()));
        }
        Pane::Drops | Pane::Events => {}
    }
    facts.retain(|(_, text)| !text.is_empty());
    Some(
        facts
            .into_iter()
            .map(|(n, text)| (n, one_line(&text)))
            .collect(),
    )
}
