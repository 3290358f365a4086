//! What requests carry, turned into domain values; everything wrong with a batch is named at once.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use ipnet::IpNet;
use lb_common::{maps::MAX_BLOCK_RULES, trace::TRACE_SNAP};
use thiserror::Error;

use super::proto;
use crate::controller::BlockOrder;
use crate::domain::{
    block::{InvalidPrefix, parse_prefix},
    shift::ShiftOrder,
    split::{InvalidShares, Shares},
    trace::UnknownVerdict,
};

/// Shortest life of a rule.
const MIN_TTL: Duration = Duration::from_secs(1);
/// Longest life of a rule that ends by itself: ten years.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Longest reason, in bytes.
const MAX_REASON: usize = 256;
/// So many wrong prefixes are named; a message has to fit into a header.
const NAMED: usize = 20;

/// Why a request is refused before anybody acts on it. The text is a sentence for a person.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum InvalidRequest {
    #[error("give at least one address or prefix")]
    NoPrefix,
    #[error("{}", list_prefixes(.0))]
    Prefixes(Vec<InvalidPrefix>),
    #[error(
        "the list has more than {MAX_BLOCK_RULES} prefixes, which is all that fits; join \
         neighbouring prefixes into shorter ones"
    )]
    TooMany,
    #[error(
        "the time to live is {}; it must be from 1s to 3650d (leave it out to block for good)",
        humantime::format_duration(*.0)
    )]
    Ttl(Duration),
    #[error("the reason is {0} bytes long; at most {MAX_REASON} are kept")]
    LongReason(usize),
    #[error("the reason contains a control character; write it on one line")]
    ControlInReason,
    #[error(transparent)]
    Shares(#[from] InvalidShares),
    #[error(transparent)]
    Verdict(#[from] UnknownVerdict),
    #[error("there is no {what} `{name}`; there are {}", .known.join(", "))]
    Unknown {
        what: &'static str,
        name: String,
        known: Vec<&'static str>,
    },
    #[error("{0} and {1} are of different address families, so no packet has both")]
    MixedFamilies(IpNet, IpNet),
    #[error("there is no port {0}; ports go from 1 to 65535")]
    Port(u32),
    #[error("{0} bytes of a frame are too many; there are at most {TRACE_SNAP}")]
    Snap(u32),
    #[error("`{0}` is no address of a backend, such as 10.1.0.2 or 10.1.0.2:8080")]
    Backend(String),
    #[error("flows can be sorted up to a limit only; give one, or leave the order out")]
    SortWithoutLimit,
    #[error("{0} flows are too many to be sorted; ask for at most 1000000, or for all unsorted")]
    FlowLimit(u64),
}

impl InvalidRequest {
    /// A name that is none of those there are.
    pub(super) fn unknown(what: &'static str, name: &str, known: &[&'static str]) -> Self {
        InvalidRequest::Unknown {
            what,
            name: name.to_owned(),
            known: known.to_vec(),
        }
    }
}

fn list_prefixes(wrong: &[InvalidPrefix]) -> String {
    let mut text: Vec<String> = wrong.iter().take(NAMED).map(ToString::to_string).collect();
    if wrong.len() > NAMED {
        text.push(format!("and {} more are wrong", wrong.len() - NAMED));
    }
    text.join("; ")
}

/// How rules are to be added.
pub(super) fn block_order(
    options: Option<proto::BlockOptions>,
) -> Result<BlockOrder, InvalidRequest> {
    let proto::BlockOptions {
        ttl_ms,
        reason,
        force,
    } = options.unwrap_or_default();
    let ttl = ttl_ms.map(Duration::from_millis);
    if let Some(ttl) = ttl.filter(|ttl| !(MIN_TTL..=MAX_TTL).contains(ttl)) {
        return Err(InvalidRequest::Ttl(ttl));
    }
    if reason.len() > MAX_REASON {
        return Err(InvalidRequest::LongReason(reason.len()));
    }
    if reason.chars().any(char::is_control) {
        return Err(InvalidRequest::ControlInReason);
    }
    Ok(BlockOrder { ttl, reason, force })
}

/// A service, and how its traffic is to be shifted; what is wrong with that is found where it is
/// carried out.
pub(super) fn shift_order(request: proto::ShiftSplitRequest) -> (String, ShiftOrder) {
    let order = ShiftOrder {
        subset: request.subset,
        to: request.to_percent,
        step: request.step_percent,
        every: Duration::from_millis(request.every_ms),
    };
    (request.service, order)
}

/// Reads prefixes from one message or from several.
pub(super) struct Prefixes {
    /// So many are taken.
    most: usize,
    /// In the order given, each once.
    prefixes: Vec<IpNet>,
    seen: HashSet<IpNet>,
    wrong: Vec<InvalidPrefix>,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self::at_most(MAX_BLOCK_RULES as usize)
    }
}

impl Prefixes {
    fn at_most(most: usize) -> Self {
        Self {
            most,
            prefixes: Vec::new(),
            seen: HashSet::new(),
            wrong: Vec::new(),
        }
    }

    /// Reads some more.
    ///
    /// # Errors
    ///
    /// There are more than the kernel has room for: no point in going on.
    pub(super) fn extend(&mut self, texts: &[String]) -> Result<(), InvalidRequest> {
        for text in texts {
            match parse_prefix(text) {
                Ok(prefix) if self.seen.insert(prefix) => self.prefixes.push(prefix),
                Ok(_) => {}
                Err(wrong) => self.wrong.push(wrong),
            }
            if self.prefixes.len() + self.wrong.len() > self.most {
                return Err(InvalidRequest::TooMany);
            }
        }
        Ok(())
    }

    /// The prefixes; not empty.
    ///
    /// # Errors
    ///
    /// Everything that was no prefix, or that there was nothing.
    pub(super) fn finish(self) -> Result<Vec<IpNet>, InvalidRequest> {
        if !self.wrong.is_empty() {
            Err(InvalidRequest::Prefixes(self.wrong))
        } else if self.prefixes.is_empty() {
            Err(InvalidRequest::NoPrefix)
        } else {
            Ok(self.prefixes)
        }
    }
}

/// The prefixes of a request that comes in one message.
pub(super) fn prefixes(texts: &[String]) -> Result<Vec<IpNet>, InvalidRequest> {
    let mut prefixes = Prefixes::default();
    prefixes.extend(texts)?;
    prefixes.finish()
}

/// The shares of a split.
pub(super) fn shares(shares: BTreeMap<String, u32>) -> Result<Shares, InvalidRequest> {
    Ok(Shares::new(shares)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn prefixes_keep_their_order_and_stand_once() {
        let got = prefixes(&texts(&["198.51.100.7", "192.0.2.9/24", "192.0.2.0/24"])).unwrap();
        let got: Vec<String> = got.iter().map(ToString::to_string).collect();
        assert_eq!(got, ["198.51.100.7/32", "192.0.2.0/24"]);
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let error = prefixes(&texts(&["nonsense", "192.0.2.1", "1.2.3.4/99"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("`nonsense`"), "{error}");
        assert!(error.contains("`1.2.3.4/99`"), "{error}");
        assert!(!error.contains("192.0.2.1"), "{error}");
        assert_eq!(prefixes(&[]), Err(InvalidRequest::NoPrefix));

        let many = vec!["x".to_owned(); NAMED + 5];
        let error = prefixes(&many).unwrap_err().to_string();
        assert!(error.ends_with("; and 5 more are wrong"), "{error}");
    }

    /// Over several messages; what is given twice counts once, what is wrong counts too.
    #[test]
    fn more_than_the_kernel_holds_is_refused() {
        let mut prefixes = Prefixes::at_most(3);
        prefixes.extend(&texts(&["10.0.0.1", "10.0.0.2"])).unwrap();
        prefixes.extend(&texts(&["10.0.0.1", "nonsense"])).unwrap();
        let error = prefixes.extend(&texts(&["10.0.0.3"]));
        assert_eq!(error, Err(InvalidRequest::TooMany));
        assert_eq!(Prefixes::default().most, MAX_BLOCK_RULES as usize);
    }

    #[test]
    fn options_have_bounds() {
        let parse = |ttl_ms, reason: &str| {
            block_order(Some(proto::BlockOptions {
                ttl_ms,
                reason: reason.into(),
                force: true,
            }))
        };
        let year = 365 * 24 * 3600 * 1000_u64;
        assert_eq!(block_order(None), Ok(BlockOrder::default()));
        assert_eq!(
            parse(Some(1000), "scan"),
            Ok(BlockOrder {
                ttl: Some(Duration::from_secs(1)),
                reason: "scan".into(),
                force: true,
            })
        );
        let rows = [
            (Some(0), String::new(), "the time to live is 0s"),
            (Some(999), String::new(), "from 1s to 3650d"),
            (Some(10 * year + 1), String::new(), "from 1s to 3650d"),
            (Some(u64::MAX), String::new(), "from 1s to 3650d"),
            (None, "r".repeat(257), "257 bytes"),
            (None, "two\nlines".into(), "on one line"),
        ];
        for (ttl_ms, reason, expected) in rows {
            let error = parse(ttl_ms, &reason).unwrap_err().to_string();
            assert!(error.contains(expected), "{ttl_ms:?} {reason:?}: {error}");
        }
        assert!(parse(Some(10 * year), &"r".repeat(256)).is_ok());
    }
}
