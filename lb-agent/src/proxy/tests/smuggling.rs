//! Requests over whose end two servers could disagree, and what else is no request: bytes in,
//! status out, and what the backend got. Behind each comes a second request on the same connection,
//! which is served behind a good one and never behind one that is refused.

use super::stage::{Stage, statuses};

const SECOND: &str = "GET /second HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";

fn ask(stage: &Stage, request: &[u8]) -> (Vec<u16>, Vec<String>) {
    let mut bytes = request.to_vec();
    bytes.extend(SECOND.as_bytes());
    let answers = stage.raw(&bytes);
    let seen = stage.take();
    let lines = seen.iter().map(|seen| {
        let line = seen.head[0].trim_end_matches(" HTTP/1.1");
        format!(
            "{line} {:?} {}",
            seen.header("host").unwrap_or(""),
            seen.body
        )
    });
    (statuses(&answers), lines.collect())
}

fn stage() -> Stage {
    Stage::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

#[test]
fn refused() {
    let stage = stage();
    let mut wrong = Vec::new();
    let post =
        |headers: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: web\r\n{headers}\r\n{body}");
    let get = |headers: &str| format!("GET / HTTP/1.1\r\nHost: web\r\n{headers}\r\n");
    let chunks = |chunks: &str| post("Transfer-Encoding: chunked\r\n", chunks);
    let uri = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: web\r\n\r\n", "a".repeat(length));
    for (name, status, request) in [
        // Two lengths.
        (
            "CL and TE",
            400,
            post(
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
        ),
        (
            "TE and CL",
            400,
            post(
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                "0\r\n\r\n",
            ),
        ),
        (
            "TE and bad CL",
            400,
            post(
                "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
                "0\r\n\r\n",
            ),
        ),
        (
            "CL twice, different",
            400,
            post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
        ),
        (
            "CL twice, equal",
            400,
            post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        ),
        (
            "CL in a list",
            400,
            post("Content-Length: 5, 5\r\n", "hello"),
        ),
        // Lengths that are none.
        ("CL with +", 400, post("Content-Length: +5\r\n", "hello")),
        ("CL with -", 400, post("Content-Length: -1\r\n", "")),
        ("CL and more", 400, post("Content-Length: 5 x\r\n", "hello")),
        (
            "CL in hexadecimal",
            400,
            post("Content-Length: 0x5\r\n", "hello"),
        ),
        ("CL empty", 400, post("Content-Length: \r\n", "")),
        (
            "CL beyond 64 bits",
            400,
            post("Content-Length: 18446744073709551621\r\n", "hello"),
        ),
        (
            "CL with a vertical tab",
            400,
            post("Content-Length: \x0b5\r\n", "hello"),
        ),
        (
            "CL on GET",
            400,
            get("Content-Length: 5\r\nContent-Length: 0\r\n"),
        ),
        // Codings.
        (
            "TE chunked, identity",
            400,
            post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ),
        (
            "TE xchunked",
            400,
            post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ),
        (
            "TE chunked, chunked",
            501,
            post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "TE twice",
            400,
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
        ),
        (
            "TE twice, unlike",
            400,
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: Chunked\r\n",
                "0\r\n\r\n",
            ),
        ),
        ("TE gzip", 400, post("Transfer-Encoding: gzip\r\n", "")),
        (
            "TE gzip, chunked",
            501,
            post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "TE identity",
            400,
            post("Transfer-Encoding: identity\r\n", ""),
        ),
        (
            "TE quoted",
            400,
            post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"),
        ),
        (
            "TE with a parameter",
            400,
            post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"),
        ),
        (
            "TE with a vertical tab",
            400,
            post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"),
        ),
        (
            "TE with a tab before the colon",
            400,
            post("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "TE with a space before the colon",
            400,
            post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "TE with a space before it",
            400,
            post(" Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "TE behind a fold",
            400,
            post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "TE in HTTP/1.0",
            400,
            "POST / HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
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
            400,
            "GET / HTTP/3.0\r\nHost: web\r\n\r\n".into(),
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
        // Chunks.
        ("a chunk with 0x", 400, chunks("0x5\r\nhello\r\n0\r\n\r\n")),
        ("a chunk with -", 400, chunks("-1\r\nhello\r\n0\r\n\r\n")),
        ("a chunk with +", 400, chunks("+5\r\nhello\r\n0\r\n\r\n")),
        (
            "a chunk without a size",
            400,
            chunks("\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "a chunk of more than 64 bits",
            400,
            chunks("10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "a chunk with a space before its size",
            400,
            chunks(" 5\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "a size of two words",
            400,
            chunks("5 5\r\nhello\r\n0\r\n\r\n"),
        ),
        ("a chunk without CRLF", 400, chunks("5\r\nhello0\r\n\r\n")),
        (
            "a chunk longer than it says",
            400,
            chunks("4\r\nhello\r\n0\r\n\r\n"),
        ),
        ("chunks with bare LFs", 400, chunks("5\nhello\n0\n\n")),
        (
            "a size with a bare LF",
            400,
            chunks("5\nhello\r\n0\r\n\r\n"),
        ),
        (
            "a chunk with a bare LF behind it",
            400,
            chunks("5\r\nhello\n0\r\n\r\n"),
        ),
        (
            "an extension with a bare LF",
            400,
            chunks("5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "an extension with a bare CR",
            400,
            chunks("5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "a last chunk with a bare LF",
            400,
            chunks("5\r\nhello\r\n0\n\r\n"),
        ),
        (
            "no trailers, and a bare LF",
            400,
            chunks("5\r\nhello\r\n0\r\n\n"),
        ),
        (
            "a trailer with a bare LF",
            400,
            chunks("5\r\nhello\r\n0\r\na: b\nc: d\r\n\r\n"),
        ),
        (
            "a trailer that is none",
            400,
            chunks("5\r\nhello\r\n0\r\na b\r\n\r\n"),
        ),
        (
            "many trailers",
            400,
            chunks(&format!("0\r\n{}\r\n", "a: b\r\n".repeat(1000))),
        ),
        (
            "large trailers",
            400,
            chunks(&format!("0\r\na: {}\r\n\r\n", "b".repeat(100_000))),
        ),
    ] {
        let (statuses, seen) = ask(&stage, request.as_bytes());
        let shown = &request[..request.len().min(200)];
        if statuses != [status] || !seen.is_empty() {
            wrong.push(format!(
                "{name}: {shown:?} is answered {statuses:?} and became {seen:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn served() {
    let stage = stage();
    for (name, request, expected) in [
        (
            "plain",
            "GET /a?b#c HTTP/1.1\r\nHost: web\r\n\r\n",
            "GET /a?b \"web\" ",
        ),
        (
            "empty lines before it",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: web\r\n\r\n",
            "GET / \"web\" ",
        ),
        (
            "white space around a value",
            "GET / HTTP/1.1\r\nHost: \t web \t\r\n\r\n",
            "GET / \"web\" ",
        ),
        (
            "a name in capitals",
            "GET / HTTP/1.1\r\nHOST: web\r\n\r\n",
            "GET / \"web\" ",
        ),
        (
            "an unknown method",
            "get / HTTP/1.1\r\nHost: web\r\n\r\n",
            "get / \"web\" ",
        ),
        (
            "an absolute target",
            "GET http://web/a HTTP/1.1\r\nHost: other\r\n\r\n",
            "GET /a \"web\" ",
        ),
        (
            "an absolute target without path",
            "GET http://web HTTP/1.1\r\nHost: web\r\n\r\n",
            "GET / \"web\" ",
        ),
        (
            "the server as a whole",
            "OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n",
            "OPTIONS * \"web\" ",
        ),
        (
            "a body",
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello",
            "POST / \"web\" hello",
        ),
        (
            "a body of GET",
            "GET / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello",
            "GET / \"web\" hello",
        ),
        (
            "zeros before a length",
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 005\r\n\r\nhello",
            "POST / \"web\" hello",
        ),
        (
            "chunks",
            "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: cHuNkEd\r\n\r\n5;ext=\"a\"\r\nhello\r\n000\r\n\r\n",
            "POST / \"web\" 5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "trailers that frame or address",
            "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nTrailer: content-length, transfer-encoding, host, x-sum\r\n\r\n\
             5\r\nhello\r\n0\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\nHost: other\r\nX-Sum: 1\r\n\r\n",
            "POST / \"web\" 5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n",
        ),
        (
            "trailers that nobody announced",
            "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
            "POST / \"web\" 5\r\nhello\r\n0\r\n\r\n",
        ),
    ] {
        let (statuses, seen) = ask(&stage, request.as_bytes());
        assert_eq!(statuses, [200, 200], "{name}: {request:?}");
        let second = "GET /second \"web\" ";
        assert_eq!(seen, [expected, second], "{name}: {request:?}");
    }
    // The connections of the former ends with it.
    let (statuses, seen) = ask(&stage, b"GET / HTTP/1.0\r\nHost: web\r\n\r\n");
    assert_eq!((statuses, seen), (vec![200], vec!["GET / \"web\" ".into()]));
}
