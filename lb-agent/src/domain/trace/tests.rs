//! Names of verdicts, and filters against packets.

use super::*;

/// A packet between two addresses of one family.
pub(crate) fn event(verdict: Verdict, src: &str, dst: &str) -> PacketEvent {
    PacketEvent {
        at: SystemTime::UNIX_EPOCH,
        verdict,
        ingress: 1,
        length: 60,
        ethertype: 0x0800,
        protocol: Some(IPPROTO_TCP),
        ends: Some(Ends {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
        }),
        sent: None,
        backend: None,
        has_ports: true,
        fragment: false,
        flags: 2,
        icmp: [0; 2],
        bytes: Vec::new(),
    }
}

#[test]
fn verdicts_have_names_and_actions_stand_for_all_of_theirs() {
    let drops = VerdictSet::named(["drop"]).unwrap();
    for verdict in Verdict::ALL {
        assert_eq!(drops.contains(*verdict), verdict.action() == Action::Drop);
        let one = VerdictSet::named([verdict.name()]).unwrap();
        assert!(one.contains(*verdict), "{verdict:?}");
    }
    let two = VerdictSet::named(["blocked", "request"]).unwrap();
    assert_eq!(two.0.count_ones(), 2);
    let error = VerdictSet::named(["drop", "blcked"])
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("there is no verdict `blcked`; there are drop (blocked, "));
    assert_eq!(
        VerdictSet::all().0.count_ones() as usize,
        Verdict::ALL.len()
    );
}

#[test]
fn all_conditions_must_hold() {
    let everything = PacketFilter::everything(1);
    let mut packet = event(Verdict::ForwardRequest, "10.0.0.2:4000", "198.51.100.10:80");
    packet.sent = Some(Ends {
        src: "10.77.1.1:20000".parse().unwrap(),
        dst: "10.77.1.2:8080".parse().unwrap(),
    });
    let net = |text: &str| Some(text.parse().unwrap());
    let rows = [
        (everything.clone(), true),
        (
            PacketFilter {
                src: net("10.0.0.0/30"),
                ..everything.clone()
            },
            true,
        ),
        (
            PacketFilter {
                src: net("10.0.0.4/30"),
                ..everything.clone()
            },
            false,
        ),
        (
            PacketFilter {
                src: net("::/0"),
                ..everything.clone()
            },
            false,
        ),
        (
            PacketFilter {
                src: net("10.77.1.1/32"),
                ..everything.clone()
            },
            true,
        ),
        (
            PacketFilter {
                dst: net("10.77.1.2/32"),
                ..everything.clone()
            },
            true,
        ),
        (
            PacketFilter {
                dst: net("10.0.0.2/32"),
                ..everything.clone()
            },
            false,
        ),
        (
            PacketFilter {
                port: Some(80),
                ..everything.clone()
            },
            true,
        ),
        (
            PacketFilter {
                port: Some(8080),
                ..everything.clone()
            },
            true,
        ),
        (
            PacketFilter {
                port: Some(81),
                ..everything.clone()
            },
            false,
        ),
        (
            PacketFilter {
                protocol: Some(PacketProtocol::Tcp),
                ..everything.clone()
            },
            true,
        ),
        (
            PacketFilter {
                protocol: Some(PacketProtocol::Icmp),
                ..everything.clone()
            },
            false,
        ),
        (
            PacketFilter {
                verdicts: VerdictSet::named(["drop"]).unwrap(),
                ..everything.clone()
            },
            false,
        ),
    ];
    for (filter, expected) in rows {
        assert_eq!(filter.wants(&packet), expected, "{filter:?}");
    }
    let arp = PacketEvent {
        protocol: None,
        ends: None,
        sent: None,
        has_ports: false,
        ..packet
    };
    assert!(everything.wants(&arp));
    assert!(
        !PacketFilter {
            src: net("0.0.0.0/0"),
            ..everything
        }
        .wants(&arp)
    );
}
