//! What the demo prints: numbered steps, commands with their output, figures, and verdicts.

use std::{
    ffi::OsStr,
    io::{self, IsTerminal, Write},
};

use lb_tests::{cleanup, client::Spread};

/// Prints, and counts what did not come as expected.
#[derive(Debug)]
pub(crate) struct Screen {
    colour: bool,
    steps: usize,
    failed: usize,
}

#[derive(Clone, Copy)]
enum Style {
    Heading,
    Command,
    Good,
    Bad,
}

impl Screen {
    /// For standard output as it is.
    pub(crate) fn new() -> Self {
        Self {
            colour: wants_colour(
                io::stdout().is_terminal(),
                std::env::var_os("NO_COLOR").as_deref(),
            ),
            steps: 0,
            failed: 0,
        }
    }

    /// How many verdicts were bad.
    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    /// Begins a step.
    pub(crate) fn heading(&mut self, title: &str) {
        self.steps += 1;
        let line = format!("{}. {title}", self.steps);
        self.print(&format!("\n{}\n", self.styled(Style::Heading, &line)));
    }

    /// Explains, in lines of prose.
    pub(crate) fn say(&self, text: &str) {
        self.print(&indented(text, 3));
    }

    /// A command as a person would type it.
    pub(crate) fn command(&self, line: &str) {
        let line = self.styled(Style::Command, &format!("$ {line}"));
        self.print(&format!("\n   {line}\n"));
    }

    /// What a command printed.
    pub(crate) fn output(&self, text: &str) {
        self.print(&indented(text, 5));
    }

    /// Who answered how often.
    pub(crate) fn spread(&self, spread: &Spread) {
        self.print(&indented(&bars(spread), 5));
    }

    /// A verdict on something measured. Returns `good`.
    pub(crate) fn check(&mut self, good: bool, text: &str) -> bool {
        let mark = if good {
            self.styled(Style::Good, "✓")
        } else {
            self.failed += 1;
            self.styled(Style::Bad, "✗")
        };
        self.print(&format!("   {mark} {text}\n"));
        good
    }

    fn styled(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Heading => "1",
            Style::Command => "36",
            Style::Good => "32",
            Style::Bad => "1;31",
        };
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn print(&self, text: &str) {
        // What is measured while a signal takes everything apart is nobody's concern.
        cleanup::park_if_interrupted();
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if written.is_err() {
            // Nobody reads on, as in `demo | head`.
            drop(out);
            cleanup::exit(1);
        }
    }
}

/// See <https://no-color.org>: any value but the empty one speaks against colours.
fn wants_colour(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

fn indented(text: &str, by: usize) -> String {
    let lines = text.trim_end().lines();
    lines
        .map(|line| format!("{}\n", format!("{:by$}{line}", "").trim_end()))
        .collect()
}

/// One line for each backend: name, answers, share, and the share as a bar.
fn bars(spread: &Spread) -> String {
    const WIDTH: usize = 40;
    let total = (spread.answered() + spread.failed()).max(1);
    let line = |name: &str, count: usize| {
        let bar = "█".repeat((count * WIDTH + total / 2) / total);
        let share = 100.0 * count as f64 / total as f64;
        format!("{name:<6} {count:>6}  {share:>5.1} %  {bar}\n")
    };
    let mut text = String::new();
    for (backend, answers) in &spread.backends {
        text += &line(backend, *answers);
    }
    if spread.failed() > 0 {
        text += &line("failed", spread.failed());
    }
    text
}

#[cfg(test)]
mod tests {
    use lb_tests::client::RequestError;

    use super::*;

    #[test]
    fn colours_need_a_terminal_and_consent() {
        for (terminal, no_color, expected) in [
            (true, None, true),
            (true, Some(""), true),
            (true, Some("1"), false),
            (false, None, false),
        ] {
            assert_eq!(wants_colour(terminal, no_color.map(OsStr::new)), expected);
        }
    }

    #[test]
    fn bars_show_shares_of_all_requests() {
        let mut spread = Spread {
            backends: [("b1".to_owned(), 90), ("b2".to_owned(), 5)].into(),
            ..Spread::default()
        };
        for _ in 0..5 {
            spread.count(Err(RequestError::Unmarked));
        }
        let expected = format!(
            "b1         90   90.0 %  {}\nb2          5    5.0 %  ██\nfailed      5    5.0 %  ██\n",
            "█".repeat(36)
        );
        assert_eq!(bars(&spread), expected);
        assert_eq!(bars(&Spread::default()), "");
    }

    #[test]
    fn verdicts_are_counted() {
        let mut screen = Screen {
            colour: false,
            steps: 0,
            failed: 0,
        };
        assert!(screen.check(true, "fine"));
        assert!(!screen.check(false, "not fine"));
        assert_eq!(screen.failed(), 1);
    }

    #[test]
    fn indentation_leaves_empty_lines_empty() {
        assert_eq!(indented("a\n\nb\n\n", 2), "  a\n\n  b\n");
    }
}
