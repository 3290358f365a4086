//! Connection tracking: what the programs forward never comes to it, what the stack gets does.

use std::{fs, path::Path};

use super::Finding;

const SUBJECT: &str = "conntrack";

/// Connections that the kernel keeps track of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tracking {
    pub(super) tracked: u64,
    pub(super) most: u64,
}

/// `None`: the kernel does not track connections.
pub(super) fn finding(tracking: Option<Tracking>) -> Finding {
    let Some(Tracking { tracked, most }) = tracking else {
        return Finding::fine(SUBJECT, "not loaded");
    };
    let found = format!("{tracked} connections of at most {most}");
    // Full, it drops what the stack gets: probes, Consul, backends on this node.
    if tracked * 5 >= most * 4 {
        let better = (most * 4).max(262_144);
        return Finding::advice(
            SUBJECT,
            format!("{found}: full, it drops what the stack gets, probes among it"),
            format!("`sysctl -w net.netfilter.nf_conntrack_max={better}`"),
        );
    }
    Finding::fine(
        SUBJECT,
        format!("{found}; what the programs forward never comes to it"),
    )
}

/// Reads the counts; `proc` is /proc/sys/net.
pub(super) fn read(proc: &Path) -> Option<Tracking> {
    let number = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(proc.join("netfilter").join(name)).ok()?;
        text.trim().parse().ok()
    };
    Some(Tracking {
        tracked: number("nf_conntrack_count")?,
        most: number("nf_conntrack_max")?,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn a_full_table_is_told_of() {
        let tracking = |tracked, most| Some(Tracking { tracked, most });
        let rows = [
            (None, State::Fine, ""),
            (tracking(0, 65_536), State::Fine, ""),
            (tracking(50_000, 65_536), State::Fine, ""),
            (
                tracking(60_000, 65_536),
                State::Advice,
                "nf_conntrack_max=262144",
            ),
            (
                tracking(900_000, 1_000_000),
                State::Advice,
                "nf_conntrack_max=4000000",
            ),
        ];
        for (tracking, state, mend) in rows {
            let finding = finding(tracking);
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.mend.unwrap_or_default().contains(mend));
        }
    }
}
