//! What lies over the panes: the help, and everything about one row.

use ratatui::{
    Frame,
    layout::{Constraint, Flex, Layout, Rect},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Wrap},
};

use super::{
    super::{model::Model, sheet},
    theme::Theme,
};

const HELP: [(&str, &str); 14] = [
    ("↑ ↓ j k", "select a row; PgUp PgDn Home End g G go further"),
    ("Tab ⇧Tab", "go to the next pane, or the one before"),
    ("s", "sort the pane by its next column (▾ marks it)"),
    ("r", "the other way round"),
    ("/", "show only rows that contain a text"),
    ("Esc", "clear the filter"),
    ("Enter", "show everything about the row"),
    ("p", "stop the picture, or let it go on"),
    ("q Ctrl-C", "quit; Ctrl-Z gives the shell back for a while"),
    ("", ""),
    ("rates", "are of the time between the last two looks"),
    ("HEALTHY", "healthy backends of all"),
    ("SHARE%", "part of the new flows that a backend takes"),
    ("STALE", "the agent does not answer; it is asked on"),
];

pub(super) fn help(frame: &mut Frame<'_>, theme: &Theme, area: Rect) {
    let facts = HELP.map(|(key, what)| (key, what.to_owned()));
    show(frame, theme, area, "Help", &facts);
}

pub(super) fn detail(frame: &mut Frame<'_>, model: &Model, theme: &Theme, area: Rect) {
    let pane = model.pane();
    let facts = model
        .selected(pane)
        .and_then(|id| sheet::detail(model.picture(), pane, &id))
        .unwrap_or_else(|| vec![("", "it is gone".into())]);
    show(frame, theme, area, "Detail", &facts);
}

fn show(frame: &mut Frame<'_>, theme: &Theme, area: Rect, title: &str, facts: &[(&str, String)]) {
    let names = facts.iter().map(|(name, _)| name.chars().count());
    let names = names.max().unwrap_or(0);
    let lines: Vec<Line<'_>> = facts
        .iter()
        .map(|(name, text)| {
            Line::from(vec![
                Span::styled(format!("{name:names$}  "), theme.key()),
                Span::raw(text.as_str()),
            ])
        })
        .collect();
    let width = lines.iter().map(Line::width).max().unwrap_or(0) + 4;
    let width = u16::try_from(width)
        .unwrap_or(u16::MAX)
        .clamp(24, 100)
        .min(area.width);
    let inner = usize::from(width.saturating_sub(4)).max(1);
    let height: usize = lines
        .iter()
        .map(|line| line.width().div_ceil(inner).max(1))
        .sum();
    let height = u16::try_from(height + 2)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let [row] = Layout::vertical([Constraint::Length(height)])
        .flex(Flex::Center)
        .areas(area);
    let [place] = Layout::horizontal([Constraint::Length(width)])
        .flex(Flex::Center)
        .areas(row);
    let block = Block::bordered()
        .border_style(theme.key())
        .title(format!(" {title} "))
        .title_bottom(" any key goes back ")
        .padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Clear, place);
    let text = Paragraph::new(lines)
        .wrap(Wrap { trim: false })
        .block(block);
    frame.render_widget(text, place);
}
