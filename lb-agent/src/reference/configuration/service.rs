//! `[[service]]` and what of it is about backends and their health.

use super::schema::{
    Absent::{Is, Means, Refused},
    Kind::{Boolean, Duration, Integer, OrTable, Other, Path, Table, Tables, Words},
    Section, key,
};

const HTTP: &[(&str, &str)] = &[("protocol", "\"http\"")];

// A table: what rustfmt makes of it has four times the lines.
#[rustfmt::skip]
pub(super) const SECTIONS: &[Section] = &[
    Section {
        path: "service",
        help: "A service: where clients connect to, and who serves them. Written `[[service]]`, as often as there are \
               services.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[consul]\n[[service]]\n",
        given: &[("name", "\"echo\""), ("vip", "[\"198.51.100.10:80\"]"), ("backends", "[]")],
        keys: &[
            key("name", Other("1 to 63 letters, digits, `_`, `.`, `-`"), Refused(""), "\"web\"",
                "Its name here, in metrics and, for requests, its host."),
            key("vip", Other("`IP:PORT`, one or more"), Refused("unless the protocol is `http` or `grpc`"),
                "[\"198.51.100.11:80\", \"[2001:db8::1]:80\"]", "Where clients connect to."),
            key("protocol", Words(&["tcp", "udp", "http", "grpc"]), Is("\"tcp\""), "\"udp\"",
                "`http` and `grpc` go through the proxy; backends of `grpc` speak HTTP/2."),
            key("forwarding", Words(&["nat", "dsr-l2", "dsr-ipip"]), Is("\"nat\""), "\"dsr-l2\"",
                "Full NAT, or direct server return: backends answer the clients themselves."),
            key("affinity", Words(&["connection", "client"]), Is("\"connection\""), "\"client\"",
                "What chooses the backend: each connection, or a client's address."),
            key("allow", Other("prefixes"), Means("everybody"), "[\"10.0.0.0/8\"]",
                "Who may connect; of each family that there are VIPs of."),
            key("backends", Tables("service.backends"), Refused("this or `consul`"), "[{ address = \"10.77.1.2:80\" }]",
                "Backends, in the file itself."),
            key("consul", Table("service.consul"), Refused("this or `backends`"), "{ service = \"echo\" }",
                "Backends, from Consul.")
                .beside(&[("backends", "")]),
            key("subsets", Table("service.subsets.NAME"), Means("those that `backends` name, or Consul's resolver"), "{ v1 = { tag = \"v1\" } }",
                "Parts of the backends that a split shares traffic among; the keys are names."),
            key("split", Other("shares by subset"), Means("everything to all backends alike"), "{ v1 = 90 }",
                "Shares of the subsets: of their sum, whatever the number of backends in each.")
                .beside(&[("subsets", "{ v1 = { tag = \"v1\" } }")]),
            key("health", Table("service.health"), Means("no probes, the other keys at their defaults"), "{ kind = \"tcp\" }",
                "How backends are probed, and what else decides on their health."),
            key("gate", Table("service.gate"), Is("{}"), "{ fail = 1 }", "What a shift of traffic is watched by."),
            key("hosts", Other("names, also `*.` and a suffix"), Means("`NAME` and `NAME.consul.localhost` alone"), "[\"www.shop.example\"]",
                "Further hosts by which shared listeners know the service.").beside(HTTP),
            key("routes", Tables("service.routes"), Means("none"), "[{ path = \"/a\", subset = \"v1\" }]",
                "What becomes of requests; the first that fits counts, then those of Consul's service-router.").beside(HTTP),
            key("timeouts", Table("service.timeouts"), Is("{}"), "{ total = \"1s\" }", "Patience.").beside(HTTP),
            key("retry", Table("service.retry"), Is("{}"), "{ retries = 1 }", "Further tries.").beside(HTTP),
            key("hedge", Table("service.hedge"), Means("none"), "{ after = \"100ms\" }", "A second try beside a slow first.").beside(HTTP),
            key("limits", Table("service.limits"), Is("{}"), "{ pending = 1 }",
                "What is refused at once (503, of bodies 413) rather than queued.").beside(HTTP),
            key("rate_limit", Tables("service.rate_limit"), Means("none"), "[{ requests = 100 }]",
                "Rates that clients may not exceed (429); all of them hold. One may stand without the list.").beside(HTTP),
            key("balance", OrTable("`\"peak-ewma\"`", "service.balance"), Is("\"peak-ewma\""), "{ header = \"x-user\" }",
                "How a backend is chosen: the better of two by latency and requests under way, or by a value of the request.").beside(HTTP),
            key("upstream", Table("service.upstream"), Is("{}"), "{ warm = 0 }", "How backends are spoken to.").beside(HTTP),
        ],
    },
    Section {
        path: "service.backends",
        help: "A backend in the file.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"echo\"\nvip = [\"198.51.100.10:80\"]\n[[service.backends]]\n",
        given: &[("address", "\"10.77.1.2:80\"")],
        keys: &[
            key("address", Other("`IP:PORT`"), Refused(""), "\"10.77.2.2:80\"", "Where it is."),
            key("weight", Integer(0, 65_535), Is("1"), "2", "Its part beside the others of its subset; 0: nothing new."),
            key("subset", Other("a name"), Means("none"), "\"v1\"", "The subset it belongs to."),
            key("tags", Other("texts"), Means("none"), "[\"v1\"]", "For rules under `subsets`."),
            key("meta", Other("texts by name"), Means("none"), "{ version = \"2\" }", "For rules under `subsets`."),
        ],
    },
    Section {
        path: "service.consul",
        help: "A service of Consul's whose instances are the backends.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[consul]\n[[service]]\nname = \"echo\"\nvip = [\"198.51.100.10:80\"]\n[service.consul]\n",
        given: &[("service", "\"echo\"")],
        keys: &[
            key("service", Other("a name"), Refused(""), "\"web\"", "Its name in Consul."),
            key("datacenter", Other("a name"), Means("that of `[consul]`"), "\"dc2\"", "Where."),
        ],
    },
    Section {
        path: "service.subsets.NAME",
        help: "Whoever fits all that is given belongs to the subset.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"echo\"\nvip = [\"198.51.100.10:80\"]\nbackends = []\n[service.subsets.v1]\n",
        given: &[("tag", "\"a\"")],
        keys: &[
            key("tag", Other("text"), Means("any"), "\"v1\"", "A tag it must have.")
                .beside(&[("filter", "\"Service.Port == 80\"")]),
            key("meta", Other("texts by name"), Means("any"), "{ version = \"2\" }", "Meta that it must have, of the instance."),
            key("filter", Other("an expression of Consul's filter language"), Means("none"), "\"Service.Meta.version == 2\"",
                "Over `Service`, `Node` and `Checks`."),
        ],
    },
    Section {
        path: "service.health",
        help: "Probes, and what else decides on health.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"echo\"\nvip = [\"198.51.100.10:80\"]\nbackends = []\n[service.health]\n",
        given: &[("kind", "\"tcp\"")],
        keys: &[
            key("kind", Other("`tcp`, `http`, `grpc` or `none`"), Refused(""), "\"grpc\"",
                "A connection; a request; `grpc.health.v1`; no probes."),
            key("path", Other("a path"), Refused("with `kind = \"http\"`"), "\"/health\"", "Of the request.")
                .beside(&[("kind", "\"http\"")]),
            key("host", Other("a name or address"), Means("the backend's address"), "\"shop.example\"",
                "The `Host` header, or `:authority`.")
                .beside(&[("kind", "\"http\""), ("path", "\"/\"")]),
            key("status", Other("a status, `\"FROM-TO\"`, or a list of them"), Is("\"200-399\""), "[204, \"300-399\"]",
                "What is healthy.")
                .beside(&[("kind", "\"http\""), ("path", "\"/\"")]),
            key("body", Other("1 to 1024 bytes"), Means("anything"), "\"ready\"", "Has to be in the first 64 KiB.")
                .beside(&[("kind", "\"http\""), ("path", "\"/\"")]),
            key("service", Other("`package.Service`"), Is("\"\""), "\"shop.v1.Cart\"", "Of `grpc`; empty: the server as a whole.")
                .beside(&[("kind", "\"grpc\"")]),
            key("tls", OrTable("`true`, `false`", "service.health.tls"), Is("false"), "true", "Of `http` and `grpc`: over TLS.")
                .beside(&[("kind", "\"http\""), ("path", "\"/\"")]),
            key("port", Integer(1, 65_535), Means("the backend's"), "8081", "Another port to probe."),
            key("interval", Duration("50ms", "1h"), Is("\"5s\""), "\"2s\"", "From probe to probe."),
            key("timeout", Duration("50ms", "1h"), Is("\"1s\""), "\"2s\"",
                "How long a probe may take; at most `interval`, which it defaults to if that is shorter.")
                .beside(&[("interval", "\"1h\"")]),
            key("rise", Integer(1, 100), Is("2"), "3", "Successes in a row after which a backend is healthy."),
            key("fall", Integer(1, 100), Is("3"), "2", "Failures in a row after which it is not."),
            key("panic", Integer(0, 100), Is("50"), "0",
                "Percent of healthy backends below which ill ones are used; 0: when none is."),
            key("slow_start", Duration("0s", "1h"), Is("\"30s\""), "\"0s\"",
                "Until one that comes, or comes back, has its full share."),
            key("passive", OrTable("`true`, `false`", "service.health.passive"), Is("true"), "false",
                "Whether what traffic tells takes backends out."),
        ],
    },
    Section {
        path: "service.health.tls",
        help: "TLS towards backends; the same under `service.upstream.tls`.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"echo\"\nvip = [\"198.51.100.10:80\"]\nbackends = []\n\
                [service.health]\nkind = \"grpc\"\n[service.health.tls]\n",
        given: &[],
        keys: TLS,
    },
    Section {
        path: "service.health.passive",
        help: "When traffic takes a backend out.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"echo\"\nvip = [\"198.51.100.10:80\"]\nbackends = []\n\
                [service.health]\nkind = \"tcp\"\n[service.health.passive]\n",
        given: &[],
        keys: &[
            key("failures", Integer(1, 100), Is("5"), "3", "Failures in a row."),
            key("eject", Duration("1s", "1day"), Is("\"30s\""), "\"10s\"", "How long it is out for the first time; doubled each time."),
            key("eject_max", Duration("1s", "1day"), Is("\"5m\""), "\"1m\"", "At most; not below `eject`.")
                .beside(&[("eject", "\"1s\"")]),
        ],
    },
    Section {
        path: "service.gate",
        help: "What is measured in each window of a shift; limits that are met fail it.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"echo\"\nvip = [\"198.51.100.10:80\"]\nbackends = []\n[service.gate]\n",
        given: &[],
        keys: &[
            key("window", Duration("1s", "1h"), Is("\"10s\""), "\"5s\"", "How long a window is."),
            key("fail", Integer(1, 100), Is("2"), "1", "Failed windows, with no good one between, that take traffic back."),
            key("healthy", Integer(0, 100), Is("50"), "70", "Percent of the subset's weight that must be healthy."),
            key("errors", Integer(0, 100), Is("5"), "2", "Percent of its connections or requests that may fail."),
            key("latency", Duration("1us", "1h"), Means("not looked at"), "\"250ms\"", "The mean time of answers."),
            key("connections", Integer(1, 1_000_000), Is("10"), "50", "Below so many in a window errors are not looked at."),
            key("cooldown", Duration("0s", "1day"), Is("\"1m\""), "\"0s\"", "Until the next step, after a failed window."),
        ],
    },
];

// A table, too.
#[rustfmt::skip]
pub(super) const TLS: &[super::schema::Key] = &[
    key("server_name", Other("a DNS name or address"), Means("the host, or the backend's address"), "\"shop.example\"",
        "Name that the certificate must carry."),
    key("ca_cert", Path, Means("the system's certificates"), "\"/etc/lb-agent/ca.pem\"", "Certificates (PEM) that it must be signed by."),
    key("insecure", Boolean, Is("false"), "true", "Any certificate will do."),
    key("client_cert", Path, Means("none"), "\"/etc/lb-agent/client.pem\"", "Shown to backends that ask; with `client_key`.")
        .with(&[("client_key", "\"/k\"")]),
    key("client_key", Path, Means("none"), "\"/etc/lb-agent/client.key\"", "The key of `client_cert`.")
        .with(&[("client_cert", "\"/c\"")]),
];
