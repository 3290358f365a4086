//! Ports that flows are given on the node's own addresses, beside those of its own connections.

use std::path::Path;

use super::Finding;
use crate::{
    config::NatPorts,
    surroundings::{PortRange, TOO_FEW_PORTS, count_ports, ephemeral_ports, ports_beside},
};

const SUBJECT: &str = "ports";

/// With fewer, flows to one backend become few.
const FEW: u32 = 10_000;

/// `ephemeral` are the host's own; absent: it does not tell.
pub(super) fn finding(ephemeral: Option<PortRange>, ports: NatPorts) -> Option<Finding> {
    let host = ephemeral?;
    Some(match ports {
        NatPorts::Auto => chosen(host),
        NatPorts::Range { first, last } => configured(host, (first, last)),
    })
}

fn chosen(host: PortRange) -> Finding {
    let ports = ports_beside(host);
    let mend =
        "`sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"`, or nat_ports under [node]";
    let found = format!(
        "{} ports for flows to one backend, clear of the host's {}-{}",
        count_ports(ports),
        host.0,
        host.1
    );
    match count_ports(ports) {
        few if few <= TOO_FEW_PORTS => Finding::missing(SUBJECT, found, mend),
        few if few < FEW => Finding::advice(SUBJECT, found, mend),
        _ => Finding::fine(SUBJECT, found),
    }
}

fn configured(host: PortRange, ports: PortRange) -> Finding {
    let (first, last) = ports;
    if first > host.1 || last < host.0 {
        let found = format!("{first}-{last}, clear of the host's {}-{}", host.0, host.1);
        return Finding::fine(SUBJECT, found);
    }
    // The larger of the two sides is left to the host.
    let (below, above) = (
        (1024, first.saturating_sub(1)),
        (last.saturating_add(1), u16::MAX),
    );
    let free = if last < u16::MAX && count_ports(above) > count_ports(below) {
        above
    } else {
        below
    };
    Finding::advice(
        SUBJECT,
        format!(
            "nat_ports {first}-{last} overlap the host's own {}-{}: its connections to backends may \
             be taken for flows",
            host.0, host.1
        ),
        format!(
            "`sysctl -w net.ipv4.ip_local_port_range=\"{} {}\"`, or other nat_ports under [node]",
            free.0, free.1
        ),
    )
}

/// Reads the host's range; `proc` is /proc/sys/net.
pub(super) fn read(proc: &Path) -> Option<PortRange> {
    ephemeral_ports(proc).ok()
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn ports_are_clear_of_the_hosts_own() {
        use State::{Advice, Fine, Missing};
        let range = |first, last| NatPorts::Range { first, last };
        let usual = (32_768, 60_999);
        let rows = [
            (usual, NatPorts::Auto, Fine, "31744 ports"),
            ((1024, 60_999), NatPorts::Auto, Advice, "4536 ports"),
            ((9000, 65_535), NatPorts::Auto, Advice, "7976 ports"),
            ((1024, 65_535), NatPorts::Auto, Missing, "0 ports"),
            ((1024, 50_000), NatPorts::Auto, Fine, "15535 ports"),
            (usual, range(20_000, 32_767), Fine, "20000-32767"),
            (usual, range(61_000, 65_535), Fine, "61000-65535"),
            (usual, range(20_000, 32_768), Advice, "overlap"),
            (usual, range(60_999, 65_535), Advice, "overlap"),
        ];
        for (host, ports, state, words) in rows {
            let finding = finding(Some(host), ports).unwrap();
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.found.contains(words), "{finding:?}");
        }
        assert_eq!(finding(None, NatPorts::Auto), None);
    }

    #[test]
    fn the_mend_leaves_the_configured_ports_alone() {
        let rows = [
            ((20_000, 40_000), "\"40001 65535\""),
            ((40_000, 65_535), "\"1024 39999\""),
        ];
        for ((first, last), mend) in rows {
            let ports = NatPorts::Range { first, last };
            let wrong = finding(Some((32_768, 60_999)), ports).unwrap();
            assert!(wrong.mend.unwrap().contains(mend));
        }
    }

    #[test]
    fn this_host_tells_its_range() {
        let (first, last) = read(Path::new("/proc/sys/net")).unwrap();
        assert!(first <= last);
    }
}
