//! Delegation tables as namerd's users write them: the part of the language that says how a
//! service is split.
//!
//! ```text
//! dtab     = [ dentry { ";" dentry } [ ";" ] ]
//! dentry   = "/svc/" NAME "=>" union { "|" union }
//! union    = weighted { "&" weighted }
//! weighted = [ NUMBER "*" ] "/#/" { SEGMENT "/" } SUBSET
//! ```
//!
//! Of a path behind `=>` the last segment counts, and names a subset. What stands behind `|` counts
//! while no backend of what stands before it is usable. A weight left out is 1; weights may have
//! up to four decimals. From `#` behind a blank to the end of the line is a comment.

mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    hash::{DefaultHasher, Hasher},
};

use thiserror::Error;

pub use self::view::table;
use super::split::Shares;

/// How one service is split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dentry {
    /// The service.
    pub service: String,
    /// The shares.
    pub shares: Shares,
    /// What counts instead while none of their backends is usable, in this order.
    pub fallback: Vec<Shares>,
}

/// What is wrong with a table, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct InvalidDtab {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In words for people.
    pub reason: String,
}

/// What every prefix begins with.
pub const PREFIX: &str = "/svc/";
/// What every path of a subset begins with.
const TARGET: &str = "/#/";
/// Units of a weight of 1: four decimals.
const UNIT: u64 = 10_000;
/// Decimals of a weight.
const DECIMALS: usize = 4;

/// Reads a table.
///
/// # Errors
///
/// The first thing that is wrong, with its place.
pub fn parse(text: &str) -> Result<Vec<Dentry>, InvalidDtab> {
    let mut parser = Parser { text, at: 0 };
    let mut dentries = Vec::new();
    let mut seen = BTreeSet::new();
    loop {
        parser.skip();
        if parser.rest().is_empty() {
            return Ok(dentries);
        }
        let begin = parser.at;
        let service = parser.prefix()?;
        if !seen.insert(service.clone()) {
            return Err(parser.error(begin, format!("`/svc/{service}` is given twice")));
        }
        parser.expect("=>")?;
        dentries.push(parser.dentry(service)?);
        parser.skip();
        if !parser.rest().is_empty() {
            parser.expect(";")?;
        }
    }
}

/// Reads one entry whose two halves come apart, as in JSON. Of an error, `true` says that it is in
/// the destination.
///
/// # Errors
///
/// The first thing that is wrong, with its place in its half.
pub fn parse_halves(prefix: &str, destination: &str) -> Result<Dentry, (bool, InvalidDtab)> {
    let mut parser = Parser {
        text: prefix,
        at: 0,
    };
    parser.skip();
    let service = parser
        .prefix()
        .and_then(|service| parser.end().map(|()| service))
        .map_err(|error| (false, error))?;
    let mut parser = Parser {
        text: destination,
        at: 0,
    };
    parser
        .dentry(service)
        .and_then(|dentry| parser.end().map(|()| dentry))
        .map_err(|error| (true, error))
}

/// The second half of an entry, as [`parse_halves`] reads it.
pub fn destination(dentry: &Dentry) -> String {
    let service = &dentry.service;
    let unions: Vec<String> = std::iter::once(&dentry.shares)
        .chain(&dentry.fallback)
        .map(|shares| {
            let paths: Vec<String> = shares
                .iter()
                .map(|(subset, share)| format!("{share} * {TARGET}lb-agent/{service}/{subset}"))
                .collect();
            paths.join(" & ")
        })
        .collect();
    unions.join(" | ")
}

/// The table as text, as [`parse`] reads it; one entry on each line.
pub fn render(dentries: &[Dentry]) -> String {
    let mut text = String::new();
    for dentry in dentries {
        let destination = destination(dentry);
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{PREFIX}{} => {destination} ;", dentry.service);
    }
    text
}

/// What tells two tables apart, without quotes.
pub fn version(dentries: &[Dentry]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(render(dentries).as_bytes());
    format!("{:016x}", hasher.finish())
}

struct Parser<'a> {
    text: &'a str,
    /// Byte offset, always between two characters.
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, at: usize, reason: impl Into<String>) -> InvalidDtab {
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        InvalidDtab {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            reason: reason.into(),
        }
    }

    /// What stands at the place, for messages.
    fn found(&self) -> String {
        match self.rest().chars().next() {
            Some(next) => format!("`{}`", next.escape_debug()),
            None => "the end".into(),
        }
    }

    /// Passes blanks and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            if !self.rest().starts_with('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn take(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn try_take(&mut self, word: &str) -> bool {
        self.skip();
        let is = self.rest().starts_with(word);
        if is {
            self.at += word.len();
        }
        is
    }

    fn expect(&mut self, word: &str) -> Result<(), InvalidDtab> {
        if self.try_take(word) {
            return Ok(());
        }
        let hint = match word {
            ";" => "expected `;`, `&`, `|` or the end",
            _ => "expected `=>` behind the name",
        };
        Err(self.error(self.at, format!("{hint}, not {}", self.found())))
    }

    fn end(&mut self) -> Result<(), InvalidDtab> {
        self.skip();
        match self.rest() {
            "" => Ok(()),
            _ => Err(self.error(self.at, format!("expected the end, not {}", self.found()))),
        }
    }

    /// `/svc/NAME`.
    fn prefix(&mut self) -> Result<String, InvalidDtab> {
        let begin = self.at;
        let path = self.take(is_path);
        match path.strip_prefix(PREFIX) {
            Some(name) if !name.is_empty() && name.chars().all(is_name) => Ok(name.to_owned()),
            _ if path.is_empty() => {
                Err(self.error(begin, format!("expected `/svc/NAME`, not {}", self.found())))
            }
            _ => Err(self.error(
                begin,
                format!("`{path}` is not of the form `/svc/NAME`, which is all that is known here"),
            )),
        }
    }

    fn dentry(&mut self, service: String) -> Result<Dentry, InvalidDtab> {
        let shares = self.union()?;
        let mut fallback = Vec::new();
        while self.try_take("|") {
            fallback.push(self.union()?);
        }
        Ok(Dentry {
            service,
            shares,
            fallback,
        })
    }

    fn union(&mut self) -> Result<Shares, InvalidDtab> {
        self.skip();
        let begin = self.at;
        let mut weights = BTreeMap::new();
        loop {
            let weight = self.weight()?;
            self.skip();
            let at = self.at;
            let subset = self.target()?;
            if weights.insert(subset.clone(), weight).is_some() {
                return Err(self.error(at, format!("subset `{subset}` is given twice")));
            }
            if !self.try_take("&") {
                break;
            }
        }
        shares(weights).map_err(|reason| self.error(begin, reason))
    }

    /// A weight and `*`, or nothing, which is a weight of 1; in ten-thousandths.
    fn weight(&mut self) -> Result<u64, InvalidDtab> {
        self.skip();
        let begin = self.at;
        let number = self.take(|c| c.is_ascii_digit() || c == '.');
        if number.is_empty() {
            return Ok(UNIT);
        }
        let weight = decimal(number).map_err(|reason| self.error(begin, reason))?;
        if !self.try_take("*") {
            let reason = format!("expected `*` behind the weight, not {}", self.found());
            return Err(self.error(self.at, reason));
        }
        Ok(weight)
    }

    /// A path; its last segment.
    fn target(&mut self) -> Result<String, InvalidDtab> {
        let begin = self.at;
        if let Some(sign) = ['(', ')', '$', '!', '~', '{', '}']
            .into_iter()
            .find(|sign| self.rest().starts_with(*sign))
        {
            let reason = format!("`{sign}` is no part of the language that is known here");
            return Err(self.error(begin, reason));
        }
        let path = self.take(is_path);
        if path.is_empty() {
            let reason = format!("expected a path such as `/#/echo/v1`, not {}", self.found());
            return Err(self.error(begin, reason));
        }
        let subset = path
            .strip_prefix(TARGET)
            .and_then(|rest| rest.rsplit('/').next())
            .filter(|subset| !subset.is_empty() && subset.chars().all(is_name));
        match subset {
            Some(subset) => Ok(subset.to_owned()),
            None => Err(self.error(
                begin,
                format!("`{path}` is not of the form `/#/…/SUBSET`, as in `/#/echo/v1`"),
            )),
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// The characters of a path (com.twitter.finagle.Path, "showable"), and the slash.
fn is_path(c: char) -> bool {
    is_name(c) || matches!(c, '/' | '#' | ':' | '%' | '$')
}

/// A number in ten-thousandths.
fn decimal(text: &str) -> Result<u64, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if text == "." || !digits(whole) || !digits(part) {
        return Err(format!("`{text}` is no number"));
    }
    if part.len() > DECIMALS {
        return Err(format!(
            "the weight {text} has more than {DECIMALS} decimals"
        ));
    }
    let whole = match whole.trim_start_matches('0') {
        "" => 0,
        whole => whole
            .parse()
            .ok()
            .filter(|number| *number <= u64::from(Shares::MAX))
            .ok_or_else(|| format!("the weight {text} is above {}", Shares::MAX))?,
    };
    let part: u64 = format!("{part:0<DECIMALS$}").parse().unwrap_or(0);
    let weight = whole * UNIT + part;
    match weight <= u64::from(Shares::MAX) * UNIT {
        true => Ok(weight),
        false => Err(format!("the weight {text} is above {}", Shares::MAX)),
    }
}

/// Whole numbers stay as they are; others become the smallest whole numbers of the same ratio.
fn shares(weights: BTreeMap<String, u64>) -> Result<Shares, String> {
    let whole = weights.values().all(|weight| weight % UNIT == 0);
    let divisor = match whole {
        true => UNIT,
        false => weights.values().copied().fold(0, gcd).max(1),
    };
    let mut shares = BTreeMap::new();
    for (subset, weight) in weights {
        let share = u32::try_from(weight / divisor)
            .ok()
            .filter(|share| *share <= Shares::MAX)
            .ok_or_else(|| {
                format!(
                    "these weights are too far apart: no shares up to {} have their ratio",
                    Shares::MAX
                )
            })?;
        shares.insert(subset, share);
    }
    Shares::new(shares).map_err(|error| error.to_string())
}

fn gcd(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        _ => gcd(b, a % b),
    }
}

#[cfg(test)]
mod tests;
