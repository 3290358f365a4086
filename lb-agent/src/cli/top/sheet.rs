//! A pane's rows as cells: what the screen and the text print. Pure, and knows no widths.

mod detail;

use std::time::Duration;

pub(super) use self::detail::detail;
use super::{
    order::{self, Key, Order},
    picture::{BackendRow, BlockRow, DropRow, EventRow, Picture, ServiceRow, Traffic},
    rate::{shown, shown_bits},
};
use crate::cli::output::{one_line, percent, span};

/// A list on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    Services,
    Backends,
    Drops,
    Blocks,
    Events,
}

impl Pane {
    pub(super) const ALL: [Pane; 5] = [
        Pane::Services,
        Pane::Backends,
        Pane::Drops,
        Pane::Blocks,
        Pane::Events,
    ];

    /// Its place in [`Pane::ALL`].
    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// Columns that it can be sorted by, the first by default.
    pub(super) fn keys(self) -> &'static [Key] {
        match self {
            Pane::Services => &[
                Key::Packets,
                Key::Bytes,
                Key::NewFlows,
                Key::Flows,
                Key::Healthy,
                Key::Name,
            ],
            Pane::Backends => &[
                Key::Name,
                Key::Packets,
                Key::Bytes,
                Key::NewFlows,
                Key::Flows,
                Key::Healthy,
            ],
            // These come in the order that matters.
            Pane::Drops | Pane::Blocks | Pane::Events => &[],
        }
    }
}

/// How a cell is to be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
    Faint,
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
}

/// What is in a column, and how dear it is where room is short.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Numbers stand to the right.
    pub(super) number: bool,
    /// 0: never left out; the highest goes first.
    pub(super) dispensable: u8,
    /// The key that sorts by it.
    pub(super) key: Option<Key>,
}

/// A row: its identity, over which a selection is kept, and one cell for each column.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) cells: Vec<Cell>,
}

/// A pane, sorted and filtered.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    pub(super) columns: &'static [Column],
    pub(super) rows: Vec<Row>,
    /// Rows that the filter left out.
    pub(super) hidden: usize,
}

const fn words(name: &'static str, dispensable: u8, key: Option<Key>) -> Column {
    Column {
        name,
        number: false,
        dispensable,
        key,
    }
}

const fn number(name: &'static str, dispensable: u8, key: Option<Key>) -> Column {
    Column {
        number: true,
        ..words(name, dispensable, key)
    }
}

const SERVICES: [Column; 9] = [
    words("SERVICE", 0, Some(Key::Name)),
    words("VIP", 5, None),
    words("PROTO", 8, None),
    number("PKT/S", 0, Some(Key::Packets)),
    number("BIT/S", 3, Some(Key::Bytes)),
    number("NEW/S", 4, Some(Key::NewFlows)),
    number("FLOWS", 2, Some(Key::Flows)),
    number("HEALTHY", 1, Some(Key::Healthy)),
    words("SPLIT", 6, None),
];

const BACKENDS: [Column; 10] = [
    words("BACKEND", 0, Some(Key::Name)),
    words("HEALTH", 0, Some(Key::Healthy)),
    words("SHARE", 5, None),
    number("SHARE%", 2, None),
    words("SUBSET", 6, None),
    number("PKT/S", 1, Some(Key::Packets)),
    number("BIT/S", 4, Some(Key::Bytes)),
    number("NEW/S", 7, Some(Key::NewFlows)),
    number("FLOWS", 3, Some(Key::Flows)),
    words("WHY", 8, None),
];

const DROPS: [Column; 4] = [
    words("REASON", 0, None),
    number("PKT/S", 0, None),
    number("PACKETS", 1, None),
    words("MEANING", 2, None),
];

const BLOCKS: [Column; 5] = [
    words("BLOCKED", 0, None),
    number("PKT/S", 0, None),
    number("PACKETS", 1, None),
    number("ENDS IN", 2, None),
    words("REASON", 3, None),
];

const EVENTS: [Column; 6] = [
    number("AGO", 0, None),
    words("SERVICE", 3, None),
    words("BACKEND", 1, None),
    words("CHANGE", 0, None),
    words("BY", 4, None),
    words("WHY", 2, None),
];

/// The rows of a pane in this order, those that contain `filter` in any cell, whatever the case.
pub(super) fn sheet(picture: &Picture, pane: Pane, order: Order, filter: &str) -> Sheet {
    let (columns, rows): (&'static [Column], Vec<Row>) = match pane {
        Pane::Services => {
            let rows = order::services(&picture.services, order);
            (&SERVICES, rows.into_iter().map(service).collect())
        }
        Pane::Backends => {
            let rows = order::backends(&picture.backends, order);
            (&BACKENDS, rows.into_iter().map(backend).collect())
        }
        Pane::Drops => (&DROPS, picture.drops.iter().map(drop_reason).collect()),
        Pane::Blocks => (&BLOCKS, picture.blocks.iter().map(block).collect()),
        Pane::Events => (&EVENTS, picture.events.iter().map(event).collect()),
    };
    let all = rows.len();
    let needle = filter.to_lowercase();
    let fits = |cell: &Cell| cell.text.to_lowercase().contains(&needle);
    let rows: Vec<Row> = rows
        .into_iter()
        .filter(|row| needle.is_empty() || row.cells.iter().any(fits))
        .collect();
    Sheet {
        columns,
        hidden: all - rows.len(),
        rows,
    }
}

fn plain(text: impl Into<String>) -> Cell {
    toned(Tone::Plain, text)
}

fn toned(tone: Tone, text: impl Into<String>) -> Cell {
    // Consul's and operators' words must not steer the terminal.
    let text = one_line(&text.into());
    Cell { text, tone }
}

/// A number that is faint while it is nothing.
fn quantity(value: Option<f64>, text: String) -> Cell {
    match value {
        Some(value) if value > 0.0 => plain(text),
        _ => toned(Tone::Faint, text),
    }
}

fn service(of: &ServiceRow) -> Row {
    let traffic = &of.traffic;
    let tone = match (of.backends_healthy, of.backends) {
        (_, 0) | (0, _) => Tone::Bad,
        (healthy, all) if healthy < all || of.panic => Tone::Warn,
        _ => Tone::Good,
    };
    let vips = match of.vips.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first, others @ ..] => format!("{first} +{}", others.len()),
    };
    let [packets, bits, new, flows] = rates(traffic);
    Row {
        id: of.name.clone(),
        cells: vec![
            plain(of.name.clone()),
            plain(vips),
            toned(Tone::Faint, of.protocol.clone()),
            packets,
            bits,
            new,
            flows,
            toned(tone, format!("{}/{}", of.backends_healthy, of.backends)),
            plain(of.split.clone()),
        ],
    }
}

/// Packets, bits and new flows a second, and flows.
fn rates(traffic: &Traffic) -> [Cell; 4] {
    [
        quantity(
            traffic.packets_per_second,
            shown(traffic.packets_per_second),
        ),
        quantity(
            traffic.bytes_per_second,
            shown_bits(traffic.bytes_per_second),
        ),
        quantity(
            traffic.new_flows_per_second,
            shown(traffic.new_flows_per_second),
        ),
        quantity(Some(traffic.flows as f64), traffic.flows.to_string()),
    ]
}

fn backend(of: &BackendRow) -> Row {
    let traffic = &of.traffic;
    let (word, tone) = match (of.health.as_str(), of.condition.as_str()) {
        (health, "") => (
            health.to_owned(),
            match health {
                "healthy" => Tone::Good,
                "warning" | "unknown" => Tone::Warn,
                _ => Tone::Bad,
            },
        ),
        (_, condition) => (
            condition.to_owned(),
            match condition {
                "ejected" => Tone::Bad,
                _ => Tone::Warn,
            },
        ),
    };
    let [packets, bits, new, flows] = rates(traffic);
    Row {
        id: format!("{} {}", of.id, of.address),
        cells: vec![
            plain(of.address.clone()),
            toned(tone, word),
            plain(bar(of.share_percent)),
            plain(percent(of.share_percent)),
            plain(of.subset.clone().unwrap_or_default()),
            packets,
            bits,
            new,
            flows,
            toned(Tone::Faint, of.reason.clone()),
        ],
    }
}

/// A part of a hundred in ten places, exact to an eightieth.
fn bar(percent: f64) -> String {
    const PLACES: usize = 10;
    const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (percent.clamp(0.0, 100.0) * PLACES as f64 * 8.0 / 100.0).round() as usize;
    // What is not nothing is seen.
    let eighths = if percent > 0.0 { eighths.max(1) } else { 0 };
    let mut bar = "█".repeat(eighths / 8);
    if let Some(part) = (eighths % 8).checked_sub(1) {
        bar.push(PARTS[part]);
    }
    bar
}

fn drop_reason(of: &DropRow) -> Row {
    let tone = match of.packets_per_second {
        Some(rate) if rate > 0.0 => Tone::Bad,
        _ => Tone::Faint,
    };
    Row {
        id: of.reason.clone(),
        cells: vec![
            plain(of.reason.clone()),
            toned(tone, shown(of.packets_per_second)),
            plain(of.packets.to_string()),
            toned(Tone::Faint, of.help.clone()),
        ],
    }
}

fn block(of: &BlockRow) -> Row {
    let ends = match of.expires_in_ms {
        Some(ms) => span(Duration::from_secs(ms / 1000)),
        None => "never".into(),
    };
    Row {
        id: of.prefix.clone(),
        cells: vec![
            plain(of.prefix.clone()),
            quantity(of.packets_per_second, shown(of.packets_per_second)),
            quantity(
                Some(of.dropped_packets as f64),
                of.dropped_packets.to_string(),
            ),
            toned(Tone::Faint, ends),
            plain(of.reason.clone()),
        ],
    }
}

fn event(of: &EventRow) -> Row {
    let tone = match of.to.as_str() {
        "healthy" | "in" | "passing" | "listed" | "enabled" => Tone::Good,
        "unhealthy" | "ejected" | "critical" | "absent" => Tone::Bad,
        _ => Tone::Warn,
    };
    Row {
        id: format!(
            "{} {} {} {} {}",
            of.at_unix_ms, of.service, of.address, of.from, of.to
        ),
        cells: vec![
            toned(Tone::Faint, span(Duration::from_secs(of.age_ms / 1000))),
            plain(of.service.clone()),
            plain(of.address.clone()),
            toned(tone, format!("{} → {}", of.from, of.to)),
            toned(Tone::Faint, of.by.clone()),
            plain(of.reason.clone()),
        ],
    }
}

#[cfg(test)]
mod tests;
