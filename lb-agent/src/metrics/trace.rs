//! Metrics of traces and captures.

use super::family::Family;
use crate::watch::WatchStats;

/// All families of the trace.
pub(super) fn families(stats: &WatchStats) -> [Family; 3] {
    [
        Family::gauge(
            "lb_trace_watchers",
            "Traces and captures that run; without any, the trace costs nothing.",
        )
        .with(stats.watchers() as f64),
        Family::counter(
            "lb_trace_events_total",
            "Packets that traces and captures were told of.",
        )
        .with(stats.events() as f64),
        Family::counter(
            "lb_trace_lost_total",
            "Packets that a trace or capture wanted and was not told of: too many at a time.",
        )
        .with(stats.lost() as f64),
    ]
}
