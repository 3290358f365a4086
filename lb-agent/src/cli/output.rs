//! How results are printed: a reply as JSON, or as text for people; and the units of the latter.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;

/// What `--output` can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    // Not doc comments: the option's own help says it, and stays on one line without them.
    #[default]
    Table,
    Json,
}

/// Prints replies in the format that was asked for.
pub(super) struct Printer<'a> {
    format: Format,
    stdout: &'a mut dyn Write,
}

impl<'a> Printer<'a> {
    pub(super) fn new(format: Format, stdout: &'a mut dyn Write) -> Self {
        Self { format, stdout }
    }

    /// Prints the reply itself, or the lines that `text` makes of it.
    pub(super) fn print<T: Serialize>(
        &mut self,
        reply: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        let mut printed = match self.format {
            Format::Table => text(reply),
            Format::Json => serde_json::to_string_pretty(reply)?,
        };
        if !printed.ends_with('\n') {
            printed.push('\n');
        }
        // At once, so that a reader that goes away half-way is noticed at most once.
        self.stdout.write_all(printed.as_bytes())?;
        self.stdout.flush()
    }
}

impl Printer<'_> {
    /// Prints one of many: a line of JSON, or the line that `text` makes of it.
    pub(super) fn line<T: Serialize>(
        &mut self,
        item: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        let mut printed = match self.format {
            Format::Table => text(item),
            Format::Json => serde_json::to_string(item)?,
        };
        printed.push('\n');
        self.stdout.write_all(printed.as_bytes())?;
        self.stdout.flush()
    }

    /// Prints what only people need.
    pub(super) fn people(&mut self, text: &str) -> io::Result<()> {
        match self.format {
            Format::Table => self.stdout.write_all(text.as_bytes())?,
            Format::Json => {}
        }
        self.stdout.flush()
    }

    /// Whether people read it.
    pub(super) fn is_for_people(&self) -> bool {
        self.format == Format::Table
    }
}

/// `text` on one line: what others wrote (the output of a check, say) may hold line breaks, and
/// must not steer the terminal.
pub(super) fn one_line(text: &str) -> String {
    let visible: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Bytes with three significant digits, as in `1.21 GiB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = n as f64;
    let mut unit = None;
    for next in UNITS {
        // What would be rounded up to 1024 belongs to the next unit already.
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = Some(next);
    }
    match unit {
        None => format!("{n} B"),
        Some(unit) if value < 9.995 => format!("{value:.2} {unit}"),
        Some(unit) if value < 99.95 => format!("{value:.1} {unit}"),
        Some(unit) => format!("{value:.0} {unit}"),
    }
}

/// A span in its two largest units, as in `3h 12m`; from a second on without fractions.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let pair = |large: u64, large_unit, small: u64, small_unit| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit} {small}{small_unit}"),
    };
    match seconds {
        0 if span.is_zero() => "0s".into(),
        0 if span < Duration::from_millis(1) => format!("{}µs", span.as_micros()),
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => pair(minutes, "m", seconds % 60, "s"),
        3600..86_400 => pair(hours, "h", minutes, "m"),
        _ => pair(days, "d", hours, "h"),
    }
}

/// From one moment to another, both in milliseconds since 1970; zero if it would be negative.
pub(super) fn between(from_unix_ms: i64, to_unix_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(to_unix_ms.saturating_sub(from_unix_ms)).unwrap_or(0))
}

/// A part of a hundred, as in `33.3%`.
pub(super) fn percent(percent: f64) -> String {
    format!("{percent:.1}%")
}

/// `1 rule`, `2 rules`: `singular` takes an `s`.
pub(super) fn counted(n: u64, singular: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {singular}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_and_a_unit() {
        let rows = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10_240, "10.0 KiB"),
            (102_400, "100 KiB"),
            (1_048_575, "1.00 MiB"),
            (1_300_000_000, "1.21 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (n, expected) in rows {
            assert_eq!(bytes(n), expected);
        }
    }

    #[test]
    fn spans_show_their_two_largest_units() {
        let rows = [
            (0, "0s"),
            (850, "850µs"),
            (1_900, "1ms"),
            (999_999, "999ms"),
            (59_900_000, "59s"),
            (60_000_000, "1m"),
            (61_000_000, "1m 1s"),
            (3_599_000_000, "59m 59s"),
            (11_520_000_000, "3h 12m"),
            (86_400_000_000, "1d"),
            (937_000_000_000, "10d 20h"),
        ];
        for (micros, expected) in rows {
            assert_eq!(span(Duration::from_micros(micros)), expected);
        }
    }

    #[test]
    fn clocks_that_went_back_give_no_negative_ages() {
        assert_eq!(between(1_000, 3_500), Duration::from_millis(2_500));
        assert_eq!(between(3_500, 1_000), Duration::ZERO);
        assert_eq!(between(i64::MAX, i64::MIN), Duration::ZERO);
    }

    #[test]
    fn foreign_text_cannot_break_lines_or_steer_the_terminal() {
        assert_eq!(one_line("a\n  b\t\u{1b}[31mc\r\n"), "a b [31mc");
    }
}
