//! What a shift and the layers of a split look like to people.

use std::time::Duration;

use super::{
    output::{between, counted, span},
    split::shares,
};
use crate::api::proto::{Shift, SplitLayer};

/// Where a shift stands, in one line.
pub(super) fn sentence(shift: &Shift, now_unix_ms: i64) -> String {
    let Shift {
        subset, percent, ..
    } = shift;
    let base = shares(&shift.base_shares);
    let mut text = match (shift.phase.as_str(), shift.to_percent) {
        ("stepping", Some(to)) => format!(
            "{subset} has {percent:.1} % on its way to {to} %, {} % more every {}{}; if its gate fails, back to {base}",
            shift.step_percent.unwrap_or_default(),
            span(Duration::from_millis(shift.every_ms.unwrap_or_default())),
            next(shift, now_unix_ms),
        ),
        ("returned", _) => {
            return format!(
                "traffic was taken back from {subset} to {base}, until `split ack`: {}",
                shift.reason.as_deref().unwrap_or_default()
            );
        }
        ("promoted", _) => {
            return format!("{subset} was promoted; `split rollback` goes back to {base}");
        }
        _ => {
            format!("{subset} has {percent:.1} % and is watched; if its gate fails, back to {base}")
        }
    };
    if let Some(last) = &shift.last_window {
        text.push_str(&format!("; the last window was {last}"));
    }
    if let Some(reason) = &shift.last_reason {
        text.push_str(&format!(" ({reason})"));
    }
    if shift.failed_windows > 0 {
        let failed = counted(shift.failed_windows.into(), "window");
        text.push_str(&format!("; {failed} failed, none good since"));
    }
    text
}

fn next(shift: &Shift, now_unix_ms: i64) -> String {
    match shift.next_unix_ms {
        Some(next) if next > now_unix_ms => {
            let wait = between(now_unix_ms, next).as_secs() + 1;
            format!(", the next in {}", span(Duration::from_secs(wait)))
        }
        Some(_) => ", the next after a good window".into(),
        None => String::new(),
    }
}

/// One layer, as in `v1=90 v2=10 by file (config.toml:12)`.
pub(super) fn layer(layer: &SplitLayer) -> String {
    let split = layer.split.clone().unwrap_or_default();
    let idle = match &layer.idle {
        Some(idle) => format!(", not usable: {idle}"),
        None => String::new(),
    };
    let shares = shares(&split.shares);
    format!("{shares} by {} ({}){idle}", split.source, split.origin)
}

/// What lies above and beneath the split in force; nothing if it is the only one.
pub(super) fn others(layers: &[SplitLayer]) -> Option<String> {
    let others: Vec<String> = layers
        .iter()
        .filter(|layer| !layer.in_force)
        .map(self::layer)
        .collect();
    (!others.is_empty()).then(|| others.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::proto::Split;

    fn shift(phase: &str) -> Shift {
        Shift {
            subset: "v2".into(),
            phase: phase.into(),
            base_shares: [("v1".into(), 100), ("v2".into(), 0)].into(),
            percent: 20.0,
            ..Default::default()
        }
    }

    #[test]
    fn a_shift_reads_as_a_sentence() {
        let stepping = Shift {
            to_percent: Some(50),
            step_percent: Some(10),
            every_ms: Some(30_000),
            next_unix_ms: Some(12_500),
            ..shift("stepping")
        };
        let failed = Shift {
            failed_windows: 1,
            last_window: Some("failed".into()),
            last_reason: Some("0 % of its weight was healthy".into()),
            ..shift("arrived")
        };
        let returned = Shift {
            reason: Some("2 windows failed".into()),
            ..shift("returned")
        };
        let rows = [
            (
                sentence(&stepping, 1_000),
                "v2 has 20.0 % on its way to 50 %, 10 % more every 30s, the next in 12s; if its gate fails, back to v1=100 v2=0",
            ),
            (
                sentence(&stepping, 12_500),
                "v2 has 20.0 % on its way to 50 %, 10 % more every 30s, the next after a good window; if its gate fails, back to v1=100 v2=0",
            ),
            (
                sentence(&failed, 0),
                "v2 has 20.0 % and is watched; if its gate fails, back to v1=100 v2=0; the last window was failed (0 % of its weight was healthy); 1 window failed, none good since",
            ),
            (
                sentence(&returned, 0),
                "traffic was taken back from v2 to v1=100 v2=0, until `split ack`: 2 windows failed",
            ),
            (
                sentence(&shift("promoted"), 0),
                "v2 was promoted; `split rollback` goes back to v1=100 v2=0",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn layers_beside_the_one_in_force_are_told() {
        let layer = |source: &str, origin: &str, idle: Option<&str>, in_force| SplitLayer {
            split: Some(Split {
                shares: [("v1".into(), 1)].into(),
                source: source.into(),
                origin: origin.into(),
            }),
            idle: idle.map(str::to_owned),
            in_force,
        };
        let layers = [
            layer("cli", "split set", Some("there is no subset v1"), false),
            layer("consul-kv", "lb/split/echo", None, true),
            layer("file", "x.toml:3", None, false),
        ];
        assert_eq!(
            others(&layers).unwrap(),
            "v1=1 by cli (split set), not usable: there is no subset v1; v1=1 by file (x.toml:3)"
        );
        assert_eq!(others(&layers[1..2]), None);
    }
}
