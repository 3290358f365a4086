//! Colours, or what stands in for them.

use ratatui::style::{Color, Modifier, Style};

use super::super::sheet::Tone;

/// How things look. Words say everything as well: a colour never stands alone.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli::top) struct Theme {
    colours: bool,
}

impl Theme {
    pub(in crate::cli::top) const PLAIN: Theme = Theme { colours: false };
    pub(in crate::cli::top) const COLOURED: Theme = Theme { colours: true };

    /// By the variable `NO_COLOR`, as <https://no-color.org> has it: any value but an empty one
    /// forbids colours.
    pub(in crate::cli::top) fn by_variable(no_color: Option<&std::ffi::OsStr>) -> Self {
        match no_color {
            Some(value) if !value.is_empty() => Self::PLAIN,
            _ => Self::COLOURED,
        }
    }

    pub(super) fn tone(self, tone: Tone) -> Style {
        match tone {
            Tone::Plain => Style::new(),
            Tone::Faint => self.faint(),
            Tone::Good => self.coloured(Color::Green, Modifier::empty()),
            Tone::Warn => self.coloured(Color::Yellow, Modifier::BOLD),
            Tone::Bad => self.coloured(Color::Red, Modifier::BOLD),
        }
    }

    fn coloured(self, colour: Color, otherwise: Modifier) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new().add_modifier(otherwise)
        }
    }

    pub(super) fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn key(self) -> Style {
        self.coloured(Color::Cyan, Modifier::BOLD)
    }

    /// The title of a pane.
    pub(super) fn title(self, focused: bool) -> Style {
        match focused {
            true => self.key().add_modifier(Modifier::BOLD),
            false => self.faint(),
        }
    }

    /// The selected row.
    pub(super) fn selected(self, focused: bool) -> Style {
        Style::new().add_modifier(match focused {
            true => Modifier::REVERSED,
            false => Modifier::BOLD,
        })
    }

    /// What must not be overlooked.
    pub(super) fn alarm(self) -> Style {
        self.coloured(Color::Red, Modifier::BOLD)
            .add_modifier(Modifier::REVERSED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_takes_colours_away_and_leaves_weight() {
        let tones = [Tone::Plain, Tone::Good, Tone::Warn, Tone::Bad, Tone::Faint];
        let plain = Theme::by_variable(Some("1".as_ref()));
        for tone in tones {
            assert_eq!(plain.tone(tone).fg, None, "{tone:?}");
        }
        assert_ne!(plain.tone(Tone::Bad), plain.tone(Tone::Good));
        for unset in [None, Some("".as_ref())] {
            let theme = Theme::by_variable(unset);
            assert_eq!(theme.tone(Tone::Bad).fg, Some(Color::Red));
        }
    }
}
