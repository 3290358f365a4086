//! Rows of heads whose lines, host or target are none, or too much.

use super::{Row, get};

fn uri(length: usize) -> String {
    format!("GET /{} HTTP/1.1\r\nHost: web\r\n\r\n", "a".repeat(length))
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        // Lines.
        ("a folded header", 400, get("X-A: a\r\n b\r\n")),
        (
            "a first header folded",
            400,
            "GET / HTTP/1.1\r\n Host: web\r\n\r\n".into(),
        ),
        ("a bare CR in a value", 400, get("X-A: a\rb\r\n")),
        ("a bare CR at the end", 400, get("X-A: a\r")),
        ("a CR too many", 400, get("X-A: a\r\r\n")),
        ("a bare LF behind a value", 400, get("X-A: a\n")),
        (
            "a bare LF hiding a header",
            400,
            get("X-A: a\nTransfer-Encoding: chunked\r\n"),
        ),
        (
            "a bare LF behind the request line",
            400,
            "GET / HTTP/1.1\nHost: web\r\n\r\n".into(),
        ),
        ("only bare LFs", 400, "GET / HTTP/1.1\nHost: web\n\n".into()),
        (
            "a bare LF for the empty line",
            400,
            "GET / HTTP/1.1\r\nHost: web\r\n\n".into(),
        ),
        (
            "a bare LF before all",
            400,
            "\nGET / HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        ),
        ("a NUL in a value", 400, get("X-A: a\0b\r\n")),
        ("a NUL in a name", 400, get("X\0A: a\r\n")),
        (
            "a control character in a value",
            400,
            get("X-A: a\x01b\r\n"),
        ),
        ("a DEL in a value", 400, get("X-A: a\x7fb\r\n")),
        ("a space before a colon", 400, get("X-A : a\r\n")),
        ("an empty name", 400, get(": a\r\n")),
        ("no colon", 400, get("X-A\r\n")),
        ("a name in brackets", 400, get("X(A): a\r\n")),
        ("a name with a space", 400, get("X A: a\r\n")),
        ("a name beyond ASCII", 400, get("X-\u{e4}: a\r\n")),
        // Hosts.
        ("no host", 400, "GET / HTTP/1.1\r\n\r\n".into()),
        ("two hosts", 400, get("Host: web\r\n")),
        ("two hosts, other", 400, get("Host: other\r\n")),
        (
            "a host with a space",
            400,
            "GET / HTTP/1.1\r\nHost: we b\r\n\r\n".into(),
        ),
        (
            "a host with a slash",
            400,
            "GET / HTTP/1.1\r\nHost: web/x\r\n\r\n".into(),
        ),
        (
            "a host with a user",
            400,
            "GET / HTTP/1.1\r\nHost: me@web\r\n\r\n".into(),
        ),
        (
            "a host list",
            400,
            "GET / HTTP/1.1\r\nHost: web, other\r\n\r\n".into(),
        ),
        (
            "an empty host",
            400,
            "GET / HTTP/1.1\r\nHost: \r\n\r\n".into(),
        ),
        (
            "a host with a bad port",
            400,
            "GET / HTTP/1.1\r\nHost: web:8o\r\n\r\n".into(),
        ),
        (
            "a bad host beside a target",
            400,
            "GET http://web/ HTTP/1.1\r\nHost: we b\r\n\r\n".into(),
        ),
        // Request lines.
        (
            "two spaces",
            400,
            "GET  / HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        ),
        (
            "a space too many",
            400,
            "GET /  HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        ),
        (
            "a space in the target",
            400,
            "GET /a b HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        ),
        ("a tab", 400, "GET\t/ HTTP/1.1\r\nHost: web\r\n\r\n".into()),
        (
            "a space at the end",
            400,
            "GET / HTTP/1.1 \r\nHost: web\r\n\r\n".into(),
        ),
        ("no version", 400, "GET /\r\nHost: web\r\n\r\n".into()),
        (
            "an unknown version",
            505,
            "GET / HTTP/3.0\r\nHost: web\r\n\r\n".into(),
        ),
        (
            "an unknown minor version",
            505,
            "GET / HTTP/1.9\r\nHost: web\r\n\r\n".into(),
        ),
        (
            "HTTP/2 as if it were HTTP/1",
            505,
            "\r\nGET / HTTP/2.0\r\nHost: web\r\n\r\n".into(),
        ),
        (
            "a version of two digits",
            400,
            "GET / HTTP/1.10\r\nHost: web\r\n\r\n".into(),
        ),
        (
            "a version in small letters",
            400,
            "GET / http/1.1\r\nHost: web\r\n\r\n".into(),
        ),
        (
            "half a preface of HTTP/2",
            400,
            "PRI * HTTP/2.0\r\n\r\nSMUGGLE\r\n\r\n".into(),
        ),
        (
            "a method that is no token",
            400,
            "GE[T / HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        ),
        (
            "a target without a slash",
            400,
            "GET web HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        ),
        (
            "a target of another scheme",
            400,
            "GET ftp://web/ HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        ),
        (
            "a target with a user",
            400,
            "GET http://me@web/ HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        ),
        (
            "* for GET",
            400,
            "GET * HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        ),
        (
            "CONNECT",
            405,
            "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n".into(),
        ),
        (
            "CONNECT with a path",
            405,
            "CONNECT /x HTTP/1.1\r\nHost: web\r\n\r\n".into(),
        ),
        ("TRACE", 405, "TRACE / HTTP/1.1\r\nHost: web\r\n\r\n".into()),
        ("a long target", 431, uri(70_000)),
        ("a longer target", 431, uri(300_000)),
        ("many headers", 431, get(&"X-A: a\r\n".repeat(1000))),
        (
            "large headers",
            431,
            get(&format!("X-A: {}\r\n", "a".repeat(1000)).repeat(300)),
        ),
    ]
}
