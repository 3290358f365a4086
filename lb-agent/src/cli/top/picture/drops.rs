//! Why packets are dropped, with rates.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use serde::Serialize;

use super::super::{look::Look, rate::per_second};
use crate::api::proto::VerdictCount;

/// A reason for which packets are dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(in crate::cli::top) struct DropRow {
    /// As in the metrics.
    pub(in crate::cli::top) reason: String,
    /// What it means.
    pub(in crate::cli::top) help: String,
    /// So far.
    pub(in crate::cli::top) packets: u64,
    /// Now.
    pub(in crate::cli::top) packets_per_second: Option<f64>,
}

/// Those that ever were, the most frequent now first, then the most frequent so far.
pub(super) fn rows(before: Option<&Look>, look: &Look, elapsed: Duration) -> Vec<DropRow> {
    let earlier: HashMap<&str, u64> = before
        .into_iter()
        .flat_map(|look| drops(&look.status.verdicts))
        .map(|verdict| (verdict.name.as_str(), verdict.packets))
        .collect();
    let mut rows: Vec<DropRow> = drops(&look.status.verdicts)
        .filter(|verdict| verdict.packets > 0)
        .map(|verdict| DropRow {
            reason: verdict.name.clone(),
            help: verdict.help.clone(),
            packets: verdict.packets,
            packets_per_second: per_second(
                earlier.get(verdict.name.as_str()).copied(),
                verdict.packets,
                elapsed,
            ),
        })
        .collect();
    rows.sort_by(|a, b| {
        let rate = |row: &DropRow| row.packets_per_second.unwrap_or(0.0);
        let by_rate = rate(b).total_cmp(&rate(a));
        by_rate.then_with(|| Reverse(a.packets).cmp(&Reverse(b.packets)))
    });
    rows
}

fn drops(verdicts: &[VerdictCount]) -> impl Iterator<Item = &VerdictCount> {
    verdicts.iter().filter(|verdict| verdict.action == "drop")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_now_stands_before_what_once_was() {
        let look = |counts: &[(&str, &str, u64)]| {
            let mut look = Look::default();
            look.status.verdicts = counts
                .iter()
                .map(|(action, name, packets)| VerdictCount {
                    action: (*action).into(),
                    name: (*name).into(),
                    packets: *packets,
                    ..Default::default()
                })
                .collect();
            look
        };
        let before = look(&[
            ("forward", "request", 1),
            ("drop", "blocked", 1000),
            ("drop", "no_backend", 10),
            ("drop", "malformed", 0),
            ("drop", "ttl", 50),
        ]);
        let after = look(&[
            ("forward", "request", 9),
            ("drop", "blocked", 1000),
            ("drop", "no_backend", 30),
            ("drop", "malformed", 0),
            ("drop", "ttl", 50),
        ]);
        let told = |before: Option<&Look>| -> Vec<(String, Option<f64>)> {
            rows(before, &after, Duration::from_secs(2))
                .into_iter()
                .map(|row| (row.reason, row.packets_per_second))
                .collect()
        };
        assert_eq!(
            told(Some(&before)),
            [
                ("no_backend".into(), Some(10.0)),
                ("blocked".into(), Some(0.0)),
                ("ttl".into(), Some(0.0)),
            ]
        );
        assert_eq!(
            told(None),
            [
                ("blocked".into(), None),
                ("ttl".into(), None),
                ("no_backend".into(), None),
            ]
        );
    }
}
