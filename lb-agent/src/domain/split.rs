//! Shares of traffic between subsets, who set them, and which one counts.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Shares of the subsets of one service, in the units they were given in (they need not sum to
/// 100). At least one is above zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, u32>", into = "BTreeMap<String, u32>")]
pub struct Shares(BTreeMap<String, u32>);

/// Why something is no set of shares.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidShares {
    /// Nothing given.
    #[error("a split names at least one subset, as in v1=90 v2=10")]
    Empty,
    /// All are zero.
    #[error("all shares are 0; at least one subset must take traffic")]
    AllZero,
    /// Not of the form NAME=SHARE.
    #[error("`{0}` is not of the form SUBSET=SHARE, as in v1=90")]
    Form(String),
    /// The share is not a whole number in range.
    #[error("the share of `{subset}` is `{value}`; it must be a whole number from 0 to {max}", max = Shares::MAX)]
    Value {
        /// The subset.
        subset: String,
        /// What was given.
        value: String,
    },
    /// One subset twice.
    #[error("subset `{0}` is given twice")]
    Twice(String),
}

impl Shares {
    /// Largest single share.
    pub const MAX: u32 = 10_000;

    /// Checks and builds.
    pub fn new(shares: BTreeMap<String, u32>) -> Result<Self, InvalidShares> {
        if shares.is_empty() {
            return Err(InvalidShares::Empty);
        }
        if let Some((subset, value)) = shares.iter().find(|(_, share)| **share > Self::MAX) {
            return Err(InvalidShares::Value {
                subset: subset.clone(),
                value: value.to_string(),
            });
        }
        if shares.values().all(|share| *share == 0) {
            return Err(InvalidShares::AllZero);
        }
        Ok(Self(shares))
    }

    /// Reads `v1=90`, `v2=10` and the like, as given on the command line.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, InvalidShares> {
        let mut shares = BTreeMap::new();
        for word in words {
            let word = word.as_ref();
            let (subset, value) = word
                .split_once('=')
                .filter(|(subset, _)| !subset.is_empty())
                .ok_or_else(|| InvalidShares::Form(word.to_owned()))?;
            let invalid = || InvalidShares::Value {
                subset: subset.into(),
                value: value.into(),
            };
            let share = u32::from_str(value).map_err(|_| invalid())?;
            if shares.insert(subset.to_owned(), share).is_some() {
                return Err(InvalidShares::Twice(subset.to_owned()));
            }
        }
        Self::new(shares)
    }

    /// Subset and share, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0
            .iter()
            .map(|(subset, share)| (subset.as_str(), *share))
    }

    /// The share of one subset; `None` if it is not named.
    pub fn get(&self, subset: &str) -> Option<u32> {
        self.0.get(subset).copied()
    }

    /// Sum of all shares; above zero.
    pub fn total(&self) -> u32 {
        self.0.values().sum()
    }

    /// What part of the whole a subset has, in percent; 0 if it is not named.
    pub fn percent(&self, subset: &str) -> f64 {
        f64::from(self.get(subset).unwrap_or(0)) * 100.0 / f64::from(self.total())
    }

    /// These shares, but with `percent` (at most 100) of the whole for one subset: the others keep
    /// their proportions in what is left. `None` if something is left and nobody else has a share
    /// to keep.
    pub fn with_percent(&self, subset: &str, percent: u32) -> Option<Self> {
        let percent = percent.min(100);
        let others: Vec<(&str, u64)> = self
            .iter()
            .filter(|(name, _)| *name != subset)
            .map(|(name, share)| (name, u64::from(share)))
            .collect();
        let sum: u64 = others.iter().map(|(_, share)| share).sum();
        let left = u64::from(Self::MAX / 100 * (100 - percent));
        if sum == 0 && left > 0 {
            return None;
        }
        let mut shares = BTreeMap::from([(subset.to_owned(), Self::MAX / 100 * percent)]);
        // Rounded down and carried on, so that all of it is given away and nobody gets more than
        // one unit too much.
        let (mut seen, mut given) = (0, 0);
        for (name, share) in others {
            seen += share;
            let until = left * seen / sum.max(1);
            shares.insert(name.to_owned(), u32::try_from(until - given).ok()?);
            given = until;
        }
        for unit in [100, 10] {
            if shares.values().all(|share| share % unit == 0) {
                shares.values_mut().for_each(|share| *share /= unit);
                break;
            }
        }
        Self::new(shares).ok()
    }
}

impl TryFrom<BTreeMap<String, u32>> for Shares {
    type Error = InvalidShares;

    fn try_from(shares: BTreeMap<String, u32>) -> Result<Self, InvalidShares> {
        Self::new(shares)
    }
}

impl From<Shares> for BTreeMap<String, u32> {
    fn from(shares: Shares) -> Self {
        shares.0
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (subset, share)) in self.iter().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{subset}={share}")?;
        }
        Ok(())
    }
}

/// Who set a split. Ordered by precedence: the greater wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitSource {
    /// The default subset of Consul's service-resolver.
    ServiceResolver,
    /// The configuration file.
    File,
    /// Consul's service-splitter.
    ServiceSplitter,
    /// A key in Consul, for the whole fleet.
    ConsulKv,
    /// A person, on the command line of this node or by its dtab interface.
    Cli,
}

impl SplitSource {
    /// As shown to people.
    pub fn name(self) -> &'static str {
        match self {
            SplitSource::ServiceResolver => "service-resolver",
            SplitSource::File => "file",
            SplitSource::ServiceSplitter => "service-splitter",
            SplitSource::ConsulKv => "consul-kv",
            SplitSource::Cli => "cli",
        }
    }
}

/// A split of a service, and who set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveSplit {
    /// The shares.
    pub shares: Shares,
    /// Who set them.
    pub source: SplitSource,
    /// Where they stand or how they came, in words for people: `/etc/lb-agent/config.toml:12`.
    pub origin: String,
    /// Shares that count instead, the first of them that has a usable backend, while no backend
    /// of `shares` is usable.
    pub fallback: Vec<Shares>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of shares, a percentage for v2, and what comes of it.
    #[test]
    fn one_subset_gets_a_percentage_and_the_others_keep_their_proportions() {
        let rows = [
            ("v1=90 v2=10", 50, Some("v1=50 v2=50")),
            ("v1=100", 10, Some("v1=90 v2=10")),
            ("v1=1 v2=0 v3=2", 10, Some("v1=30 v2=10 v3=60")),
            ("v1=1 v3=1", 5, Some("v1=475 v2=50 v3=475")),
            ("v1=1 v3=1 v4=1", 0, Some("v1=3333 v2=0 v3=3333 v4=3334")),
            ("v1=1 v2=3", 100, Some("v1=0 v2=100")),
            ("v2=1", 100, Some("v2=100")),
            ("v2=1", 99, None),
            ("v1=0 v2=1", 0, None),
        ];
        for (words, percent, expected) in rows {
            let words: Vec<&str> = words.split(' ').collect();
            let shares = Shares::parse(&words).unwrap();
            let shifted = shares.with_percent("v2", percent);
            let text = shifted.as_ref().map(ToString::to_string);
            assert_eq!(text.as_deref(), expected, "{shares} {percent}");
            if let Some(shifted) = shifted {
                assert!((shifted.percent("v2") - f64::from(percent)).abs() < 1e-9);
            }
        }
    }

    /// Rows of words and what becomes of them.
    #[test]
    fn shares_are_parsed_or_refused_with_a_reason() {
        let ok = Shares::parse(&["v2=10", "v1=90"]).unwrap();
        assert_eq!(ok.to_string(), "v1=90 v2=10");
        assert_eq!(ok.total(), 100);
        let none: [&str; 0] = [];
        let rows: [(&[&str], &str); 8] = [
            (&none, "at least one subset"),
            (&["v1=0", "v2=0"], "all shares are 0"),
            (&["v1"], "`v1` is not of the form"),
            (&["=5"], "`=5` is not of the form"),
            (&["v1=-1"], "whole number from 0 to 10000"),
            (&["v1=1.5"], "the share of `v1` is `1.5`"),
            (&["v1=10001"], "whole number from 0 to 10000"),
            (&["v1=1", "v1=2"], "given twice"),
        ];
        for (words, reason) in rows {
            let error = Shares::parse(words).unwrap_err().to_string();
            assert!(error.contains(reason), "{words:?}: {error}");
        }
    }
}
