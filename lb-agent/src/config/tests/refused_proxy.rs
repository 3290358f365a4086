//! What is wrong with `[proxy]`.

use super::refused;

#[test]
fn what_is_wrong_with_the_proxy() {
    let rows: &[(&str, &[&str])] = &[
        ("listen = ▶\":80\"", &["must be a list in [ ]"]),
        (
            "listen = [▶\"80\", ▶\":x\", ▶\":0\", ▶7, ▶{ }]",
            &[
                "write IP:PORT",
                "write :PORT",
                "port 0",
                "must be a table",
                "`address` is missing",
            ],
        ),
        (
            "listen = [{ address = \":443\", tls = ▶[] }]",
            &["a list of certificates"],
        ),
        (
            "listen = [{ address = \":443\", tls = [{ cert = ▶\"a\", key = \"/k\" }, ▶{ cert = \"/c\" }], \
             proxy_protocol = ▶1, ▶cert = \"/c\" }]",
            &[
                "absolute path",
                "`key` is missing",
                "must be true or false",
                "unknown key `cert`",
            ],
        ),
        (
            "threads = ▶0\npin = ▶1\ntrusted = [▶\"x\"]\nshutdown = ▶\"2h\"",
            &[
                "from 1 to 1024",
                "must be true or false",
                "neither an IP address",
                "from 0s to 1h",
            ],
        ),
        (
            "bounds = { connections = ▶0, per_client = ▶0, head = ▶1, headers = ▶1, streams = ▶0, \
             head_timeout = ▶\"1ms\", keep_alive = ▶\"2days\", ▶bodies = 1 }",
            &[
                "from 1 to",
                "from 1 to",
                "from 8192",
                "from 16",
                "from 1 to 65536",
                "from 1s to 1h",
                "from 1s to 1day",
                "unknown key `bodies`",
            ],
        ),
        (
            "access_log = { file = ▶\"a.log\", format = ▶\"clf\" }",
            &["absolute path", "use `json` or `combined`"],
        ),
        (
            "access_log = ▶{ stderr = false }",
            &["this log goes nowhere"],
        ),
        (
            "traces = ▶{ transport = ▶\"udp\", sample = ▶1.5 }",
            &[
                "`endpoint` is missing",
                "does not carry traces",
                "a number from 0 to 1",
            ],
        ),
        (
            "traces = { endpoint = ▶\"localhost:4317\" }",
            &["no receiver of traces"],
        ),
        // What listens elsewhere.
        (
            "listen = [\":80\", ▶\"0.0.0.0:80\"]",
            &["already listens on [::]:80 (line 4)"],
        ),
        (
            "listen = [\"10.0.0.1:80\", \"10.0.0.2:80\", ▶\"0.0.0.0:80\"]",
            &["already listens on 10.0.0.1:80"],
        ),
        (
            "listen = [▶\":9180\"]",
            &["127.0.0.1:9180 is where metrics are served"],
        ),
        (
            "listen = [▶\"127.0.0.1:4180\"]\n[dtab]",
            &["127.0.0.1:4180 is where delegation tables are served"],
        ),
        (
            "listen = [\":80\", ▶\"198.51.100.10:81\"]\n[[service]]\nname = \"a\"\nbackends = []\n\
             vip = [\"198.51.100.10:80\", \"198.51.100.10:81\"]",
            &["clients connect to for service `a` (line 8)"],
        ),
    ];
    for (marked, words) in rows {
        refused(&format!("NODE\n[proxy]\n{marked}"), words);
    }
}
