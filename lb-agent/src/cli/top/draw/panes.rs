//! One pane: its title, its columns, and the part of its rows that there is room for.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Rect},
    text::{Line, Span},
    widgets::{self, Block, Borders, Paragraph, Table},
};

use super::{
    super::{
        model::Model,
        sheet::{Cell, Column, Pane, Row, Sheet},
    },
    columns::{self, GAP},
    theme::Theme,
};

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, theme: &Theme, pane: Pane, area: Rect) {
    let focused = model.pane() == pane;
    let sheet = model.sheet(pane);
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(theme.title(focused))
        .title(title(model, &sheet, pane, theme));
    let inside = block.inner(area);
    frame.render_widget(block, area);
    if sheet.rows.is_empty() {
        let nothing = Line::styled(nothing(model, &sheet, pane), theme.faint());
        frame.render_widget(Paragraph::new(nothing), inside);
        return;
    }
    // Where there is hardly any room, rows say more than their header.
    let headed = inside.height > 2;
    let height = usize::from(inside.height) - usize::from(headed);
    let selected = model.position(pane, &sheet);
    let window = window(sheet.rows.len(), selected, height);
    let rows = &sheet.rows[window.clone()];
    let shown = columns::fit(sheet.columns, rows, usize::from(inside.width));
    let widths = shown.iter().map(|(_, width)| *width as u16);
    let order = model.order(pane);
    let header = shown.iter().map(|(index, _)| {
        let column = &sheet.columns[*index];
        let arrow = match column.key == Some(order.key) && !pane.keys().is_empty() {
            true if order.reversed => "▴",
            true => "▾",
            false => "",
        };
        aligned(column, format!("{}{arrow}", column.name))
    });
    let header = widgets::Row::new(header).style(theme.faint());
    let body = rows.iter().zip(window).map(|(row, position)| {
        let style = match selected == Some(position) {
            true => theme.selected(focused),
            false => Default::default(),
        };
        cells(row, &shown, sheet.columns, theme).style(style)
    });
    let mut table = Table::new(body, widths.map(Constraint::Length)).column_spacing(GAP as u16);
    if headed {
        table = table.header(header);
    }
    frame.render_widget(table, inside);
}

/// The rows that there is room for, with the selected one in the middle as far as that can be.
fn window(rows: usize, selected: Option<usize>, height: usize) -> std::ops::Range<usize> {
    let above = selected.unwrap_or(0).saturating_sub(height / 2);
    let from = above.min(rows.saturating_sub(height));
    from..rows.min(from + height)
}

fn title<'a>(model: &Model, sheet: &Sheet, pane: Pane, theme: &Theme) -> Line<'a> {
    let picture = model.picture();
    let name = match pane {
        Pane::Services => "Services".to_owned(),
        Pane::Backends => match model.selected(Pane::Services) {
            Some(service) => format!("Backends of {service}"),
            None => "Backends".into(),
        },
        Pane::Drops => "Drops".into(),
        Pane::Blocks => "Blocks".into(),
        Pane::Events => "Events".into(),
    };
    let count = match (pane, sheet.hidden) {
        (Pane::Blocks, 0) => format!(" {}", picture.node.block_rules),
        (_, 0) => format!(" {}", sheet.rows.len()),
        (_, hidden) => format!(" {} of {}", sheet.rows.len(), sheet.rows.len() + hidden),
    };
    let mut spans = vec![
        Span::styled(name, theme.title(model.pane() == pane)),
        Span::styled(count, theme.faint()),
    ];
    if !model.filter(pane).is_empty() {
        spans.push(Span::raw(format!(" /{}", model.filter(pane))));
    }
    spans.push(Span::raw(" "));
    Line::from(spans)
}

/// Why there are no rows.
fn nothing(model: &Model, sheet: &Sheet, pane: Pane) -> &'static str {
    if sheet.hidden > 0 {
        return "nothing fits the filter; Esc clears it";
    }
    match pane {
        Pane::Services => "there are no services",
        Pane::Backends if !model.backends_are_known() => "asking the agent",
        Pane::Backends => "it has no backends",
        Pane::Drops => "no packet was dropped",
        Pane::Blocks => "nothing is blocked",
        Pane::Events => "no backend has changed since the agent started",
    }
}

fn cells<'a>(
    row: &'a Row,
    shown: &[(usize, usize)],
    columns: &[Column],
    theme: &Theme,
) -> widgets::Row<'a> {
    widgets::Row::new(shown.iter().map(|(index, width)| {
        let Cell { text, tone } = &row.cells[*index];
        aligned(&columns[*index], cut(text, *width)).style(theme.tone(*tone))
    }))
}

/// What was cut is seen to be.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain(['…']).collect()
}

fn aligned<'a>(column: &Column, text: String) -> widgets::Cell<'a> {
    let alignment = match column.number {
        true => Alignment::Right,
        false => Alignment::Left,
    };
    widgets::Cell::new(Line::raw(text).alignment(alignment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selected_row_is_always_seen() {
        let rows = [
            (3, Some(0), 5, 0..3),
            (100, Some(0), 10, 0..10),
            (100, Some(50), 10, 45..55),
            (100, Some(99), 10, 90..100),
            (100, None, 10, 0..10),
            (100, Some(7), 1, 7..8),
            (5, Some(4), 0, 4..4),
        ];
        for (count, selected, height, expected) in rows {
            assert_eq!(window(count, selected, height), expected, "{selected:?}");
        }
    }
}
