//! Tests of `offer`: meta in, specification or sentence out.

use std::sync::Arc;

use super::*;
use crate::domain::backend::{CatalogHealth, InstanceId};

fn instance(id: &str, meta: &[(&str, &str)]) -> Instance {
    Instance {
        id: InstanceId(id.into()),
        address: "10.0.0.7:8080".parse().unwrap(),
        weight: 1,
        tags: Default::default(),
        meta: meta
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>()
            .into(),
        subset: None,
        detail: None,
        health: CatalogHealth::Passing,
    }
}

#[test]
fn without_a_vip_nothing_is_asked_for() {
    assert_eq!(read("web", None, []), None);
    let other = instance("n/1", &[("lb-protocol", "udp")]);
    assert_eq!(read("web", None, [&other]), None);
}

#[test]
fn the_first_that_carries_a_vip_speaks() {
    let instances = [
        instance("n/3", &[("lb-vip", "198.51.100.9:1")]),
        instance("n/1", &[]),
        instance(
            "n/2",
            &[
                ("lb-vip", "198.51.100.10:53, [2001:db8::1]:53"),
                ("lb-protocol", "udp"),
                ("lb-forwarding", "nat"),
                ("lb-health-path", "/health"),
                ("lb-health-port", "8081"),
                ("lb-health-interval", "2s"),
                ("lb-health-status", "200-299,401"),
                ("lb-health-body", "ready"),
                ("lb-health-tls", "true"),
                ("lb-health-rise", "1"),
                ("lb-health-fall", "5"),
                ("lb-health-host", "web.example:80"),
            ],
        ),
    ];
    let spec = read("web", None, &instances).unwrap().unwrap();
    let vips: Vec<String> = spec.vips.iter().map(ToString::to_string).collect();
    assert_eq!(vips, ["198.51.100.10:53", "[2001:db8::1]:53"]);
    assert_eq!(spec.protocol, Protocol::Udp);
    assert_eq!(spec.origin.to_string(), "consul meta of n/2");
    let probe = spec.probe.unwrap();
    assert_eq!((probe.rise, probe.fall, probe.port), (1, 5, Some(8081)));
    assert_eq!(probe.interval, Duration::from_secs(2));
    let kind = ProbeKind::Http {
        path: "/health".into(),
        host: Some("web.example:80".into()),
        status: vec![(200, 299), (401, 401)],
        body: Some("ready".into()),
        tls: Some(TlsSpec::default()),
    };
    assert_eq!(probe.kind, kind);
    let plain = instance("n/1", &[("lb-vip", "198.51.100.10:80")]);
    let plain = read("web", None, [&plain]).unwrap().unwrap();
    assert_eq!((plain.probe, plain.allow), (None, None));
    assert_eq!(plain.forwarding, Forwarding::Nat);
}

#[test]
fn probes_of_other_kinds() {
    let read = |meta: &[(&str, &str)]| {
        let mut one = instance("n/1", meta);
        Arc::make_mut(&mut one.meta).insert("lb-vip".into(), "198.51.100.10:80".into());
        read("web", None, [&one]).unwrap()
    };
    let grpc = [
        ("lb-health-kind", "grpc"),
        ("lb-health-service", "shop.Cart"),
        ("lb-health-tls", "true"),
    ];
    let kind = ProbeKind::Grpc {
        service: "shop.Cart".into(),
        host: None,
        tls: Some(TlsSpec::default()),
    };
    assert_eq!(read(&grpc).unwrap().probe.unwrap().kind, kind);
    assert_eq!(read(&[("lb-health-kind", "none")]).unwrap().probe, None);
    let rows = [
        (
            [grpc[0], ("lb-health-path", "/")],
            "lb-health-path means nothing to a probe of kind grpc",
        ),
        (
            [("lb-health-kind", "http"), ("lb-health-tls", "1")],
            "lb-health-tls is `1`",
        ),
        (
            [("lb-health-kind", "http"), ("lb-health-status", "200,")],
            "lb-health-status is `200,`",
        ),
        (
            [("lb-health-kind", "http"), ("lb-health-body", "")],
            "lb-health-body is empty",
        ),
    ];
    for (meta, part) in rows {
        let error = read(&meta).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn flows_are_treated_as_it_says() {
    let meta = [
        ("lb-vip", "198.51.100.10:80,198.51.100.11:80"),
        ("lb-forwarding", "dsr-ipip"),
        ("lb-affinity", "client"),
        ("lb-allow", "10.0.0.0/8, 192.0.2.1"),
    ];
    let spec = read("web", None, [&instance("n/1", &meta)])
        .unwrap()
        .unwrap();
    assert_eq!(spec.forwarding, Forwarding::DsrIpip);
    assert_eq!(spec.affinity, Affinity::Client);
    let allow: Vec<String> = spec
        .allow
        .iter()
        .flatten()
        .map(|net| net.to_string())
        .collect();
    assert_eq!(allow, ["10.0.0.0/8", "192.0.2.1/32"]);
    let ports = [("lb-vip", "198.51.100.10:80,198.51.100.10:81"), meta[1]];
    let error = read("web", None, [&instance("n/1", &ports)])
        .unwrap()
        .unwrap_err();
    assert!(error.contains("cannot translate ports"), "{error}");
}

/// Rows of a meta entry beside a good VIP, and what is said of it.
#[test]
fn what_cannot_be_done_is_a_sentence() {
    let rows = [
        ("lb-vip", "", "lb-vip is empty"),
        ("lb-vip", "198.51.100.10", "`198.51.100.10` in lb-vip"),
        ("lb-vip", "web:80", "`web:80` in lb-vip"),
        ("lb-vip", "0.0.0.0:80", "no address that clients"),
        ("lb-vip", "127.0.0.1:80", "no address that clients"),
        ("lb-vip", "198.51.100.10:0", "no address that clients"),
        ("lb-protocol", "sctp", "lb-protocol is `sctp`"),
        ("lb-protocol", "HTTP", "must be tcp, udp, http or grpc"),
        ("lb-forwarding", "dsr", "lb-forwarding is `dsr`"),
        ("lb-affinity", "cookie", "lb-affinity is `cookie`"),
        ("lb-allow", "10.0.0.0/33", "`10.0.0.0/33` is neither"),
        ("lb-allow", "2001:db8::/32", "could reach 198.51.100.10:80"),
        ("lb-allow", "", "could reach 198.51.100.10:80"),
        ("lb-health-kind", "icmp", "lb-health-kind is `icmp`"),
        ("lb-health-body", "ok", "nothing to a probe of kind tcp"),
        ("lb-health-tls", "yes", "nothing to a probe of kind tcp"),
        ("lb-health-rise", "0", "lb-health-rise is `0`"),
        ("lb-health-port", "65536", "lb-health-port is `65536`"),
        ("lb-health-interval", "soon", "lb-health-interval is `soon`"),
        ("lb-health-timeout", "9s", "longer than lb-health-interval"),
        ("lb-health-path", "health", "lb-health-path is `health`"),
        ("lb-health-pth", "/", "`lb-health-pth` means nothing"),
    ];
    for (key, value, part) in rows {
        let mut one = instance("n/1", &[("lb-vip", "198.51.100.10:80")]);
        Arc::make_mut(&mut one.meta).insert(key.into(), value.into());
        let error = read("web", None, [&one]).unwrap().unwrap_err();
        assert!(error.contains(part), "{key}={value}: {error}");
        assert!(error.contains("service web"), "{error}");
    }
    let one = instance("n/1", &[("lb-vip", "198.51.100.10:80")]);
    let error = read("we b", None, [&one]).unwrap().unwrap_err();
    assert!(error.contains("its name"), "{error}");
}

/// Without a VIP it is known all the same, and whoever has one goes before.
#[test]
fn tags_that_ask_for_routes_opt_in() {
    let mut tagged = instance("n/1", &[("lb-health-path", "/health")]);
    tagged.tags = vec!["urlprefix-web.example/".into()].into();
    let spec = read("web", None, [&tagged]).unwrap().unwrap();
    assert_eq!(
        (spec.vips.len(), spec.origin.to_string()),
        (0, "consul tags of n/1".into())
    );
    assert!(spec.probe.is_some());
    assert_eq!(spec.protocol, Protocol::Http);
    let other = instance("n/2", &[("lb-vip", "198.51.100.10:80")]);
    let spec = read("web", None, [&tagged, &other]).unwrap().unwrap();
    assert_eq!(
        (spec.vips.len(), spec.origin.to_string()),
        (1, "consul meta of n/2".into())
    );
}

/// Rows of what the meta says, what service-defaults say, and what becomes of it.
#[test]
fn what_it_speaks() {
    let rows = [
        (&[][..], None, Ok(Protocol::Tcp)),
        (&[], Some(""), Ok(Protocol::Tcp)),
        (&[], Some("tcp"), Ok(Protocol::Tcp)),
        (&[], Some("http"), Ok(Protocol::Http)),
        (&[], Some("http2"), Ok(Protocol::Http)),
        (&[], Some("grpc"), Ok(Protocol::Grpc)),
        (&[("lb-protocol", "tcp")], Some("http"), Ok(Protocol::Tcp)),
        (&[("lb-protocol", "grpc")], None, Ok(Protocol::Grpc)),
        (
            &[("lb-protocol", "http"), ("lb-forwarding", "dsr-l2")],
            None,
            Err("speak to the proxy"),
        ),
        (
            &[("lb-affinity", "client")],
            Some("http"),
            Err("each request is balanced"),
        ),
    ];
    for (meta, spoken, expected) in rows {
        let mut meta = meta.to_vec();
        meta.push(("lb-vip", "198.51.100.10:80"));
        let spec = read("web", spoken, [&instance("n/1", &meta)]).unwrap();
        match (spec, expected) {
            (Ok(spec), Ok(protocol)) => assert_eq!(spec.protocol, protocol, "{meta:?}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (spec, expected) => panic!("{meta:?}: {spec:?}, not {expected:?}"),
        }
    }
    let mut tagged = instance("n/1", &[("lb-protocol", "tcp")]);
    tagged.tags = vec!["urlprefix-web.example/".into()].into();
    let error = read("web", None, [&tagged]).unwrap().unwrap_err();
    assert!(error.contains("routes are about requests"), "{error}");
}
