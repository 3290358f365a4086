//! What is wrong with services.

use super::{expand, read, refused};

#[test]
fn what_is_wrong_with_a_service() {
    let rows: &[(&str, &[&str])] = &[
        (
            "NODE\n▶▶▶[[service]]",
            &[
                "`name` is missing",
                "`vip` is missing",
                "the service has no backends",
            ],
        ),
        (
            "NODE\n[[service]]\nname = ▶\"a b\"\nvip = [\"192.0.2.1:80\"]\nbackends = []",
            &["no name"],
        ),
        (
            "NODE\n[[service]]\nname = \"a\"\nvip = ▶[]\nbackends = []",
            &["at least one address"],
        ),
        (
            "NODE\n[[service]]\nname = \"a\"\nvip = ▶\"192.0.2.1:80\"\nbackends = []",
            &["must be a list in [ ]"],
        ),
        (
            "NODE\n[[service]]\nname = \"a\"\nbackends = []\nvip = [\n  \"192.0.2.1:80\",\n  \
             ▶\"192.0.2.2\",\n  ▶\"127.0.0.1:80\",\n]",
            &["add the port, as in 192.0.2.2:80", "loopback"],
        ),
        (
            "NODE\nSERVICE\nbackends = []\nprotocol = ▶\"sctp\"",
            &["use `tcp`, `udp`, `http` or `grpc`"],
        ),
        (
            "NODE\nSERVICE\nbackends = [{ address = ▶\"10.0.0.1:8080\" }, { address = \"10.0.0.2:80\" }]\n\
             forwarding = \"dsr-l2\"",
            &[
                "`dsr-l2` cannot translate ports: the backend would have to listen on the VIP's port 80",
            ],
        ),
        (
            "NODE\n[[service]]\nname = \"a\"\nvip = [\"192.0.2.1:80\", ▶\"192.0.2.1:443\"]\nbackends = []\n\
             forwarding = \"dsr-ipip\"",
            &["need port 80; make another service for port 443"],
        ),
        (
            "NODE\nSERVICE\nbackends = []\nforwarding = ▶\"masq\"",
            &["is no way of forwarding; use `nat`, `dsr-l2` or `dsr-ipip`"],
        ),
        (
            "NODE\nSERVICE\nbackends = []\naffinity = ▶\"cookie\"",
            &["`cookie` is no affinity; use `client`"],
        ),
        (
            "NODE\nSERVICE\nbackends = []\nallow = ▶\"10.0.0.0/8\"",
            &["must be a list in [ ]"],
        ),
        (
            "NODE\nSERVICE\nbackends = []\nallow = [\"10.0.0.0/8\", ▶\"10.0.0.0/33\", ▶7]",
            &["neither an IP address nor a prefix", "must be a string"],
        ),
        (
            "NODE\nSERVICE\nbackends = []\nallow = ▶[]",
            &["no IPv4 client is allowed; name those who are, or \"0.0.0.0/0\" for all"],
        ),
        (
            "NODE\nSERVICE\nbackends = []\nallow = ▶[\"2001:db8::/32\"]",
            &["the service has an IPv4 address for clients, but no IPv4 client is allowed"],
        ),
        (
            "NODE\n[[service]]\nname = \"a\"\nvip = [\"[2001:db8::1]:80\"]\nbackends = []\n\
             allow = ▶[\"10.0.0.0/8\"]",
            &["no IPv6 client is allowed; name those who are, or \"::/0\" for all"],
        ),
        (
            "NODE\nSERVICE\nbackends = []\ngate = { window = ▶\"100ms\", fail = ▶0, healthy = ▶101, \
             errors = ▶-1, latency = ▶5, connections = ▶0, cooldown = ▶\"25h\", ▶colour = 1 }",
            &[
                "from 1s to 1h",
                "from 1 to 100",
                "from 0 to 100",
                "from 0 to 100",
                "must be a duration",
                "from 1 to 1000000",
                "from 0s to 1day",
                "unknown key `colour`",
            ],
        ),
        (
            "NODE\nSERVICE\nbackends = []\n▶vips = []",
            &["did you mean `vip`?"],
        ),
        (
            "NODE\n[consul]\nSERVICE\nconsul = { service = \"a\" }\nbackends = ▶[]",
            &["not from both"],
        ),
        (
            "NODE\nSERVICE\nconsul = ▶{ service = \"a\" }",
            &["there is no section [consul]"],
        ),
        (
            "NODE\n[consul]\nSERVICE\nconsul = ▶{ }",
            &["`service` is missing"],
        ),
        (
            "NODE\n[consul]\nSERVICE\nconsul = { service = ▶\"\" }",
            &["must not be empty"],
        ),
        (
            "NODE\n[consul]\nSERVICE\nconsul = ▶\"a\"",
            &["must be a table, not a string"],
        ),
        (
            "NODE\n[consul]\nSERVICE\nconsul = { service = \"a\", ▶tag = \"b\" }",
            &["unknown key `tag`; known here are service"],
        ),
    ];
    for (marked, words) in rows {
        refused(marked, words);
    }
}

#[test]
fn what_is_wrong_with_backends() {
    let rows: &[(&str, &[&str])] = &[
        ("backends = ▶{ }", &["must be a list"]),
        (
            "backends = [▶\"10.0.0.1:80\"]",
            &["must be a table, not a string"],
        ),
        ("backends = [▶{ weight = 1 }]", &["`address` is missing"]),
        (
            "backends = [{ address = ▶\"10.0.0.1\" }]",
            &["add the port"],
        ),
        ("backends = [{ address = ▶\"10.0.0.1:0\" }]", &["port 0"]),
        (
            "backends = [{ address = ▶\"224.0.0.1:80\" }]",
            &["multicast"],
        ),
        (
            "backends = [{ address = ▶\"[2001:db8::1]:80\" }]",
            &["has no IPv6 address for clients"],
        ),
        (
            "backends = [{ address = \"10.0.0.1:80\" },\n{ address = ▶\"10.0.0.1:80\" }]",
            &["10.0.0.1:80 is already listed in line 6"],
        ),
        (
            "backends = [{ address = \"10.0.0.1:80\", weight = ▶65536 }]",
            &["whole number from 0 to 65535"],
        ),
        (
            "backends = [{ address = \"10.0.0.1:80\", subset = ▶\"a b\" }]",
            &["no name"],
        ),
        (
            "backends = [{ address = \"10.0.0.1:80\", tags = ▶\"a\" }]",
            &["must be a list"],
        ),
        (
            "backends = [{ address = \"10.0.0.1:80\", tags = [▶1] }]",
            &["must be a string"],
        ),
        (
            "backends = [{ address = \"10.0.0.1:80\", meta = { a = ▶1 } }]",
            &["must be a string"],
        ),
        (
            "backends = [{ address = \"10.0.0.1:80\", ▶wieght = 1 }]",
            &["did you mean `weight`?"],
        ),
        (
            "backends = [{ address = ▶\"198.51.100.10:80\" }]",
            &["where clients connect to for service `echo` (line 5)"],
        ),
        (
            "[[service.backends]]\naddress = \"10.0.0.1:80\"\n▶port = 80",
            &["unknown key `port`"],
        ),
    ];
    for (marked, words) in rows {
        refused(&format!("NODE\nSERVICE\n{marked}"), words);
    }
}

#[test]
fn what_is_wrong_with_subsets_and_splits() {
    let rows: &[(&str, &[&str])] = &[
        ("subsets = ▶[]", &["must be a table, not an array"]),
        (
            "subsets = { v1 = ▶\"v1\" }",
            &["must be a table, not a string"],
        ),
        ("subsets = { v1 = ▶{ } }", &["a subset without a condition"]),
        (
            "subsets = { v1 = ▶{ meta = { } } }",
            &["a subset without a condition"],
        ),
        ("subsets = { ▶\"v 1\" = { tag = \"a\" } }", &["no name"]),
        ("subsets = { v1 = { tag = ▶1 } }", &["must be a string"]),
        (
            "subsets = { v1 = { filter = ▶\"Node.Zone == b\" } }",
            &["`Node.Zone` is not known here; use Service.Tags"],
        ),
        (
            "subsets = { v1 = { ▶tags = \"a\" } }",
            &["did you mean `tag`?"],
        ),
        (
            "split = { ▶v1 = 1 }",
            &["there is no subset `v1`; define it under `subsets`"],
        ),
        (
            "subsets = { v1 = { tag = \"a\" } }\nsplit = { v1 = 90, ▶v2 = 10 }",
            &["there is no subset `v2`; the service has v1"],
        ),
        (
            "subsets = { v1 = { tag = \"a\" } }\nsplit = { v1 = ▶10001 }",
            &["whole number from 0 to 10000"],
        ),
        (
            "subsets = { v1 = { tag = \"a\" } }\nsplit = { v1 = ▶0.5 }",
            &["not a float"],
        ),
        (
            "subsets = { v1 = { tag = \"a\" } }\nsplit = ▶{ v1 = 0 }",
            &["all shares are 0"],
        ),
        ("split = ▶{ }", &["at least one subset"]),
    ];
    for (marked, words) in rows {
        refused(&format!("NODE\nSERVICE\nbackends = []\n{marked}"), words);
    }
}

#[test]
fn what_services_may_not_share() {
    let second = "[[service]]\nname = \"two\"\nbackends = []\nvip =";
    let rows: &[(String, &[&str])] = &[
        (
            "[[service]]\nname = ▶\"echo\"\nvip = [\"198.51.100.10:81\"]\nbackends = []".into(),
            &["there is already a service `echo` in line 4; choose another name"],
        ),
        (
            format!("{second} [\"192.0.2.1:80\", ▶\"198.51.100.10:80\"]"),
            &["198.51.100.10:80 (tcp) already belongs to service `echo` in line 5"],
        ),
        (
            format!("{second} [\"192.0.2.1:80\", ▶\"192.0.2.1:80\"]"),
            &["192.0.2.1:80 (tcp) already belongs to service `two` in line 10"],
        ),
        (
            "[[service]]\nname = \"two\"\nvip = [\"192.0.2.1:80\"]\n\
             backends = [{ address = ▶\"198.51.100.10:80\" }]"
                .into(),
            &["for service `echo` (line 5)"],
        ),
    ];
    for (marked, words) in rows {
        refused(&format!("NODE\nSERVICE\nbackends = []\n{marked}"), words);
    }
    // The same address and port over another protocol is another VIP.
    let text = format!("{second} [\"198.51.100.10:80\"]\nprotocol = \"udp\"");
    let text = expand(&format!("NODE\nSERVICE\nbackends = []\n{text}"));
    assert_eq!(read(&text, &[]).unwrap().services.len(), 2);
}
