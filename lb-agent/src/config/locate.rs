//! From byte offsets to lines and columns, and the list of what was found there.

use std::{ops::Range, path::Path};

use super::error::{ConfigError, Excerpt, Finding, Findings, Place};

/// Byte range of a key or value in the text.
pub(super) type Span = Range<usize>;

/// Collects findings, so that one reading reports them all.
pub(super) struct Report<'t> {
    path: &'t Path,
    text: &'t str,
    /// Offset of each line's first character.
    lines: Vec<usize>,
    found: Vec<Finding>,
}

impl<'t> Report<'t> {
    pub(super) fn new(path: &'t Path, text: &'t str) -> Self {
        Self {
            path,
            text,
            lines: std::iter::once(0)
                .chain(text.match_indices('\n').map(|(end, _)| end + 1))
                .collect(),
            found: Vec::new(),
        }
    }

    /// The file that is read.
    pub(super) fn path(&self) -> &'t Path {
        self.path
    }

    /// Line of a span's start, from 1.
    pub(super) fn line(&self, span: &Span) -> usize {
        let start = self.clamp(span.start);
        self.lines.partition_point(|head| *head <= start)
    }

    /// How much has been found so far.
    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// Adds what is wrong with the text of `span`.
    pub(super) fn add(&mut self, span: &Span, reason: impl Into<String>) {
        let start = self.clamp(span.start);
        let line = self.line(span);
        let head = self.lines[line - 1];
        let tail = self.text[start..]
            .find('\n')
            .map_or(self.text.len(), |index| start + index);
        let line_text = self.text[head..tail].trim_end_matches('\r');
        let end = self.clamp(span.end).clamp(start, tail);
        let place = Place::File {
            file: self.path.into(),
            line,
            column: 1 + self.text[head..start].chars().count(),
            // Messages end up in logs and terminals; a Consul token must not.
            excerpt: (!line_text.contains("token")).then(|| Excerpt {
                text: line_text.into(),
                width: self.text[start..end].chars().count().max(1),
            }),
        };
        self.found.push(Finding {
            place,
            reason: reason.into(),
        });
    }

    /// Adds what is wrong with an environment variable.
    pub(super) fn add_environment(&mut self, name: &'static str, reason: impl Into<String>) {
        self.found.push(Finding {
            place: Place::Environment(name),
            reason: reason.into(),
        });
    }

    /// `value`, unless anything was found.
    pub(super) fn conclude<T>(self, value: T) -> Result<T, ConfigError> {
        if self.found.is_empty() {
            Ok(value)
        } else {
            Err(self.fail())
        }
    }

    /// Everything that was found, in the order of the file.
    pub(super) fn fail(mut self) -> ConfigError {
        self.found.sort_by_key(|finding| match finding.place {
            Place::File { line, column, .. } => (line, column),
            Place::Environment(_) => (usize::MAX, 0),
        });
        ConfigError::Invalid(Findings(self.found))
    }

    /// The offset, moved back onto the text and the start of a character.
    fn clamp(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of text, span, and what is printed.
    #[test]
    fn findings_print_place_reason_line_and_caret() {
        let rows: [(&str, Span, &str); 8] = [
            ("abc\n", 0..3, "f:1:1: bad\n1 | abc\n  | ^^^"),
            ("a\nbcd\n", 3..4, "f:2:2: bad\n2 | bcd\n  |  ^"),
            ("a\r\nbcd\r\n", 4..8, "f:2:2: bad\n2 | bcd\n  |  ^^^"),
            ("\tä = 1", 6..7, "f:1:6: bad\n1 | \tä = 1\n  | \t    ^"),
            ("ab", 9..12, "f:1:3: bad\n1 | ab\n  |   ^"),
            ("", 0..0, "f:1:1: bad\n1 | \n  | ^"),
            (
                "x = \"\"\"a\nb\"\"\"",
                4..14,
                "f:1:5: bad\n1 | x = \"\"\"a\n  |     ^^^^",
            ),
            ("token = 77", 8..10, "f:1:9: bad"),
        ];
        for (text, span, expected) in rows {
            let mut report = Report::new(Path::new("f"), text);
            report.add(&span, "bad");
            let error = report.conclude(()).unwrap_err().to_string();
            assert_eq!(error, expected, "{text:?} {span:?}");
        }
    }

    /// The order is the file's, the environment comes last, and nothing trails.
    #[test]
    fn findings_are_sorted() {
        let mut report = Report::new(Path::new("f"), "a\nb\n");
        report.add_environment("NAME", "third");
        report.add(&(2..3), "second");
        report.add(&(0..1), "first");
        assert_eq!(
            report.conclude(()).unwrap_err().to_string(),
            "f:1:1: first\n1 | a\n  | ^\nf:2:1: second\n2 | b\n  | ^\n\
             environment variable NAME: third"
        );
    }
}
