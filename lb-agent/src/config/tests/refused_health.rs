//! What is wrong with a service's `health`.

use super::refused;

#[test]
fn what_is_wrong_with_health() {
    let rows: &[(&str, &[&str])] = &[
        ("health = ▶\"tcp\"", &["must be a table"]),
        ("health = ▶{ }", &["`kind` is missing"]),
        (
            "health = { kind = ▶\"icmp\" }",
            &["use `tcp`, `http`, `grpc` or `none`"],
        ),
        (
            "health = { kind = ▶\"https\" }",
            &["kind = \"http\" with tls = true"],
        ),
        (
            "health = { kind = \"grpc\", path = ▶\"/\", status = ▶200, body = ▶\"x\" }",
            &[
                "`path` belongs to probes of kind \"http\"",
                "`status` belongs",
                "`body` belongs",
            ],
        ),
        (
            "health = { kind = \"http\", path = \"/\", service = ▶\"a\" }",
            &["`service` belongs to probes of kind \"grpc\""],
        ),
        (
            "health = { kind = \"none\", tls = ▶true }",
            &["`tls` belongs to probes of kind \"http\" or \"grpc\""],
        ),
        (
            "health = { kind = \"grpc\", service = ▶\"a b\" }",
            &["no name of a gRPC service"],
        ),
        (
            "health = { kind = \"http\", path = \"/\", status = ▶[] }",
            &["lets no answer pass"],
        ),
        (
            "health = { kind = \"http\", path = \"/\", body = ▶\"\" }",
            &["a text of 1 to 1024 bytes"],
        ),
        (
            "health = { kind = \"grpc\", tls = ▶{ client_cert = \"/c\" } }",
            &["belong together"],
        ),
        (
            "health = { kind = \"grpc\", tls = ▶{ ca_cert = \"/c\", insecure = true } }",
            &["takes any certificate"],
        ),
        (
            "health = { kind = \"grpc\", tls = { ca_cert = ▶\"c\", server_name = ▶\"a b\" } }",
            &["absolute path", "is no DNS name and no address"],
        ),
        (
            "health = { kind = \"grpc\", tls = { ▶verify = false } }",
            &["unknown key `verify`"],
        ),
        (
            "health = { kind = \"tcp\", panic = ▶101, slow_start = ▶\"2h\" }",
            &["from 0 to 100", "from 0s to 1h"],
        ),
        (
            "health = { kind = \"tcp\", passive = { failures = ▶0, eject = ▶\"10ms\" } }",
            &["from 1 to 100", "from 1s to 1day"],
        ),
        (
            "health = { kind = \"tcp\", passive = { eject = \"1m\", eject_max = ▶\"30s\" } }",
            &["may not be shorter than the first, which is 1m"],
        ),
        (
            "health = { kind = \"tcp\", passive = ▶\"yes\" }",
            &["must be a table"],
        ),
        ("health = ▶{ kind = \"http\" }", &["`path` is missing"]),
        (
            "health = { kind = \"http\", path = ▶\"health\" }",
            &["must begin with /"],
        ),
        (
            "health = { kind = \"http\", path = ▶\"/a b\" }",
            &["have no blanks"],
        ),
        (
            "health = { kind = \"http\", path = \"/\", host = ▶\"a b\" }",
            &["is no host"],
        ),
        (
            "health = { kind = \"http\", path = \"/\", host = ▶\"\" }",
            &["is no host"],
        ),
        (
            "health = { kind = \"http\", path = \"/\", status = ▶99 }",
            &["from 100 to 599"],
        ),
        (
            "health = { kind = \"http\", path = \"/\", status = ▶\"300-200\" }",
            &["100 to 599"],
        ),
        (
            "health = { kind = \"http\", path = \"/\", status = ▶\"200-600\" }",
            &["100 to 599"],
        ),
        (
            "health = { kind = \"http\", path = \"/\", status = [200, ▶99] }",
            &["100 to 599"],
        ),
        (
            "health = { kind = \"tcp\", path = ▶\"/\", host = ▶\"a\", status = ▶200 }",
            &[
                "`path` belongs to probes of kind \"http\"",
                "`host` belongs",
                "`status` belongs",
            ],
        ),
        (
            "health = { kind = \"tcp\", interval = ▶\"49ms\" }",
            &["from 50ms to 1h"],
        ),
        (
            "health = { kind = \"tcp\", interval = ▶\"2h\" }",
            &["from 50ms to 1h"],
        ),
        (
            "health = { kind = \"tcp\", timeout = ▶\"10s\" }",
            &["interval of 5s"],
        ),
        (
            "health = { kind = \"tcp\", interval = \"1s\", timeout = ▶\"1001ms\" }",
            &["lower `timeout` or raise `interval`"],
        ),
        ("health = { kind = \"tcp\", rise = ▶0 }", &["from 1 to 100"]),
        (
            "health = { kind = \"tcp\", fall = ▶101 }",
            &["from 1 to 100"],
        ),
        (
            "health = { kind = \"tcp\", port = ▶0 }",
            &["from 1 to 65535"],
        ),
        (
            "health = { kind = \"tcp\", ▶retries = 1 }",
            &["unknown key `retries`"],
        ),
    ];
    for (marked, words) in rows {
        refused(&format!("NODE\nSERVICE\nbackends = []\n{marked}"), words);
    }
}
