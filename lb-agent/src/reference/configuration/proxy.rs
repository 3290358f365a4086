//! `[proxy]` and what is within.

use super::schema::{
    Absent::{Is, Means, Refused},
    Kind::{Boolean, Duration, Integer, Other, Path, Table, Tables, Words},
    Section, key,
};

// A table: what rustfmt makes of it has four times the lines.
#[rustfmt::skip]
pub(super) const SECTIONS: &[Section] = &[
    Section {
        path: "proxy",
        help: "The proxy of requests. Absent: no shared listeners; services with a VIP have their own.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[proxy]\n",
        given: &[],
        keys: &[
            key("listen", Tables("proxy.listen"), Means("none"), "[\":4140\"]",
                "Shared listeners, which route by host: `\"IP:PORT\"`, `\":PORT\"` (every address, IPv6 and IPv4) or tables."),
            key("threads", Integer(1, 1024), Means("as many as there are processors"), "2",
                "Threads that serve."),
            key("pin", Boolean, Means("if there are as many threads as processors"), "true",
                "Each thread stays on a processor of its own."),
            key("trusted", Other("prefixes"), Means("nobody"), "[\"10.0.0.0/8\"]",
                "Peers whose `X-Request-Id`, `X-Forwarded-*`, `X-Real-IP`, `Forwarded` and PROXY header are believed."),
            key("shutdown", Duration("0s", "1h"), Is("\"30s\""), "\"5s\"",
                "What requests under way have at a stop."),
            key("bounds", Table("proxy.bounds"), Is("{}"), "{ streams = 1 }", "What clients may send and hold."),
            key("access_log", Table("proxy.access_log"), Means("no log"), "{}", "Where requests are logged."),
            key("traces", Table("proxy.traces"), Means("no spans"), "{ endpoint = \"http://127.0.0.1:4317\" }",
                "Where spans go."),
        ],
    },
    Section {
        path: "proxy.listen",
        help: "One shared listener.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[[proxy.listen]]\n",
        given: &[("address", "\":443\"")],
        keys: &[
            key("address", Other("`IP:PORT` or `:PORT`"), Refused(""), "\"0.0.0.0:80\"", "Where it listens."),
            key("tls", Tables("proxy.listen.tls"), Means("no TLS"), "[{ cert = \"/c\", key = \"/k\" }]",
                "Certificates; several are chosen by SNI."),
            key("proxy_protocol", Boolean, Is("false"), "true",
                "Connections of `trusted` peers begin with a PROXY protocol header, version 1 or 2."),
        ],
    },
    Section {
        path: "proxy.listen.tls",
        help: "A certificate with its key, both PEM.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[[proxy.listen]]\naddress = \":443\"\n[[proxy.listen.tls]]\n",
        given: &[("cert", "\"/c\""), ("key", "\"/k\"")],
        keys: &[
            key("cert", Path, Refused(""), "\"/etc/lb-agent/web.pem\"", "Certificate and chain."),
            key("key", Path, Refused(""), "\"/etc/lb-agent/web.key\"", "Its private key."),
        ],
    },
    Section {
        path: "proxy.bounds",
        help: "What clients may send and hold.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[proxy.bounds]\n",
        given: &[],
        keys: &[
            key("connections", Integer(1, 10_000_000), Is("20000"), "100",
                "Connections of clients; more wait in the kernel."),
            key("per_client", Integer(1, 10_000_000), Is("20000"), "100",
                "Connections of one address (IPv6: /64), as a PROXY header tells it; more are closed at once."),
            key("head", Integer(8192, 1_048_576), Is("65536"), "8192",
                "Bytes of a request's head; beyond it 431."),
            key("headers", Integer(16, 4096), Is("100"), "50",
                "Headers of a request; an answer over HTTP/1 may have as many, or 100."),
            key("streams", Integer(1, 65_536), Is("128"), "16", "Streams of one HTTP/2 connection at a time."),
            key("head_timeout", Duration("1s", "1h"), Is("\"10s\""), "\"5s\"",
                "Until a head is complete, TLS handshake included."),
            key("keep_alive", Duration("1s", "1day"), Is("\"75s\""), "\"10s\"", "A connection without a request."),
        ],
    },
    Section {
        path: "proxy.access_log",
        help: "One line for each request.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[proxy.access_log]\n",
        given: &[],
        keys: &[
            key("file", Path, Means("standard error"), "\"/var/log/lb-agent/access.log\"",
                "Opened anew on SIGUSR1."),
            key("stderr", Boolean, Means("`true` without a `file`, else `false`"), "true",
                "To standard error, too.")
                .beside(&[("file", "\"/a.log\"")]),
            key("format", Words(&["json", "combined"]), Is("\"json\""), "\"combined\"",
                "A JSON object with every try, or Apache's combined format."),
        ],
    },
    Section {
        path: "proxy.traces",
        help: "Spans, by OTLP.",
        frame: "[node]\ninterfaces = [\"eth0\"]\n[proxy.traces]\n",
        given: &[("endpoint", "\"http://127.0.0.1:4317\"")],
        keys: &[
            key("endpoint", Other("`http://…` or `https://…`"), Refused(""), "\"https://otel.example\"",
                "The receiver; port 4317 (4318 for `http`) and path `/v1/traces` if there are none."),
            key("transport", Words(&["grpc", "http"]), Is("\"grpc\""), "\"http\"",
                "gRPC, or protobuf over HTTP."),
            key("sample", Other("0 to 1"), Is("1.0"), "0.1",
                "Part of the traces that begin here; what comes with a decision keeps it."),
        ],
    },
];
