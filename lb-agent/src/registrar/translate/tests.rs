//! Containers in, registrations and warnings out.

use super::*;
use crate::registrar::container::{Binding, Health};

fn published() -> Rules {
    Rules {
        addresses: Addresses::Published("10.0.0.5".parse().unwrap()),
        prefix: "p:".into(),
        tags: vec![],
        explicit: false,
    }
}

fn internal(network: Option<&str>, node: Option<&str>) -> Rules {
    Rules {
        addresses: Addresses::Internal {
            network: network.map(str::to_owned),
            node: node.map(|ip| ip.parse().unwrap()),
        },
        ..published()
    }
}

/// A running container `web` of the image `repo/echo:1` with these ports (`80` or `53/udp`), each
/// published on the node's port that is 8000 above, and these labels.
fn container(ports: &[(u16, bool)], labels: &[(&str, &str)]) -> Container {
    let port = |(number, udp)| Port { number, udp };
    Container {
        id: "abc".into(),
        name: "web".into(),
        image: "registry:5000/repo/echo:1".into(),
        running: true,
        labels: labels
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect(),
        exposed: ports.iter().copied().map(port).collect(),
        published: ports
            .iter()
            .map(|pair| {
                let binding = Binding {
                    address: None,
                    port: pair.0 + 8000,
                };
                (port(*pair), vec![binding])
            })
            .collect(),
        network: Network::Own("bridge".into()),
        addresses: [("bridge".to_owned(), "172.17.0.2".parse().unwrap())].into(),
        ..Container::default()
    }
}

fn alone(container: &Container, rules: &Rules) -> (Vec<Registration>, Vec<String>) {
    let (registrations, warnings) = translate(container, container, rules);
    (
        registrations,
        warnings.iter().map(ToString::to_string).collect(),
    )
}

/// `ID NAME ADDRESS:PORT [TAGS] {META}` of each, without warnings.
fn lines(container: &Container, rules: &Rules) -> Vec<String> {
    let (registrations, warnings) = alone(container, rules);
    assert_eq!(warnings, Vec::<String>::new());
    registrations.iter().map(line).collect()
}

fn line(registration: &Registration) -> String {
    let Registration {
        id,
        name,
        address,
        port,
        tags,
        meta,
        ..
    } = registration;
    let meta: Vec<String> = meta
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!(
        "{id} {name} {address}:{port} [{}] {{{}}}",
        tags.join(" "),
        meta.join(" ")
    )
}

#[test]
fn names_ids_and_tags() {
    let one = [(80, false)];
    let two = [(80, false), (53, true)];
    type Row<'a> = (&'a [(u16, bool)], &'a [(&'a str, &'a str)], &'a [&'a str]);
    let rows: [Row; 11] = [
        (&[], &[], &[]),
        (&one, &[], &["p:web:80 echo 10.0.0.5:8080 [] {}"]),
        (
            &two,
            &[],
            &[
                "p:web:53:udp echo-53 10.0.0.5:8053 [udp] {}",
                "p:web:80 echo-80 10.0.0.5:8080 [] {}",
            ],
        ),
        (
            &two,
            &[
                ("SERVICE_NAME", "db"),
                ("SERVICE_80_NAME", "http"),
                ("SERVICE_TAGS", "a,b"),
            ],
            &[
                "p:web:53:udp db-53 10.0.0.5:8053 [a b udp] {}",
                "p:web:80 http 10.0.0.5:8080 [a b] {}",
            ],
        ),
        (&one, &[("SERVICE_IGNORE", "true")], &[]),
        (
            &two,
            &[("SERVICE_53_IGNORE", "1")],
            &["p:web:80 echo-80 10.0.0.5:8080 [] {}"],
        ),
        (
            &one,
            &[("SERVICE_ID", "mine")],
            &["p:mine echo 10.0.0.5:8080 [] {}"],
        ),
        (
            &one,
            &[
                ("SERVICE_REGION", "us2"),
                ("SERVICE_FOO_BAR", "x"),
                ("SERVICE_EMPTY", ""),
            ],
            &["p:web:80 echo 10.0.0.5:8080 [] {empty= foo_bar=x region=us2}"],
        ),
        (
            &one,
            &[
                ("SERVICE_LB_VIP", "198.51.100.10:80"),
                ("SERVICE_80_LB_HEALTH_KIND", "http"),
                ("SERVICE_LB-PROTOCOL", "tcp"),
            ],
            &[
                "p:web:80 echo 10.0.0.5:8080 [] {lb-health-kind=http lb-protocol=tcp lb-vip=198.51.100.10:80}",
            ],
        ),
        (
            &one,
            &[("SERVICE_80_TAGS", r"a\,b")],
            &["p:web:80 echo 10.0.0.5:8080 [a,b] {}"],
        ),
        (
            &one,
            &[("service_name", "x"), ("NAME", "y")],
            &["p:web:80 echo 10.0.0.5:8080 [] {}"],
        ),
    ];
    for (ports, labels, expected) in rows {
        assert_eq!(
            lines(&container(ports, labels), &published()),
            expected,
            "{labels:?}"
        );
    }
}

#[test]
fn names_of_images() {
    let rows = [
        ("redis", "redis"),
        ("library/redis:7", "redis"),
        ("host:5000/a/b", "b"),
        ("a/b@sha256:0123", "b"),
        ("sha256:0123456789", "web"),
        ("", "web"),
    ];
    for (image, name) in rows {
        let container = Container {
            image: image.into(),
            ..container(&[(80, false)], &[])
        };
        assert_eq!(alone(&container, &published()).0[0].name, name, "{image}");
    }
}

#[test]
fn rules_for_all() {
    let rules = Rules {
        tags: vec!["node-a".into()],
        explicit: true,
        ..published()
    };
    assert_eq!(lines(&container(&[(80, false)], &[]), &rules), [""; 0]);
    let named = container(
        &[(80, false)],
        &[("SERVICE_NAME", "x"), ("SERVICE_TAGS", "a")],
    );
    assert_eq!(
        lines(&named, &rules),
        ["p:web:80 x 10.0.0.5:8080 [a node-a] {}"]
    );
}

#[test]
fn who_is_registered_and_how_it_is() {
    let mut web = container(&[(80, false)], &[]);
    web.health = Some(Health::Healthy);
    web.paused = true;
    let (registrations, _) = alone(&web, &published());
    assert_eq!(registrations[0].health, Some(Health::Healthy));
    assert_eq!(registrations[0].maintenance, Some(PAUSED));
    web.running = false;
    assert_eq!(lines(&web, &published()), [""; 0]);
}

#[test]
fn addresses() {
    let at = |address: Option<&str>| {
        let mut web = container(&[(80, false)], &[]);
        let binding = Binding {
            address: address.map(|ip| ip.parse().unwrap()),
            port: 8080,
        };
        let other = Binding {
            address: None,
            port: 9,
        };
        *web.published.values_mut().next().unwrap() = vec![binding, other];
        alone(&web, &published())
    };
    assert_eq!(line(&at(None).0[0]), "p:web:80 echo 10.0.0.5:8080 [] {}");
    assert_eq!(
        line(&at(Some("192.0.2.1")).0[0]),
        "p:web:80 echo 192.0.2.1:8080 [] {}"
    );
    let (none, warnings) = at(Some("127.0.0.1"));
    assert_eq!(none, []);
    assert_eq!(
        warnings,
        ["container web: port 80: it is published on the node's loopback address only"]
    );

    // Exposed, not published.
    let mut web = container(&[(80, false)], &[]);
    web.published.clear();
    assert_eq!(lines(&web, &published()), [""; 0]);
    let inside = ["p:web:80 echo 172.17.0.2:80 [] {}"];
    assert_eq!(lines(&web, &internal(None, None)), inside);
    web.addresses
        .insert("a".into(), "172.18.0.2".parse().unwrap());
    assert_eq!(lines(&web, &internal(None, None)), inside);
    assert_eq!(
        lines(&web, &internal(Some("a"), None)),
        ["p:web:80 echo 172.18.0.2:80 [] {}"]
    );
    let (none, warnings) = alone(&web, &internal(Some("b"), None));
    assert_eq!((none.len(), warnings.len()), (0, 1), "{warnings:?}");

    // In the node's network an exposed port is one of the node's.
    web.network = Network::Host;
    web.addresses.clear();
    let node = ["p:web:80 echo 10.0.0.5:80 [] {}"];
    assert_eq!(lines(&web, &published()), node);
    assert_eq!(lines(&web, &internal(None, Some("10.0.0.5"))), node);
    let (none, warnings) = alone(&web, &internal(None, None));
    assert_eq!(none, []);
    assert!(
        warnings[0].contains("set `address` under [docker]"),
        "{warnings:?}"
    );
    web.network = Network::None;
    assert_eq!(lines(&web, &internal(None, None)), [""; 0]);

    // In another's network the other's ports and address count.
    let pod = container(&[(80, false), (81, false)], &[]);
    let mut side = container(&[(81, false)], &[]);
    side.id = "side".into();
    side.network = Network::Of("abc".into());
    side.published.clear();
    side.addresses.clear();
    for (rules, expected) in [
        (published(), "p:web:81 echo 10.0.0.5:8081 [] {}"),
        (internal(None, None), "p:web:81 echo 172.17.0.2:81 [] {}"),
    ] {
        let (registrations, warnings) = translate(&side, &pod, &rules);
        assert_eq!(warnings, []);
        assert_eq!(
            registrations.iter().map(line).collect::<Vec<_>>(),
            [expected]
        );
    }
}

#[test]
fn what_is_not_followed_is_named() {
    let long = "x".repeat(513);
    let one = [(80, false)];
    let two = [(80, false), (81, false)];
    type Row<'a> = (&'a [(u16, bool)], &'a [(&'a str, &'a str)], usize, &'a str);
    let rows: [Row; 10] = [
        (
            &one,
            &[("SERVICE_NAME", "a b")],
            0,
            "label SERVICE_NAME: `a b` is no name",
        ),
        (
            &one,
            &[("SERVICE_ID", "a/b")],
            1,
            "label SERVICE_ID: `a/b` is no id",
        ),
        (
            &two,
            &[("SERVICE_ID", "x")],
            2,
            "SERVICE_ID: its ports would have the same id",
        ),
        (
            &one,
            &[("SERVICE_A.B", "x")],
            1,
            "label SERVICE_A.B: Consul's meta takes no such key",
        ),
        (
            &one,
            &[("SERVICE_X", &long)],
            1,
            "label SERVICE_X: Consul's meta takes at most 512",
        ),
        (
            &one,
            &[("SERVICE_LB_REGISTRAR", "p:")],
            1,
            "label SERVICE_LB_REGISTRAR: this key is not",
        ),
        (
            &one,
            &[("SERVICE_CONSUL-X", "y")],
            1,
            "label SERVICE_CONSUL-X: this key is not",
        ),
        (
            &one,
            &[("SERVICE_CHECK_SCRIPT", "x")],
            1,
            "label SERVICE_CHECK_SCRIPT: checks that run",
        ),
        (
            &one,
            &[("SERVICE_81_NAME", "x")],
            1,
            "label SERVICE_81_NAME: port 81 is not published",
        ),
        (
            &one,
            &[("SERVICE_CHECK_TTL", "x")],
            1,
            "label SERVICE_CHECK_TTL: is no duration",
        ),
    ];
    for (ports, labels, count, warning) in rows {
        let (registrations, warnings) = alone(&container(ports, labels), &published());
        assert_eq!(registrations.len(), count, "{labels:?}");
        assert_eq!(warnings.len(), 1, "{labels:?}: {warnings:?}");
        let start = format!("container web: {warning}");
        assert!(warnings[0].starts_with(&start), "{warnings:?}");
    }
}

#[test]
fn meta_is_bounded() {
    let keys: Vec<String> = (0..70).map(|n| format!("SERVICE_K{n}")).collect();
    let labels: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "x")).collect();
    let (registrations, warnings) = alone(&container(&[(80, false)], &labels), &published());
    assert_eq!(registrations[0].full_meta("p:").len(), 64);
    assert_eq!(warnings.len(), 8);
}
