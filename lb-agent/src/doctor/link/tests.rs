//! One fault of a card after the other, each with its mend.

use super::{super::State, *};

/// A card as one would wish it.
fn good() -> Link {
    Link {
        name: "eth0".into(),
        present: true,
        up: true,
        mtu: 1500,
        driver: Some("ice".into()),
        xdp: Some(7),
        lro: Some(false),
        gro_hw: Some(false),
        strips_vlan: Some(false),
        rx_checksum: Some(true),
        has_vlans: false,
        queues: Some((
            Amount {
                current: 8,
                most: 16,
            },
            true,
        )),
        ring: Some(Amount {
            current: 2048,
            most: 4096,
        }),
        processors: 8,
    }
}

/// Whatever is not fine, with its mend.
fn complaints(link: &Link, mode: XdpMode) -> Vec<(String, State, String)> {
    let findings = findings(link, mode).into_iter();
    findings
        .filter(|finding| finding.state != State::Fine)
        .map(|finding| {
            let mend = finding.mend.clone().unwrap_or_default();
            (finding.subject, finding.state, mend)
        })
        .collect()
}

#[test]
fn a_good_card_is_fine() {
    for mode in [
        XdpMode::Auto,
        XdpMode::Native,
        XdpMode::Generic,
        XdpMode::Off,
    ] {
        assert_eq!(complaints(&good(), mode), [], "{mode:?}");
    }
    let subjects: Vec<String> = findings(&good(), XdpMode::Auto)
        .into_iter()
        .map(|finding| finding.subject)
        .collect();
    let all = ["XDP", "LRO", "VLAN", "queues", "ring"].map(|what| format!("eth0 {what}"));
    assert_eq!(subjects, all);
}

/// One thing wrong, and the one complaint with the command that mends it.
#[test]
fn each_fault_has_its_mend() {
    use State::{Advice, Missing};
    use XdpMode::{Auto, Native};
    let few = Amount {
        current: 2,
        most: 16,
    };
    let short = Amount {
        current: 256,
        most: 4096,
    };
    let rows: [(Link, XdpMode, &str, State, &str); 13] = [
        (
            Link {
                present: false,
                ..good()
            },
            Auto,
            "eth0",
            Missing,
            "`ip link`",
        ),
        (
            Link {
                up: false,
                ..good()
            },
            Auto,
            "eth0 state",
            Advice,
            "`ip link set dev eth0 up`",
        ),
        (
            Link {
                xdp: Some(0),
                ..good()
            },
            Auto,
            "eth0 XDP",
            Advice,
            "the interface below it",
        ),
        (
            Link {
                xdp: Some(1),
                ..good()
            },
            Native,
            "eth0 XDP",
            Missing,
            "xdp_mode = \"auto\"",
        ),
        (
            Link {
                xdp: None,
                driver: Some("odd".into()),
                ..good()
            },
            Auto,
            "eth0 XDP",
            Advice,
            "`lb-agent status`",
        ),
        (
            Link {
                mtu: 9000,
                ..good()
            },
            Auto,
            "eth0 MTU",
            Advice,
            "mtu 3498`",
        ),
        (
            Link {
                lro: Some(true),
                ..good()
            },
            Auto,
            "eth0 LRO",
            Advice,
            "`ethtool -K eth0 lro off`",
        ),
        (
            Link {
                gro_hw: Some(true),
                ..good()
            },
            Auto,
            "eth0 GRO-HW",
            Advice,
            "`ethtool -K eth0 rx-gro-hw off`",
        ),
        (
            Link {
                strips_vlan: Some(true),
                has_vlans: true,
                ..good()
            },
            Auto,
            "eth0 VLAN",
            Advice,
            "`ethtool -K eth0 rxvlan off`",
        ),
        (
            Link {
                rx_checksum: Some(false),
                ..good()
            },
            Auto,
            "eth0 checksums",
            Advice,
            "`ethtool -K eth0 rx on`",
        ),
        (
            Link {
                queues: Some((few, true)),
                ..good()
            },
            Auto,
            "eth0 queues",
            Advice,
            "`ethtool -L eth0 combined 8`",
        ),
        (
            Link {
                queues: Some((few, false)),
                ..good()
            },
            Auto,
            "eth0 queues",
            Advice,
            "`ethtool -L eth0 rx 8`",
        ),
        (
            Link {
                ring: Some(short),
                ..good()
            },
            Auto,
            "eth0 ring",
            Advice,
            "`ethtool -G eth0 rx 1024`",
        ),
    ];
    for (link, mode, subject, state, mend) in rows {
        let told = complaints(&link, mode);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((told[0].0.as_str(), told[0].1), (subject, state));
        assert!(told[0].2.contains(mend), "{told:?}");
    }
}

/// What cannot be known or does not matter is not complained of.
#[test]
fn what_does_not_matter_is_no_complaint() {
    let silent = Link {
        name: "eth0".into(),
        present: true,
        up: true,
        mtu: 1500,
        driver: Some("ixgbe".into()),
        processors: 64,
        ..Link::default()
    };
    let rows = [
        (silent, XdpMode::Auto),
        (
            Link {
                strips_vlan: Some(true),
                ..good()
            },
            XdpMode::Auto,
        ),
        (
            Link {
                mtu: 9000,
                ..good()
            },
            XdpMode::Off,
        ),
        (
            Link {
                xdp: Some(0),
                ..good()
            },
            XdpMode::Generic,
        ),
        (
            Link {
                mtu: 9000,
                driver: Some("veth".into()),
                ..good()
            },
            XdpMode::Native,
        ),
        (
            Link {
                mtu: 9000,
                driver: Some("tun".into()),
                xdp: None,
                ..good()
            },
            XdpMode::Auto,
        ),
        // As many queues as there can be, though fewer than processors.
        (
            Link {
                queues: Some((
                    Amount {
                        current: 4,
                        most: 4,
                    },
                    true,
                )),
                ..good()
            },
            XdpMode::Auto,
        ),
        (
            Link {
                ring: Some(Amount {
                    current: 512,
                    most: 512,
                }),
                ..good()
            },
            XdpMode::Auto,
        ),
    ];
    for (link, mode) in rows {
        assert_eq!(complaints(&link, mode), [], "{link:?}");
    }
}
