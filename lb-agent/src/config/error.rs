//! What is wrong with a configuration, and how it is shown: place, reason, line and caret.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

/// Why there is no valid configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error(
        "cannot read the configuration {}: {source}; check its path and permissions",
        .path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file was read, and is wrong.
    #[error("{0}")]
    Invalid(Findings),
}

/// Everything found in one reading, in the order of the file; not empty.
#[derive(Debug)]
pub struct Findings(pub Vec<Finding>);

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{finding}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What, and what to do about it, in one sentence without a full stop.
    pub reason: String,
}

/// Where a wrong value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The configuration file.
    File {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The line itself; `None` where it may hold a secret.
        excerpt: Option<Excerpt>,
    },
    /// An environment variable, by name.
    Environment(&'static str),
}

/// A line of the file with the part that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The line, without its end.
    pub text: String,
    /// How many characters are meant, from the finding's column on; at least 1.
    pub width: usize,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = &self.reason;
        match &self.place {
            Place::Environment(name) => write!(f, "environment variable {name}: {reason}"),
            Place::File {
                file,
                line,
                column,
                excerpt,
            } => {
                write!(f, "{}:{line}:{column}: {reason}", file.display())?;
                let Some(Excerpt { text, width }) = excerpt else {
                    return Ok(());
                };
                let number = line.to_string();
                // Tabs are repeated below, so that the caret stands right at any tab width.
                let indent: String = text
                    .chars()
                    .take(column - 1)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                write!(
                    f,
                    "\n{number} | {text}\n{:blank$} | {indent}{:^>width$}",
                    "",
                    "",
                    blank = number.len()
                )
            }
        }
    }
}
