//! What is wrong outside the services, and how a report looks.

use super::{super::Token, EXAMPLE, NODE, read, refused};

#[test]
fn what_is_wrong_with_the_document() {
    let rows: &[(&str, &[&str])] = &[
        ("▶", &["`interfaces` is missing under [node]"]),
        ("[node▶\nx = 1", &["this is no TOML: unclosed table"]),
        (
            "NODE\nx = ▶",
            &["this is no TOML: string values must be quoted"],
        ),
        (
            "NODE\n[metrics]\n[▶metrics]",
            &["this is no TOML: duplicate key"],
        ),
        (
            "NODE\n[▶metric]",
            &["unknown key `metric`; did you mean `metrics`?"],
        ),
        (
            "NODE\n[▶zones]",
            &[
                "unknown key `zones`; known here are node, consul, docker, metrics, page, dtab, block, service, proxy",
            ],
        ),
        (
            "NODE\n▶[service]\nname = \"a\"",
            &["write [[service]] with double brackets"],
        ),
        ("service = [▶1]\nNODE", &["must be a table, not an integer"]),
        ("metrics = ▶\"x\"\nNODE", &["must be a table, not a string"]),
        ("NODE\n[metrics]\nlisten = ▶\"9180\"", &["write IP:PORT"]),
        ("NODE\n[metrics]\n▶port = 1", &["known here are listen"]),
        (
            "NODE\n[dtab]\nlisten = ▶\"0.0.0.0:4180\"\nnamespace = ▶\"a/b\"\n▶port = 1",
            &[
                "whoever gets there may shift traffic",
                "no name",
                "known here are listen, namespace",
            ],
        ),
    ];
    for (marked, words) in rows {
        refused(marked, words);
    }
}

#[test]
fn what_is_wrong_with_the_node() {
    let rows: &[(&str, &[&str])] = &[
        ("▶[node]", &["`interfaces` is missing"]),
        (
            "[node]\ninterfaces = ▶[]",
            &["must name 1 to 16 interfaces"],
        ),
        (
            "[node]\ninterfaces = ▶\"eth0\"",
            &["must be a list in [ ], not a string"],
        ),
        ("[node]\ninterfaces = [▶1]", &["must be a string in quotes"]),
        (
            "NODE\ndecapsulate = ▶\"192.0.2.1\"",
            &["must be a list in [ ], not a string"],
        ),
        (
            "NODE\ndecapsulate = [▶\"192.0.2.1:80\", ▶\"127.0.0.1\", \"192.0.2.1\", ▶\"192.0.2.1\"]",
            &[
                "without a port",
                "cannot be a VIP",
                "192.0.2.1 is named twice",
            ],
        ),
        (
            "NODE\ndecapsulate_from = ▶[\"10.0.0.0/8\"]",
            &["but there are none; name them, or remove this"],
        ),
        (
            "NODE\ndecapsulate = [\"192.0.2.1\"]\ndecapsulate_from = [▶\"10.0.0.0/40\"]",
            &["neither an IP address nor a prefix"],
        ),
        (
            "NODE\ndecapsulate = [\"2001:db8::1\"]\ndecapsulate_from = ▶[\"10.0.0.0/8\"]",
            &["no IPv6 node may send for it"],
        ),
        (
            "[node]\ninterfaces = [▶\"\"]",
            &["is no name of an interface"],
        ),
        (
            "[node]\ninterfaces = [▶\"a b\"]",
            &["is no name of an interface"],
        ),
        (
            "[node]\ninterfaces = [▶\"a/b\"]",
            &["is no name of an interface"],
        ),
        (
            "[node]\ninterfaces = [▶\"sixteen_letters_\"]",
            &["is no name of an interface"],
        ),
        (
            "[node]\ninterfaces = [\"a\",\n \"b\",\n ▶\"a\"]",
            &["interface `a` is named twice"],
        ),
        (
            "[node]\ninterfaces = ▶['0','1','2','3','4','5','6','7','8','9','a','b','c','d','e',\
             'f','g']",
            &["must name 1 to 16 interfaces"],
        ),
        (
            "[node]\n▶interfces = [\"a\"]\ninterfaces = [\"a\"]",
            &["did you mean `interfaces`?"],
        ),
        (
            "NODE\nxdp_mode = ▶\"skb\"",
            &["use `auto`, `native`, `generic` or `off`"],
        ),
        (
            "NODE\nannounce = [▶\"eth9\"]",
            &["`eth9` is not one of `interfaces`"],
        ),
        ("NODE\nannounce = ▶true", &["must be a list in [ ]"]),
        (
            "NODE\nxdp_mode = ▶true",
            &["must be a string in quotes, not a boolean"],
        ),
        (
            "NODE\nstate_dir = ▶\"state\"",
            &["must be an absolute path"],
        ),
        ("NODE\nruntime_dir = ▶\"\"", &["must be an absolute path"]),
        ("NODE\nbpf_dir = ▶1", &["must be a string"]),
        ("NODE\nuser = ▶\"\"", &["must not be empty"]),
        ("NODE\nuser = ▶0", &["must be a string"]),
        (
            "NODE\nlocal_clients = ▶\"yes\"",
            &["must be true or false, not a string"],
        ),
        ("NODE\nlocal_clients = ▶1", &["must be true or false"]),
        (
            "NODE\ncgroup = ▶\"user.slice\"",
            &["must be an absolute path"],
        ),
        ("NODE\ncgroup = ▶true", &["must be a string"]),
        (
            "NODE\n▶local_client = true",
            &["did you mean `local_clients`?"],
        ),
        (
            "NODE\nflow_slots = ▶1000",
            &["whole number from 1024 to 16777216"],
        ),
        (
            "NODE\nflow_slots = ▶33554432",
            &["whole number from 1024 to 16777216"],
        ),
        ("NODE\nflow_slots = ▶5000", &["near 5000 are 4096 and 8192"]),
        ("NODE\nflow_slots = ▶\"4096\"", &["not a string"]),
        ("NODE\nnew_flows = ▶0", &["1"]),
        (
            "NODE\nnew_flows = ▶\"many\"",
            &["`many` is no budget for new flows"],
        ),
        (
            "NODE\nnat_ports = ▶\"40000\"",
            &["write \"auto\" or \"FIRST-LAST\""],
        ),
        (
            "NODE\nnat_ports = ▶\"40000-70000\"",
            &["write \"auto\" or \"FIRST-LAST\""],
        ),
        (
            "NODE\nnat_ports = ▶\"40001-40000\"",
            &["not above the last"],
        ),
        ("NODE\nnat_ports = ▶\"80-90\"", &["must be at least 1024"]),
        ("NODE\nnat_ports = ▶40000", &["must be a string"]),
    ];
    for (marked, words) in rows {
        refused(marked, words);
    }
}

#[test]
fn what_is_wrong_with_consul() {
    let rows: &[(&str, &[&str])] = &[
        (
            "NODE\n[consul]\naddress = ▶\"unix:///run/consul\"",
            &["Unix sockets are not supported"],
        ),
        (
            "NODE\n[consul]\naddress = ▶\"ftp://a:1\"",
            &["`ftp` is no way to reach Consul"],
        ),
        ("NODE\n[consul]\naddress = ▶\"\"", &["must not be empty"]),
        (
            "NODE\n[consul]\naddress = ▶\"http://\"",
            &["write http://HOST:PORT"],
        ),
        (
            "NODE\n[consul]\naddress = ▶\"http://:8500\"",
            &["write http://HOST:PORT"],
        ),
        (
            "NODE\n[consul]\naddress = ▶\"http://a:99999\"",
            &["write http://HOST:PORT"],
        ),
        (
            "NODE\n[consul]\naddress = ▶\"http://a:0\"",
            &["write http://HOST:PORT"],
        ),
        (
            "NODE\n[consul]\naddress = ▶\"http://u:p@a:1\"",
            &["without user or path"],
        ),
        (
            "NODE\n[consul]\naddress = ▶\"http://a:1/v1\"",
            &["without user or path"],
        ),
        (
            "NODE\n[consul]\naddress = ▶\"a b:1\"",
            &["write http://HOST:PORT"],
        ),
        ("NODE\n[consul]\ntoken = ▶7", &["must be a string"]),
        (
            "NODE\n[consul]\ntoken = \"t\"\ntoken_file = ▶\"/t\"",
            &["`token` and `token_file` are both given"],
        ),
        (
            "NODE\n[consul]\ntoken_file = ▶\"t\"",
            &["must be an absolute path"],
        ),
        (
            "NODE\n[consul]\nclient_cert = ▶\"/c\"",
            &["a client certificate needs its key"],
        ),
        (
            "NODE\n[consul]\nclient_key = ▶\"/k\"",
            &["a client key needs its certificate"],
        ),
        ("NODE\n[consul]\nwait = ▶\"31s\"", &["from 1s to 30s"]),
        ("NODE\n[consul]\nwait = ▶\"0s\"", &["from 1s to 30s"]),
        ("NODE\n[consul]\nwait = ▶30", &["from 1s to 30s"]),
        ("NODE\n[consul]\nhold = ▶\"2days\"", &["from 0s to 1day"]),
        (
            "NODE\n[consul]\nauto_publish = ▶\"yes\"",
            &["must be true or false"],
        ),
        (
            "NODE\n[consul]\nauto_publish = ▶[]",
            &["or a list of prefixes"],
        ),
        (
            "NODE\n[consul]\nauto_publish = [▶\"everywhere\"]",
            &["`everywhere` is neither an IP address nor a prefix"],
        ),
        (
            "NODE\n[consul]\n▶proxy = 1",
            &["known here are address, token, token_file"],
        ),
        (
            "NODE\n[consul]\n▶adress = \"a\"",
            &["did you mean `address`?"],
        ),
    ];
    for (marked, words) in rows {
        refused(marked, words);
    }
}

/// All findings at once, as a person sees them.
#[test]
fn the_whole_report() {
    let text = "[node]\ninterfaces = []\n\n[[service]]\nname = \"echo\"\n\
                vip = [\"198.51.100.10\"]\nprotocol = \"sctp\"\nbackend = []\n";
    let expected = "\
lb.toml:2:14: must name 1 to 16 interfaces
2 | interfaces = []
  |              ^^
lb.toml:4:1: the service has no backends; add consul = { service = \"NAME\" } or backends = \
[{ address = \"IP:PORT\" }]
4 | [[service]]
  | ^^^^^^^^^^^
lb.toml:6:8: `198.51.100.10` is no address with a port; add the port, as in 198.51.100.10:80
6 | vip = [\"198.51.100.10\"]
  |        ^^^^^^^^^^^^^^^
lb.toml:7:12: `sctp` is no protocol; use `tcp`, `udp`, `http` or `grpc`
7 | protocol = \"sctp\"
  |            ^^^^^^
lb.toml:8:1: unknown key `backend`; did you mean `backends`?
8 | backend = []
  | ^^^^^^^";
    assert_eq!(read(text, &[]).unwrap_err().to_string(), expected);
}

/// Whatever is wrong near a token, the token is not printed.
#[test]
fn tokens_are_not_printed() {
    for line in [
        "token = \"secret",
        "token = \" secret\"",
        "token = [\"secret\"]",
    ] {
        let text = format!("{NODE}\n[consul]\n{line}\n");
        let error = read(&text, &[]).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
    let text = format!("{NODE}\n[consul]\ntoken = \"secret\"\n");
    let config = read(&text, &[]).unwrap();
    assert!(!format!("{config:?}").contains("secret"));
    assert_eq!(config.consul.unwrap().token, Token::Inline("secret".into()));
}

/// A file cut off anywhere, or with one character put in the wrong place, is accepted or refused
/// with a place; a fault of the reader would show as a panic.
#[test]
fn damage_is_never_worse_than_a_finding() {
    let mut refusals = 0;
    for (index, _) in EXAMPLE.char_indices() {
        let (head, tail) = EXAMPLE.split_at(index);
        for text in [
            head.to_owned(),
            format!("{head}\"{tail}"),
            format!("{head}ä{tail}"),
            format!("{head}\n{tail}"),
        ] {
            if let Err(error) = read(&text, &[]) {
                refusals += 1;
                let error = error.to_string();
                assert!(error.starts_with("lb.toml:"), "{text}\n{error}");
            }
        }
    }
    assert!(refusals > EXAMPLE.len());
}
