//! Metrics of the block list.

use ipnet::IpNet;
use lb_common::entry::Counter;

use super::family::Family;

/// Rules that get series of their own: those that caught most. A list may hold a million, which
/// would burden Prometheus for nothing; what all of them drop is counted by verdict.
pub(super) const MAX_SERIES: usize = 1000;

/// All families of the block list: of the number of its rules, and of those that dropped most.
pub(super) fn families(rules: usize, top: &[(IpNet, Counter)]) -> [Family; 3] {
    let mut packets = Family::counter(
        "lb_block_packets_total",
        "Packets dropped by each rule of the block list (the 1000 rules that dropped most).",
    );
    let mut bytes = Family::counter(
        "lb_block_bytes_total",
        "Bytes dropped by each rule of the block list (the 1000 rules that dropped most).",
    );
    for (prefix, dropped) in top {
        let prefix = prefix.to_string();
        packets.add(&[("prefix", &prefix)], dropped.packets as f64);
        bytes.add(&[("prefix", &prefix)], dropped.bytes as f64);
    }
    [
        Family::gauge("lb_block_rules", "Rules on the block list.").with(rules as f64),
        packets,
        bytes,
    ]
}
