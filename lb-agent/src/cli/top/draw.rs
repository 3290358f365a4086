//! The screen: how the room is shared out, by its size. Below it, what fills it.

mod columns;
mod header;
mod overlay;
mod panes;
mod theme;

use std::time::Duration;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
};

pub(super) use self::theme::Theme;
use super::{model::Model, sheet::Pane};

/// From so many lines on, everything has a place of its own.
const TALL: u16 = 28;
/// From so many lines on, there is room for two panes below each other.
const MEDIUM: u16 = 15;
/// From so many columns on, there is room for three panes beside each other.
const WIDE: u16 = 100;

/// What stays outside the model: the host's name and how things look.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) host: String,
    pub(super) theme: Theme,
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, setting: &Setting, now: Duration) {
    let area = frame.area();
    let header = header::lines(model, setting, now, area);
    let [top, body, bottom] = Layout::vertical([
        Constraint::Length(u16::try_from(header.len()).unwrap_or(1)),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    for (line, row) in header.into_iter().zip(top.rows()) {
        frame.render_widget(line, row);
    }
    for (pane, place) in places(model.pane(), body, area) {
        panes::draw(frame, model, &setting.theme, pane, place);
    }
    frame.render_widget(footer(model, &setting.theme), bottom);
    if model.help {
        overlay::help(frame, &setting.theme, area);
    } else if model.detail {
        overlay::detail(frame, model, &setting.theme, area);
    }
}

/// Which panes are shown where. The one with the focus always is.
fn places(focus: Pane, body: Rect, screen: Rect) -> Vec<(Pane, Rect)> {
    let third = |wide: bool| match focus {
        Pane::Drops | Pane::Blocks | Pane::Events if !wide => focus,
        _ => Pane::Events,
    };
    if screen.height < MEDIUM {
        return vec![(focus, body)];
    }
    if screen.height < TALL {
        let below = match focus {
            Pane::Services => Pane::Backends,
            other => other,
        };
        let [upper, lower] = Layout::vertical([Constraint::Fill(1); 2]).areas(body);
        return vec![(Pane::Services, upper), (below, lower)];
    }
    let heights = [5, 4, 3].map(Constraint::Fill);
    let [upper, middle, lower] = Layout::vertical(heights).areas(body);
    let mut places = vec![(Pane::Services, upper), (Pane::Backends, middle)];
    if screen.width < WIDE {
        places.push((third(false), lower));
        return places;
    }
    let widths = [6, 9, 10].map(Constraint::Fill);
    let [left, centre, right] = Layout::horizontal(widths).spacing(1).areas(lower);
    places.extend([
        (Pane::Drops, left),
        (Pane::Blocks, centre),
        (Pane::Events, right),
    ]);
    places
}

/// What keys do, or the filter that is being typed.
fn footer<'a>(model: &Model, theme: &Theme) -> Line<'a> {
    if model.typing {
        return Line::from(vec![
            Span::styled(" filter: ", theme.faint()),
            Span::raw(model.filter(model.pane()).to_owned()),
            Span::styled(" ", theme.selected(true)),
            Span::styled("  Enter keeps it, Esc clears it", theme.faint()),
        ]);
    }
    let keys = [
        ("q", "quit"),
        ("?", "help"),
        ("Tab", "pane"),
        ("↑↓", "select"),
        ("s", "sort"),
        ("r", "reverse"),
        ("/", "filter"),
        ("Enter", "detail"),
        ("p", if model.paused { "go on" } else { "pause" }),
    ];
    let spans = keys.into_iter().flat_map(|(key, what)| {
        [
            Span::styled(format!(" {key}"), theme.key()),
            Span::styled(format!(" {what} "), theme.faint()),
        ]
    });
    Line::from(spans.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
