//! Answers of a real Consul, and those it could give.

use super::*;

/// Answers of Consul 1.8.7, as it wrote them.
const ECHO: &[u8] = include_bytes!("../../../testdata/consul/health-echo.json");
const WEB: &[u8] = include_bytes!("../../../testdata/consul/health-web.json");

#[test]
fn instances_of_a_real_answer() {
    let listing = parse(ECHO, false).unwrap();
    assert_eq!(listing.invalid, []);
    // The sidecar proxy is registered as `echo`, too, and is no instance.
    assert_eq!(
        listing.instances,
        [
            Instance {
                id: InstanceId("n1/echo-1".into()),
                address: "10.0.0.1:8080".parse().unwrap(),
                weight: 5,
                tags: vec!["v1".into()].into(),
                meta: BTreeMap::from([("version".into(), "1".into())]).into(),
                subset: None,
                detail: None,
                health: CatalogHealth::Critical("Service 'echo' check: TTL expired".into()),
            },
            Instance {
                id: InstanceId("n1/echo-2".into()),
                address: "127.0.0.1:8081".parse().unwrap(),
                weight: 1,
                tags: Default::default(),
                meta: Default::default(),
                subset: None,
                detail: None,
                health: CatalogHealth::Maintenance("upgrade".into()),
            },
        ]
    );
}

/// What filters may ask, and nobody else.
#[test]
fn details_of_a_real_answer() {
    let listing = parse(ECHO, true).unwrap();
    let detail = listing.instances[0].detail.clone().unwrap();
    assert_eq!(
        (
            detail.service.as_str(),
            detail.address.as_str(),
            detail.node_address.as_str(),
            detail.datacenter.as_str(),
            detail.weights,
        ),
        ("echo", "10.0.0.1", "127.0.0.1", "dc1", (5, 2))
    );
    assert!(detail.node_meta.contains_key("consul-network-segment"));
    let own: Vec<_> = detail
        .checks
        .iter()
        .filter(|c| c.service_id == "echo-1")
        .collect();
    let [check] = own[..] else {
        panic!("{detail:?}");
    };
    assert_eq!(check.status, "critical");
    assert_eq!(check.output, "TTL expired");
    assert_eq!(check.service_name, "echo");
    assert_eq!(check.service_tags, ["v1"]);
}

#[test]
fn unusable_instances_of_a_real_answer_are_named_and_the_others_stay() {
    let listing = parse(WEB, false).unwrap();
    let [instance] = &listing.instances[..] else {
        panic!("{listing:?}");
    };
    assert_eq!(&*instance.id.0, "n1/old");
    assert_eq!(instance.address.to_string(), "10.0.0.9:8080");
    assert_eq!(instance.health, CatalogHealth::Critical("alive".into()));
    let reasons: Vec<_> = listing.invalid.iter().map(ToString::to_string).collect();
    assert_eq!(
        reasons,
        [
            "address `web.example` of n1/h is not an IP address",
            "port 0 of n1/p0 is not one from 1 to 65535",
        ]
    );
}

/// An entry of `n/s` with these parts in it.
fn entry(node: &str, service: &str, checks: &str) -> String {
    format!(
        r#"[{{"Node":{{"Node":"n"{node}}},"Service":{{"ID":"s"{service}}},"Checks":{checks}}}]"#
    )
}

#[test]
fn addresses_and_ports() {
    let rows = [
        (
            r#","Address":"10.0.0.1""#,
            r#","Port":80"#,
            Ok("10.0.0.1:80"),
        ),
        (
            r#","Address":"10.0.0.1""#,
            r#","Address":"10.0.0.2","Port":80"#,
            Ok("10.0.0.2:80"),
        ),
        (
            r#","Address":"10.0.0.1""#,
            r#","Address":"2001:db8::1","Port":65535"#,
            Ok("[2001:db8::1]:65535"),
        ),
        (
            r#","Address":"::ffff:10.0.0.1""#,
            r#","Port":80"#,
            Ok("10.0.0.1:80"),
        ),
        (
            "",
            r#","Port":80"#,
            Err("n/s has no address, neither its own nor its node's"),
        ),
        (
            r#","Address":"""#,
            r#","Address":"0.0.0.0","Port":80"#,
            Err("address `0.0.0.0` of n/s is not one that a packet can be sent to"),
        ),
        (
            r#","Address":"10.0.0.1""#,
            "",
            Err("port 0 of n/s is not one from 1 to 65535"),
        ),
        (
            r#","Address":"10.0.0.1""#,
            r#","Port":65536"#,
            Err("port 65536 of n/s is not one from 1 to 65535"),
        ),
    ];
    for (node, service, expected) in rows {
        let listing = parse(entry(node, service, "null").as_bytes(), false).unwrap();
        let got = match (&listing.instances[..], &listing.invalid[..]) {
            ([instance], []) => Ok(instance.address.to_string()),
            ([], [invalid]) => Err(invalid.to_string()),
            _ => panic!("{listing:?}"),
        };
        let expected = expected.map(String::from).map_err(String::from);
        assert_eq!(got, expected, "{node} {service}");
    }
}

#[test]
fn the_worst_check_decides() {
    use CatalogHealth::{Critical, Maintenance, Passing, Warning};
    let check = |id: &str, status: &str, notes: &str, output: &str| {
        format!(
            r#"{{"CheckID":"{id}","Name":"check {id}","Status":"{status}","Notes":"{notes}","Output":"{output}"}}"#
        )
    };
    let pass = check("a", "passing", "", "fine");
    let warn = check("b", "warning", "", "slow\\nvery");
    let late = check("c", "warning", "", "other");
    let crit = check("d", "critical", "", "");
    let odd = check("e", "tired", "", "");
    let node = check("_node_maintenance", "critical", "kernel", "");
    let own = check("_service_maintenance:s", "critical", "", "by hand");
    let other = check("_service_maintenance:t", "critical", "", "");
    let rows: [(Vec<&str>, CatalogHealth, u32); 10] = [
        (vec![], Passing, 7),
        (vec![&pass], Passing, 7),
        (vec![&pass, &warn], Warning("check b: slow".into()), 3),
        (vec![&late, &warn], Warning("check b: slow".into()), 3),
        (vec![&warn, &crit, &pass], Critical("check d".into()), 7),
        (vec![&odd, &warn], Critical("check e".into()), 7),
        (vec![&node, &crit], Maintenance("kernel".into()), 7),
        (vec![&crit, &own], Maintenance("by hand".into()), 7),
        (
            vec![&other],
            Critical("check _service_maintenance:t".into()),
            7,
        ),
        (vec![&own, &node], Maintenance("kernel".into()), 7),
    ];
    for (checks, health, weight) in rows {
        let service = r#","Port":1,"Address":"10.0.0.1","Weights":{"Passing":7,"Warning":3}"#;
        let body = entry("", service, &format!("[{}]", checks.join(",")));
        let listing = parse(body.as_bytes(), false).unwrap();
        let instance = &listing.instances[0];
        assert_eq!(
            (&instance.health, instance.weight),
            (&health, weight),
            "{body}"
        );
    }
}

#[test]
fn absent_and_senseless_weights_count_as_one() {
    for weights in ["", r#","Weights":null"#, r#","Weights":{"Passing":0}"#] {
        let service = format!(r#","Port":1,"Address":"10.0.0.1"{weights}"#);
        let listing = parse(entry("", &service, "[]").as_bytes(), false).unwrap();
        assert_eq!(listing.instances[0].weight, 1, "{weights}");
    }
}

#[test]
fn an_entry_of_another_form_is_left_out_and_what_is_no_list_is_refused() {
    let listing = parse(
        br#"[{"Node":{"Node":"n"},"Service":{"ID":"s","Port":"x"}}, 5]"#,
        false,
    );
    let listing = listing.unwrap();
    assert!(listing.instances.is_empty());
    let reasons: Vec<_> = listing.invalid.iter().map(ToString::to_string).collect();
    assert!(
        reasons[0].starts_with("n/s has not the form"),
        "{reasons:?}"
    );
    assert!(
        reasons[1].starts_with("entry 2 has not the form"),
        "{reasons:?}"
    );
    for body in [&b"null"[..], b"{}", b"<html>", b"[{}", b""] {
        assert!(
            parse(body, false).is_err(),
            "{}",
            String::from_utf8_lossy(body)
        );
    }
}
