//! Metrics of the block list.

use std::cmp::Reverse;

use super::family::Family;
use crate::controller::BlockEntry;

/// Rules that get series of their own: those that caught most. A list may hold tens of thousands,
/// which would burden Prometheus for nothing; what all of them drop is counted by verdict.
const MAX_SERIES: usize = 1000;

/// All families of the block list.
pub(super) fn families(entries: &[BlockEntry]) -> [Family; 3] {
    let mut packets = Family::counter(
        "lb_block_packets_total",
        "Packets dropped by each rule of the block list (the 1000 rules that dropped most).",
    );
    let mut bytes = Family::counter(
        "lb_block_bytes_total",
        "Bytes dropped by each rule of the block list (the 1000 rules that dropped most).",
    );
    let mut shown: Vec<&BlockEntry> = entries.iter().collect();
    shown.sort_by_key(|entry| (Reverse(entry.dropped.packets), entry.rule.prefix));
    shown.truncate(MAX_SERIES);
    for entry in shown {
        let prefix = entry.rule.prefix.to_string();
        packets.add(&[("prefix", &prefix)], entry.dropped.packets as f64);
        bytes.add(&[("prefix", &prefix)], entry.dropped.bytes as f64);
    }
    [
        Family::gauge("lb_block_rules", "Rules on the block list.").with(entries.len() as f64),
        packets,
        bytes,
    ]
}
