//! Requests over whose end two servers could disagree, and what else is no request: bytes in,
//! status out, and what the backend got. Behind each comes a second request on the same connection,
//! which is served behind a good one and never behind one that is refused.

mod framed;
mod heads;

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

/// Name, status, request.
type Row = (&'static str, u16, String);

fn post(headers: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: web\r\n{headers}\r\n{body}")
}

fn get(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: web\r\n{headers}\r\n")
}

#[test]
fn refused() {
    let stage = stage();
    let mut wrong = Vec::new();
    for (name, status, request) in [framed::rows(), heads::rows()].concat() {
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
