//! A dashboard as its description has it: what differs from one panel to the next, and no more.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One dashboard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dashboard {
    /// Stable: links and bookmarks hold it, and the file is named after it.
    pub(super) uid: String,
    pub(super) title: String,
    /// What it is for, in a sentence.
    pub(super) about: String,
    /// What can be chosen, from the outside in.
    #[serde(default)]
    pub(super) variable: Vec<Variable>,
    /// Moments that are marked in every panel.
    #[serde(default)]
    pub(super) mark: Vec<Mark>,
    pub(super) row: Vec<Row>,
}

/// A choice at the top of the dashboard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    /// The series whose label of that name holds the values, or of the label `label`.
    pub(super) of: String,
    pub(super) label: Option<String>,
    /// Whether several, or all, can be chosen at a time.
    #[serde(default)]
    pub(super) many: bool,
}

/// Moments at which a query is above zero.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    pub(super) name: String,
    pub(super) query: String,
    pub(super) text: String,
    pub(super) color: String,
}

/// Panels under a heading, from left to right and on into further lines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) title: String,
    pub(super) panel: Vec<Panel>,
}

/// What a panel looks like.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Lines over time.
    #[default]
    Lines,
    /// The same, one on top of the other.
    Stack,
    /// The latest value, large.
    Stat,
    /// A row for each series, with its labels and latest value.
    Table,
    /// Bars of time in the colour of the value.
    States,
    /// A histogram's buckets over time.
    Heatmap,
}

impl Kind {
    /// Width of 24 and height, unless the panel says otherwise.
    pub(super) fn size(self) -> (u32, u32) {
        match self {
            Kind::Stat => (4, 4),
            _ => (8, 8),
        }
    }
}

/// One panel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Panel {
    pub(super) title: String,
    #[serde(default)]
    pub(super) kind: Kind,
    /// What it says, and when to worry.
    pub(super) about: String,
    /// By Grafana's names of units.
    #[serde(default = "no_unit")]
    pub(super) unit: String,
    pub(super) width: Option<u32>,
    pub(super) height: Option<u32>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    /// The colour below the first bound, then each bound with the colour from there on.
    #[serde(default)]
    pub(super) steps: Vec<Step>,
    /// Words for values.
    #[serde(default)]
    pub(super) words: BTreeMap<String, Word>,
    /// The dashboard that a click leads to, for the service of the series if it has one.
    pub(super) opens: Option<String>,
    /// PromQL and legend of each query.
    pub(super) queries: Vec<(String, String)>,
}

/// A colour, from a bound on.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Step {
    Base(String),
    From(f64, String),
}

/// Text and colour.
#[derive(Debug, Deserialize)]
pub(super) struct Word(pub(super) String, pub(super) String);

fn no_unit() -> String {
    "short".into()
}
