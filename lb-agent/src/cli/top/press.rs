//! Keys, as far as they mean something.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Press {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Tab,
    BackTab,
    Enter,
    Escape,
    Backspace,
    /// Ctrl-C, which is no signal while the terminal hands over every key.
    Interrupt,
    /// Ctrl-Z, likewise.
    Suspend,
    Character(char),
}

impl Press {
    /// `None`: it means nothing, or is let go.
    pub(super) fn of(event: KeyEvent) -> Option<Self> {
        if event.kind == KeyEventKind::Release {
            return None;
        }
        if event.modifiers.contains(KeyModifiers::CONTROL) {
            return match event.code {
                KeyCode::Char('c') => Some(Press::Interrupt),
                KeyCode::Char('z') => Some(Press::Suspend),
                KeyCode::Char('u' | 'b') => Some(Press::PageUp),
                KeyCode::Char('d' | 'f') => Some(Press::PageDown),
                _ => None,
            };
        }
        Some(match event.code {
            KeyCode::Up => Press::Up,
            KeyCode::Down => Press::Down,
            KeyCode::PageUp => Press::PageUp,
            KeyCode::PageDown => Press::PageDown,
            KeyCode::Home => Press::Home,
            KeyCode::End => Press::End,
            KeyCode::Tab => Press::Tab,
            KeyCode::BackTab => Press::BackTab,
            KeyCode::Enter => Press::Enter,
            KeyCode::Esc => Press::Escape,
            KeyCode::Backspace => Press::Backspace,
            KeyCode::Char(c) => Press::Character(c),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        let rows = [
            (
                KeyCode::Char('j'),
                KeyModifiers::NONE,
                Some(Press::Character('j')),
            ),
            (
                KeyCode::Char('G'),
                KeyModifiers::SHIFT,
                Some(Press::Character('G')),
            ),
            (
                KeyCode::Char('c'),
                KeyModifiers::CONTROL,
                Some(Press::Interrupt),
            ),
            (
                KeyCode::Char('c'),
                KeyModifiers::NONE,
                Some(Press::Character('c')),
            ),
            (
                KeyCode::Char('z'),
                KeyModifiers::CONTROL,
                Some(Press::Suspend),
            ),
            (
                KeyCode::Char('d'),
                KeyModifiers::CONTROL,
                Some(Press::PageDown),
            ),
            (KeyCode::Char('x'), KeyModifiers::CONTROL, None),
            (KeyCode::Esc, KeyModifiers::NONE, Some(Press::Escape)),
            (KeyCode::F(1), KeyModifiers::NONE, None),
        ];
        for (code, modifiers, expected) in rows {
            assert_eq!(
                Press::of(KeyEvent::new(code, modifiers)),
                expected,
                "{code:?}"
            );
        }
        let mut release = KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE);
        release.kind = KeyEventKind::Release;
        assert_eq!(Press::of(release), None);
    }
}
