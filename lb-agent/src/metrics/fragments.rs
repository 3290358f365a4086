//! Metrics of fragments that came out of order.

use super::family::Family;
use crate::fragments::FragmentStats;

/// What became of them.
pub(super) fn family(stats: &FragmentStats) -> Family {
    let mut family = Family::counter(
        "lb_early_fragments_total",
        "Fragments that came before the first one of their packet, by what became of them: followed \
         it, expired because it did not come, lost for want of room.",
    );
    for (outcome, count) in [
        ("followed", stats.followed()),
        ("expired", stats.expired()),
        ("lost", stats.lost()),
    ] {
        family.add(&[("outcome", outcome)], count as f64);
    }
    family
}
