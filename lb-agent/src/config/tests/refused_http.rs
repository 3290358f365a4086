//! What is wrong with the treatment of requests.

use super::refused;

const HTTP: &str = "NODE\n[[service]]\nname = \"web\"\nprotocol = \"http\"\nbackends = []\n";

#[test]
fn what_is_wrong_with_the_treatment_of_requests() {
    let rows: &[(&str, &[&str])] = &[
        ("hosts = ▶\"web.example\"", &["must be a list in [ ]"]),
        (
            "hosts = [\"web.example\", ▶\"*\", ▶\"a b\", ▶\"web.example:80\"]",
            &["no name of a host", "no name of a host", "names a port"],
        ),
        (
            "timeouts = { connect = ▶\"0s\", per_try = ▶\"30s\", ▶ttl = \"1s\" }",
            &[
                "from 1ms to 1h",
                "all of them, which have 15s",
                "did you mean `total`?",
            ],
        ),
        (
            "retry = { retries = ▶11, on_status = [503, ▶200], on_grpc = ▶14, budget = ▶-1, backoff = ▶\"2m\" }",
            &[
                "from 0 to 10",
                "from 400 to 599",
                "must be a list in [ ]",
                "from 0 to 1000",
                "from 0s to 1m",
            ],
        ),
        ("hedge = ▶{ }", &["`after` is missing"]),
        (
            "limits = { connections = ▶0, pending = 0, body = ▶\"1M\" }",
            &["from 1 to 10000000", "not a string"],
        ),
        (
            "rate_limit = [▶{ per = \"1s\" }, { requests = ▶0 }, { requests = 1, by = ▶\"user\" }, \
             { requests = 1, by = ▶{ }, except = [▶\"x\"], path = ▶\"x\" }, ▶7]",
            &[
                "`requests` is missing",
                "whole number from 1",
                "tells no requests apart",
                "`header` is missing",
                "neither an IP address",
                "is no path",
                "must be a table",
            ],
        ),
        ("balance = ▶\"random\"", &["is no way of balancing"]),
        (
            "balance = ▶{ header = \"a\", cookie = \"b\" }",
            &["not by both"],
        ),
        ("balance = { cookie = ▶\"a b\" }", &["no name of a cookie"]),
        (
            "upstream = { version = ▶\"3\", proxy_protocol = ▶3, host = ▶\"a b\", tls = ▶1, warm = ▶-1, ▶port = 1 }",
            &[
                "is no version of HTTP",
                "from 1 to 2",
                "is no host",
                "must be a table",
                "from 0 to 1000",
                "unknown key `port`",
            ],
        ),
        (
            "forwarding = ▶\"dsr-l2\"",
            &["speak to the proxy; use `nat`"],
        ),
        (
            "affinity = ▶\"client\"",
            &["use balance = { cookie = \"NAME\" }"],
        ),
    ];
    for (marked, words) in rows {
        refused(&format!("{HTTP}{marked}"), words);
    }
}

#[test]
fn what_is_wrong_with_routes() {
    let rows: &[(&str, &[&str])] = &[
        ("▶{ }", &["must be a list of tables"]),
        ("[▶\"/api\"]", &["must be a table"]),
        (
            "[{ path = ▶\"api\", methods = [▶\"GE T\"] }]",
            &["must begin with /", "is no method"],
        ),
        (
            "[{ path = \"/a\", path_prefix = ▶\"/b\" }]",
            &["only one can be given"],
        ),
        (
            "[{ path_regex = ▶\"(\" }]",
            &["`(` cannot be used: unclosed group"],
        ),
        (
            "[{ path_regex = ▶\"/a)|(?:/b\" }]",
            &["`/a)|(?:/b` cannot be used: unopened group"],
        ),
        (
            "[{ rewrite = ▶\"/b\", path_regex = \"/a\" }]",
            &["needs `path` or `path_prefix`"],
        ),
        (
            "[{ headers = { ▶\"a b\" = \"1\", x = ▶7, y = ▶{ }, z = { exact = \"a\", regex = ▶\"b\" } } }]",
            &[
                "no name of a header",
                "must be a text, true or false",
                "names no condition",
                "only one can be given",
            ],
        ),
        (
            "[{ query = { v = { ▶perfix = \"a\", exact = \"b\" } } }]",
            &["did you mean `prefix`?"],
        ),
        (
            "[{ service = ▶\"a b\", subset = ▶\"\", retries = ▶11, retry_on = [▶99], timeout = ▶5 }]",
            &[
                "no name",
                "no name",
                "from 0 to 10",
                "from 400 to 599",
                "must be a duration",
            ],
        ),
    ];
    for (marked, words) in rows {
        refused(&format!("{HTTP}routes = {marked}"), words);
    }
}

#[test]
fn connections_know_no_requests() {
    let rows = [
        "hosts = ▶[]",
        "routes = ▶[]",
        "timeouts = ▶{ }",
        "retry = ▶{ }",
        "hedge = ▶{ }",
        "limits = ▶{ }",
        "rate_limit = ▶[]",
        "balance = ▶\"peak-ewma\"",
        "upstream = ▶{ }",
    ];
    for protocol in ["tcp", "udp"] {
        for marked in rows {
            let text = format!("NODE\nSERVICE\nbackends = []\nprotocol = \"{protocol}\"\n{marked}");
            let word = format!("with protocol {protocol} the node sees connections only");
            refused(&text, &[&word]);
        }
    }
}
