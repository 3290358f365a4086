//! Whether packets come to the node and find their way on: the reverse-path filter, VIPs, forwarding,
//! the table of neighbours.

use std::{fs, net::IpAddr, path::Path};

use super::Finding;

/// What is set, and what is to be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routing {
    /// Interfaces that clients come by, with the filter in force: 1 is strict.
    pub(super) filters: Vec<(String, u8)>,
    /// Whether the kernel forwards packets by itself.
    pub(super) forwards: bool,
    /// VIPs, each once.
    pub(super) vips: Vec<IpAddr>,
    /// The node's own addresses.
    pub(super) own: Vec<IpAddr>,
    /// The node answers for VIPs on some interface.
    pub(super) announces: bool,
    /// Backends that are known, as far as they are on a link of the node's.
    pub(super) backends: usize,
    /// `net.ipv4.neigh.default.gc_thresh3`; absent: not told.
    pub(super) neighbours: Option<usize>,
}

/// What other hosts of the links may take of the table of neighbours.
const OTHERS: usize = 128;

pub(super) fn findings(facts: &Routing) -> Vec<Finding> {
    let mut findings = filters(facts);
    let forwards = if facts.forwards { "on" } else { "off" };
    findings.push(Finding::fine(
        "forwarding",
        format!("{forwards}; the programs forward by themselves, so neither is needed"),
    ));
    findings.extend(vips(facts));
    findings.extend(neighbours(facts));
    findings
}

fn filters(facts: &Routing) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts
        .filters
        .iter()
        .filter(|(_, filter)| *filter == 1)
        .map(|(name, _)| {
            Finding::advice(
                format!("{name} rp_filter"),
                "strict: what the stack gets (for backends on this node, or from tunnels) is lost \
                 where the way back is another interface",
                // The greater of the two counts, and a dot in a name is written as a slash.
                format!(
                    "`sysctl -w net.ipv4.conf.{}.rp_filter=2`",
                    name.replace('.', "/")
                ),
            )
        })
        .collect();
    if findings.is_empty() && !facts.filters.is_empty() {
        findings.push(Finding::fine("rp_filter", "not strict"));
    }
    findings
}

fn vips(facts: &Routing) -> Option<Finding> {
    if facts.vips.is_empty() {
        return None;
    }
    let elsewhere: Vec<String> = facts
        .vips
        .iter()
        .filter(|vip| !facts.own.contains(vip))
        .map(ToString::to_string)
        .collect();
    Some(if elsewhere.is_empty() {
        Finding::fine("VIPs", "all are addresses of this node")
    } else if facts.announces {
        let found = format!(
            "this node answers for {} (`announce`)",
            elsewhere.join(", ")
        );
        Finding::fine("VIPs", found)
    } else {
        Finding::advice(
            "VIPs",
            format!("{} is no address of this node", elsewhere.join(", ")),
            "a route to this node on the router, `announce` under [node], or \
             `ip address add VIP/32 dev lo` where a router learns from the node",
        )
    })
}

fn neighbours(facts: &Routing) -> Option<Finding> {
    let most = facts.neighbours?;
    let needed = facts.backends + OTHERS;
    if needed <= most {
        let found = format!("room for {most}; {} backends are listed", facts.backends);
        return Some(Finding::fine("neighbours", found));
    }
    let better = (needed * 2).next_power_of_two();
    Some(Finding::advice(
        "neighbours",
        format!(
            "room for {most}, and {} backends may be on links",
            facts.backends
        ),
        format!(
            "`sysctl -w net.ipv4.neigh.default.gc_thresh3={better} \
             net.ipv4.neigh.default.gc_thresh2={}`",
            better / 2
        ),
    ))
}

/// Reads the settings; `proc` is /proc/sys/net.
pub(super) fn read(proc: &Path, interfaces: &[String]) -> Routing {
    let number = |key: &str| -> Option<usize> {
        let text = fs::read_to_string(proc.join(key)).ok()?;
        text.trim().parse().ok()
    };
    let filter = |scope: &str| number(&format!("ipv4/conf/{scope}/rp_filter")).unwrap_or(0);
    let own = crate::surroundings::own_addresses();
    Routing {
        filters: interfaces
            .iter()
            // The kernel takes the greater of the two (Documentation/networking/ip-sysctl.rst).
            .map(|name| (name.clone(), filter("all").max(filter(name)) as u8))
            .collect(),
        forwards: number("ipv4/ip_forward") == Some(1),
        own: own.map_or_else(|_| Vec::new(), |own| own.map(|(_, ip)| ip).collect()),
        neighbours: number("ipv4/neigh/default/gc_thresh3"),
        ..Routing::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Routing {
        Routing {
            filters: vec![("eth0".into(), 2), ("eth1".into(), 0)],
            forwards: false,
            vips: vec!["198.51.100.10".parse().unwrap()],
            own: vec!["198.51.100.10".parse().unwrap()],
            announces: false,
            backends: 100,
            neighbours: Some(1024),
        }
    }

    #[test]
    fn each_fault_has_its_mend() {
        let strict = vec![("eth0".to_owned(), 2), ("eth1".to_owned(), 1)];
        let rows = [
            (good(), "", ""),
            (
                Routing {
                    filters: strict,
                    ..good()
                },
                "eth1 rp_filter",
                "net.ipv4.conf.eth1.rp_filter=2",
            ),
            (
                Routing {
                    forwards: true,
                    ..good()
                },
                "",
                "",
            ),
            (
                Routing {
                    own: vec![],
                    ..good()
                },
                "VIPs",
                "`announce`",
            ),
            (
                Routing {
                    own: vec![],
                    announces: true,
                    ..good()
                },
                "",
                "",
            ),
            (
                Routing {
                    backends: 1000,
                    ..good()
                },
                "neighbours",
                "gc_thresh3=4096 net.ipv4.neigh.default.gc_thresh2=2048",
            ),
            (
                Routing {
                    neighbours: None,
                    backends: 5000,
                    ..good()
                },
                "",
                "",
            ),
        ];
        for (facts, subject, mend) in rows {
            let findings = findings(&facts);
            crate::doctor::tests::nothing_wrong_but(&findings, subject, mend);
        }
    }

    #[test]
    fn the_greater_filter_counts() {
        let directory = tempfile::tempdir().unwrap();
        let write = |key: &str, text: &str| {
            let file = directory.path().join(key);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("ipv4/conf/all/rp_filter", "1\n");
        write("ipv4/conf/eth0/rp_filter", "0\n");
        write("ipv4/conf/eth1/rp_filter", "2\n");
        write("ipv4/ip_forward", "1\n");
        write("ipv4/neigh/default/gc_thresh3", "1024\n");
        let facts = read(directory.path(), &["eth0".into(), "eth1".into()]);
        assert_eq!(facts.filters, [("eth0".into(), 1), ("eth1".into(), 2)]);
        assert_eq!((facts.forwards, facts.neighbours), (true, Some(1024)));
    }
}
