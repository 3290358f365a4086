//! Text for people: tables with a header in capitals, and lists of facts; no borders.

use comfy_table::{CellAlignment, Table as Layout, presets::NOTHING};

use super::output::one_line;

/// Longest cell, in characters. `-o json` has the whole text.
const MAX_CELL: usize = 120;

/// What is to be filled into a column.
#[derive(Clone, Copy)]
pub(super) enum Column {
    /// Words, aligned to the left.
    Words(&'static str),
    /// Numbers, aligned to the right.
    Number(&'static str),
}

/// A table under construction.
pub(super) struct Table(Layout);

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        let mut layout = Layout::new();
        layout.load_preset(NOTHING);
        layout.set_header(columns.iter().map(|column| match column {
            Column::Words(name) | Column::Number(name) => *name,
        }));
        for (index, column) in columns.iter().enumerate() {
            if let Some(cells) = layout.column_mut(index) {
                cells.set_padding((0, 2));
                if let Column::Number(_) = column {
                    cells.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        Self(layout)
    }

    /// Adds a row, one cell for each column; an empty cell is shown as `-`.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.cells(&cells);
    }

    /// The same where the number of columns depends on what was asked.
    pub(super) fn cells(&mut self, cells: &[String]) {
        self.0.add_row(cells.iter().map(|cell| shown(cell)));
    }

    /// The lines, each ended by a line break.
    pub(super) fn render(&self) -> String {
        self.0
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect()
    }
}

fn shown(cell: &str) -> String {
    let cell = one_line(cell);
    if cell.is_empty() {
        "-".into()
    } else if cell.chars().count() > MAX_CELL {
        cell.chars().take(MAX_CELL - 1).chain(['…']).collect()
    } else {
        cell
    }
}

/// Facts, each on a line behind its name.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts
        .iter()
        .map(|(name, fact)| format!("{name:width$}  {}\n", one_line(fact)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_cells_are_visible() {
        let mut table = Table::new(&[
            Column::Words("NAME"),
            Column::Number("PACKETS"),
            Column::Words("WHY"),
        ]);
        table.row(["echo".into(), "7".into(), "two\nlines".into()]);
        table.row(["a-longer-one".into(), "12345678".into(), String::new()]);
        assert_eq!(
            table.render(),
            "\
NAME           PACKETS  WHY
echo                 7  two lines
a-longer-one  12345678  -
"
        );
    }

    #[test]
    fn a_long_cell_is_cut() {
        let cut = shown(&"x".repeat(MAX_CELL + 1));
        assert_eq!(cut.chars().count(), MAX_CELL);
        assert!(cut.ends_with('…'));
        assert_eq!(shown(&"x".repeat(MAX_CELL)), "x".repeat(MAX_CELL));
    }

    #[test]
    fn facts_are_aligned() {
        let text = facts(&[("vip", "a".into()), ("protocol", "tcp".into())]);
        assert_eq!(text, "vip       a\nprotocol  tcp\n");
    }
}
