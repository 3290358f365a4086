//! What of a `[[service]]` is about requests.

use super::{
    schema::{
        Absent::{Is, Means, Refused},
        Kind::{Boolean, Duration, Integer, OrTable, Other, Table, Words},
        Section, key,
    },
    service::TLS,
};

macro_rules! web {
    ($header:literal) => {
        concat!(
            "[node]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\nprotocol = \"http\"\nbackends = []\n",
            $header,
            "\n"
        )
    };
}

// A table: what rustfmt makes of it has four times the lines.
#[rustfmt::skip]
pub(super) const SECTIONS: &[Section] = &[
    Section {
        path: "service.timeouts",
        help: "How long things may take.",
        frame: web!("[service.timeouts]"),
        given: &[],
        keys: &[
            key("connect", Duration("1ms", "1h"), Is("\"1s\""), "\"100ms\"",
                "Until a backend has taken a connection, TLS handshake included."),
            key("per_try", Duration("1ms", "1h"), Means("another is asked beside it after a third of `total`"), "\"5s\"",
                "From the end of the request's head to the head of one try's answer; at most `total`.")
                .beside(&[("total", "\"1h\"")]),
            key("total", Duration("1ms", "1h"), Is("\"15s\""), "\"1m\"",
                "From the request to the head of the answer, all tries together."),
            key("idle", Duration("1ms", "1day"), Is("\"1m\""), "\"10s\"",
                "Without a byte in either direction, within a request or an upgraded connection."),
        ],
    },
    Section {
        path: "service.retry",
        help: "When a request is tried again, on another backend.",
        frame: web!("[service.retry]"),
        given: &[],
        keys: &[
            key("retries", Integer(0, 10), Is("2"), "0", "Tries after the first."),
            key("on_status", Other("statuses from 400 to 599"), Is("[502, 503, 504]"), "[503]", "Answers that are tried again."),
            key("on_grpc", Other("codes from 1 to 16"), Means("none"), "[8, 14]",
                "`grpc-status` that is tried again, by whoever knows that nothing was done then: calls are POST."),
            key("budget", Integer(0, 1000), Is("20"), "10", "Percent of the requests of the last ten seconds that may be tried again."),
            key("floor", Integer(0, 1_000_000), Is("10"), "5", "So many a second may in any case."),
            key("backoff", Duration("0s", "1m"), Is("\"25ms\""), "\"10ms\"",
                "Before the first, on average; doubled for each further one, to ten times this."),
            key("replay", Integer(0, 16_777_216), Is("65536"), "0", "Bytes of a body that are kept to send them again."),
        ],
    },
    Section {
        path: "service.hedge",
        help: "A second try, on another backend, of an idempotent request.",
        frame: web!("[service.hedge]"),
        given: &[("after", "\"1s\"")],
        keys: &[key("after", Duration("1ms", "1h"), Refused(""), "\"100ms\"", "How long the first has alone.")],
    },
    Section {
        path: "service.limits",
        help: "Bounds of a service.",
        frame: web!("[service.limits]"),
        given: &[],
        keys: &[
            key("connections", Integer(1, 10_000_000), Is("1024"), "10", "Connections to one backend."),
            key("pending", Integer(0, 10_000_000), Is("1024"), "10", "Requests that wait for a connection."),
            key("requests", Integer(1, 10_000_000), Is("16384"), "10", "Requests under way."),
            key("body", Integer(0, i64::MAX), Means("any"), "1000000", "Bytes of a request's body; beyond it 413."),
        ],
    },
    Section {
        path: "service.rate_limit",
        help: "A rate that each of what `by` tells apart may not exceed.",
        frame: web!("[[service.rate_limit]]"),
        given: &[("requests", "10")],
        keys: &[
            key("requests", Integer(1, 1_000_000_000), Refused(""), "100", "Requests allowed in `per`."),
            key("per", Duration("1ms", "1day"), Is("\"1s\""), "\"1m\"", "The time they are allowed in."),
            key("burst", Integer(1, 1_000_000_000), Means("as `requests`"), "20", "Requests at once beyond the even rate."),
            key("by", OrTable("`\"client\"`, `\"everybody\"`", "service.rate_limit.by"), Is("\"client\""), "\"everybody\"",
                "What is counted apart: addresses (IPv6: each /64), values of a header, or nothing."),
            key("except", Other("prefixes"), Means("none"), "[\"10.0.0.0/8\"]", "Clients that are not limited."),
            key("path", Other("how a path begins"), Means("all requests"), "\"/export\"", "Only these requests, however they spell it: `/%65xport` and `//export` are limited as well."),
        ],
    },
    Section {
        path: "service.rate_limit.by",
        help: "By a header.",
        frame: web!("[[service.rate_limit]]\nrequests = 1\n[service.rate_limit.by]"),
        given: &[("header", "\"x-api-key\"")],
        keys: &[key("header", Other("a name"), Refused(""), "\"x-user\"", "Its values are counted apart; requests without it are one.")],
    },
    Section {
        path: "service.balance",
        help: "The same backend for the same value; one of the two.",
        frame: web!("[service.balance]"),
        given: &[],
        keys: &[
            key("header", Other("a name"), Means("not by a header"), "\"x-user\"", "By the value of this header."),
            key("cookie", Other("a name"), Means("not by a cookie"), "\"lb\"", "By the value of this cookie, which the proxy sets if there is none."),
        ],
    },
    Section {
        path: "service.upstream",
        help: "How backends are spoken to.",
        frame: web!("[service.upstream]"),
        given: &[],
        keys: &[
            key("version", Words(&["auto", "http1", "http2"]), Is("\"auto\""), "\"http2\"",
                "`auto`: HTTP/2 for services of protocol `grpc`, else HTTP/1.1."),
            key("tls", OrTable("`true`, `false`", "service.upstream.tls"), Is("false"), "true", "Over TLS."),
            key("proxy_protocol", Integer(1, 2), Means("none"), "2", "Version of the PROXY protocol header that backends get first."),
            key("idle", Integer(0, 100_000), Means("`connections` of `limits`"), "64", "Idle connections kept to each backend."),
            key("warm", Integer(0, 1000), Is("1"), "0", "Connections that each thread has ready to every backend."),
            key("host", Other("a name or address"), Means("the client's"), "\"web.internal\"", "The `Host` that backends see."),
        ],
    },
    Section {
        path: "service.upstream.tls",
        help: "The same as `service.health.tls`.",
        frame: web!("[service.upstream.tls]"),
        given: &[],
        keys: TLS,
    },
    Section {
        path: "service.routes",
        help: "Conditions, all of which must hold, and what becomes of such requests.",
        frame: web!("[[service.routes]]"),
        given: &[],
        keys: &[
            key("path", Other("a path"), Means("any"), "\"/login\"", "Exactly this. One of the three."),
            key("path_prefix", Other("how a path begins"), Means("any"), "\"/api/\"", "Begins so."),
            key("path_regex", Other("an expression"), Means("any"), "\"/v[0-9]+/.*\"", "Fits this as a whole."),
            key("headers", Table("service.routes.headers.NAME"), Means("any"), "{ x-canary = \"1\" }",
                "By name: a text that it must be, `true` or `false` for whether it must be there, or a table."),
            key("query", Table("service.routes.query.NAME"), Means("any"), "{ v = \"2\" }", "The same for parameters."),
            key("methods", Other("names"), Means("any"), "[\"GET\"]", "One of these."),
            key("rewrite", Other("a path"), Means("the path stays"), "\"/\"", "Stands for what fitted of the path.")
                .beside(&[("path_prefix", "\"/api/\"")]),
            key("service", Other("a name"), Means("this one"), "\"api\"", "Another service that the request goes to."),
            key("subset", Other("a name"), Means("by the split"), "\"v2\"", "The subset that it goes to."),
            key("timeout", Duration("1ms", "1h"), Means("`total` of `timeouts`"), "\"5s\"", "For all tries together."),
            key("timeouts", Table("service.routes.timeouts"), Means("those of the service"), "{ per_try = \"1s\" }",
                "Its own patience, key by key."),
            key("retries", Integer(0, 10), Means("those of `retry`"), "1", "Tries after the first."),
            key("retry_on", Other("statuses from 400 to 599"), Means("those of `retry`"), "[503]", "Answers that are tried again."),
        ],
    },
    Section {
        path: "service.routes.timeouts",
        help: "How long things may take where the route fits, each as in `service.timeouts`.",
        frame: web!("[[service.routes]]\n[service.routes.timeouts]"),
        given: &[],
        keys: &[
            key("connect", Duration("1ms", "1h"), Means("that of the service"), "\"100ms\"", "Until there is a connection."),
            key("per_try", Duration("1ms", "1h"), Means("that of the service"), "\"5s\"", "For one try."),
            key("total", Duration("1ms", "1h"), Means("that of the service"), "\"1m\"", "For all tries together; `timeout` is the same."),
            key("idle", Duration("1ms", "1day"), Means("that of the service"), "\"10s\"", "Without a byte in either direction."),
        ],
    },
    Section {
        path: "service.routes.headers.NAME",
        help: "A condition on a header; one of the first four.",
        frame: web!("[[service.routes]]\n[service.routes.headers.x-a]"),
        given: &[("exact", "\"a\"")],
        keys: CONDITION,
    },
    Section {
        path: "service.routes.query.NAME",
        help: "A condition on a parameter; one of the first four.",
        frame: web!("[[service.routes]]\n[service.routes.query.v]"),
        given: &[("exact", "\"a\"")],
        keys: CONDITION,
    },
];

#[rustfmt::skip]
const CONDITION: &[super::schema::Key] = &[
    key("exact", Other("text"), Refused("one of the four"), "\"1\"", "Is this."),
    key("prefix", Other("text"), Refused("one of the four"), "\"v\"", "Begins so.").beside(&[("exact", "")]),
    key("suffix", Other("text"), Refused("one of the four"), "\"z\"", "Ends so.").beside(&[("exact", "")]),
    key("regex", Other("an expression"), Refused("one of the four"), "\"x+\"", "Fits this as a whole.").beside(&[("exact", "")]),
    key("invert", Boolean, Is("false"), "true", "Must not fit."),
];
