//! Lists of addresses in files, as `block import` reads them.
//!
//! One address or prefix a line; `#` starts a comment, blank lines do not count. A file is read
//! as a whole, and one bad line is enough to refuse it: half a block list is worse than none that
//! is noticed.

use std::{
    fs,
    io::{self, IsTerminal as _, Read, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::Context;
use ipnet::IpNet;

use super::failure::Failure;
use crate::domain::block::parse_prefix;

/// How long the agent may take to put a list in force.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// How much of a list the agent has taken, on a terminal.
pub(super) struct Progress {
    total: usize,
    sent: usize,
    shown: bool,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        Self {
            total,
            sent: 0,
            shown: io::stderr().is_terminal(),
        }
    }

    /// Notes that so many prefixes more were sent.
    pub(super) fn sent(&mut self, prefixes: usize) {
        self.sent += prefixes;
        if !self.shown {
            return;
        }
        let mut stderr = io::stderr().lock();
        // A terminal that is gone is no reason to stop.
        let _ = if self.sent < self.total {
            let percent = self.sent * 100 / self.total;
            write!(stderr, "\r{percent:>3} % of {} prefixes sent", self.total)
        } else {
            writeln!(
                stderr,
                "\r{} prefixes sent; putting them in force",
                self.total
            )
        };
        let _ = stderr.flush();
    }
}

/// Reads `file`, or standard input if it is `-`, and answers with its prefixes.
pub(super) fn read(file: &Path) -> Result<Vec<IpNet>, Failure> {
    let stdin = file == Path::new("-");
    let name = if stdin {
        "standard input".into()
    } else {
        file.display().to_string()
    };
    let mut content = Vec::new();
    if stdin {
        io::stdin().lock().read_to_end(&mut content).map(drop)
    } else {
        fs::read(file).map(|read| content = read)
    }
    .with_context(|| format!("cannot read {name}"))
    .map_err(Failure::Run)?;
    parse(&content, &name).map_err(Failure::Invalid)
}

/// The prefixes in `content`, or a finding for each bad line, as in `FILE:LINE: reason`.
fn parse(content: &[u8], name: &str) -> Result<Vec<IpNet>, Vec<String>> {
    let mut prefixes = Vec::new();
    let mut findings = Vec::new();
    for (line, number) in content.split(|byte| *byte == b'\n').zip(1..) {
        // What is no text is shown as far as it goes; it is wrong in any case.
        let line = String::from_utf8_lossy(line);
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        match parse_prefix(entry) {
            Ok(prefix) => prefixes.push(prefix),
            Err(error) => findings.push(format!("{name}:{number}: {error}")),
        }
    }
    if !findings.is_empty() {
        Err(findings)
    } else if prefixes.is_empty() {
        // An empty download is more likely than an empty list.
        Err(vec![format!("{name} holds no address and no prefix")])
    } else {
        Ok(prefixes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_do_not_count() {
        let content =
            b"# bad people\r\n\r\n192.0.2.7\r\n  2001:db8::/32  # a network\n#\n10.1.2.3/8";
        assert_eq!(
            parse(content, "list").unwrap(),
            ["192.0.2.7/32", "2001:db8::/32", "10.0.0.0/8"].map(|text| text.parse().unwrap())
        );
    }

    #[test]
    fn every_bad_line_is_reported_with_its_place() {
        let findings = parse(b"192.0.2.7\nnonsense\n\n1.2.3.4/33\n\xff\xfe\n", "list").unwrap_err();
        let places: Vec<&str> = findings
            .iter()
            .map(|finding| finding.split(": ").next().unwrap())
            .collect();
        assert_eq!(places, ["list:2", "list:4", "list:5"]);
        assert!(findings[0].contains("`nonsense`"), "{}", findings[0]);
    }

    #[test]
    fn an_empty_list_is_refused() {
        for content in [&b""[..], b"\n\n# nothing\n"] {
            assert_eq!(
                parse(content, "list").unwrap_err(),
                ["list holds no address and no prefix"]
            );
        }
    }
}
