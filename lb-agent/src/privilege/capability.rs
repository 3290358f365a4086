//! The capabilities of capabilities(7) that the agent works with. `lb-agent.service` grants the same,
//! which a test sees to.

use rustix::thread::CapabilitySet;

/// A capability, and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    /// As a set of one.
    pub set: CapabilitySet,
    /// Others that contain it, from before it was split off.
    within: CapabilitySet,
    /// Whether the agent does not start without it; else only something that is configured fails.
    pub vital: bool,
    /// What it is for.
    pub reason: &'static str,
}

/// All of them.
pub const ALL: [Capability; 5] = [
    Capability {
        name: "CAP_BPF",
        set: CapabilitySet::BPF,
        within: CapabilitySet::SYS_ADMIN,
        vital: true,
        reason: "to load programs and maps",
    },
    Capability {
        name: "CAP_PERFMON",
        set: CapabilitySet::PERFMON,
        within: CapabilitySet::SYS_ADMIN,
        vital: true,
        reason: "for programs that do arithmetic with pointers into packets, and the buffers that \
                 early fragments come by",
    },
    Capability {
        name: "CAP_NET_ADMIN",
        set: CapabilitySet::NET_ADMIN,
        within: CapabilitySet::empty(),
        vital: true,
        reason: "to attach programs to interfaces and cgroups, ask for neighbours, close sockets \
                 of local clients, and to listen on addresses that are not the node's",
    },
    Capability {
        name: "CAP_NET_RAW",
        set: CapabilitySet::NET_RAW,
        within: CapabilitySet::empty(),
        vital: false,
        reason: "to announce VIPs by ARP and neighbour discovery",
    },
    Capability {
        name: "CAP_NET_BIND_SERVICE",
        set: CapabilitySet::NET_BIND_SERVICE,
        within: CapabilitySet::empty(),
        vital: false,
        reason: "for the proxy to listen on ports below 1024",
    },
];

/// All of them, as a set.
pub fn all() -> CapabilitySet {
    ALL.iter()
        .fold(CapabilitySet::empty(), |set, one| set | one.set)
}

/// Those without which the agent does not start and which `effective` lacks.
pub fn missing(effective: CapabilitySet) -> Vec<&'static str> {
    ALL.iter()
        .filter(|one| one.vital && !effective.intersects(one.set | one.within))
        .map(|one| one.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let rows: [(u64, &[&str]); 5] = [
            (0x1ff_ffff_ffff, &[]),
            (0xc0_0000_1000, &[]),
            (1 << 12 | 1 << 21, &[]),
            (1 << 12, &["CAP_BPF", "CAP_PERFMON"]),
            (0, &["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]),
        ];
        for (set, expected) in rows {
            let set = CapabilitySet::from_bits_retain(set);
            assert_eq!(missing(set), expected, "{set:?}");
        }
    }

    /// The unit and the agent agree.
    #[test]
    fn the_unit_grants_these_and_no_others() {
        let unit = include_str!("../../packaging/lb-agent.service");
        let own: Vec<&str> = ALL.iter().map(|one| one.name).collect();
        for key in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
            let granted = unit.lines().find_map(|line| line.strip_prefix(key));
            let granted: Vec<&str> = granted.expect(key).split(' ').collect();
            assert_eq!(granted, own, "{key}");
        }
    }
}
