//! Rows of answers and what clients see of them.

/// What the client sees.
#[derive(Debug)]
pub(super) enum Sees {
    /// A whole answer.
    Whole(u16, &'static str),
    /// The beginning of one, and that there is no more than that.
    Cut(&'static str),
    /// Nothing of it.
    Nothing,
}

use Sees::{Cut, Nothing, Whole};

/// What comes behind an answer that has ended.
pub(super) const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// Name, method, the answer, whether the connection ends with it, what the client sees.
pub(super) type Row = (&'static str, &'static str, String, bool, Sees);

pub(super) fn rows() -> Vec<Row> {
    let many = |count: usize, what: &str| what.repeat(count);
    let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}");
    let chunked = |rest: &str| ok(&format!("Transfer-Encoding: chunked\r\n\r\n{rest}"));
    vec![
        // Lengths.
        (
            "CL and TE",
            "GET",
            ok("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            false,
            Nothing,
        ),
        (
            "TE and CL",
            "GET",
            ok("Transfer-Encoding: chunked\r\nContent-Length: 100\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            false,
            Nothing,
        ),
        (
            "two lengths",
            "GET",
            ok("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
            false,
            Nothing,
        ),
        (
            "two lengths in one",
            "GET",
            ok("Content-Length: 5, 6\r\n\r\nhello"),
            false,
            Nothing,
        ),
        (
            "equal lengths",
            "GET",
            ok("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
            false,
            Whole(200, "hello"),
        ),
        (
            "equal lengths in one",
            "GET",
            ok("Content-Length: 5, 5\r\n\r\nhello"),
            false,
            Whole(200, "hello"),
        ),
        (
            "a length with +",
            "GET",
            ok("Content-Length: +5\r\n\r\nhello"),
            false,
            Nothing,
        ),
        (
            "a length with -",
            "GET",
            ok("Content-Length: -5\r\n\r\nhello"),
            false,
            Nothing,
        ),
        (
            "no length of HEAD",
            "HEAD",
            ok("Content-Length: x\r\n\r\n"),
            false,
            Nothing,
        ),
        (
            "TE gzip",
            "GET",
            ok("Transfer-Encoding: gzip\r\n\r\nhello"),
            true,
            Nothing,
        ),
        (
            "TE gzip, chunked",
            "GET",
            ok("Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            false,
            Nothing,
        ),
        (
            "TE twice",
            "GET",
            ok(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ),
            false,
            Nothing,
        ),
        (
            "TE in HTTP/1.0",
            "GET",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into(),
            true,
            Nothing,
        ),
        // Bodies that break off.
        (
            "a body too short",
            "GET",
            ok("Content-Length: 10\r\n\r\nhello"),
            true,
            Cut("hello"),
        ),
        (
            "no last chunk",
            "GET",
            chunked("5\r\nhello\r\n"),
            true,
            Cut("5\r\nhello\r\n"),
        ),
        (
            "half a chunk",
            "GET",
            chunked("a\r\nhello"),
            true,
            Cut("5\r\nhello\r\n"),
        ),
        (
            "half a last chunk",
            "GET",
            chunked("5\r\nhello\r\n0\r\n"),
            true,
            Cut("5\r\nhello\r\n"),
        ),
        (
            "a bad size",
            "GET",
            chunked("5\r\nhello\r\nx\r\n"),
            false,
            Cut("5\r\nhello\r\n"),
        ),
        (
            "a size with a bare LF",
            "GET",
            chunked("5\r\nhello\r\n5\nhello\r\n0\r\n\r\n"),
            false,
            Cut("5\r\nhello\r\n"),
        ),
        (
            "a chunk too long",
            "GET",
            chunked("5\r\nhello!\r\n0\r\n\r\n"),
            false,
            Cut("5\r\nhello\r\n"),
        ),
        (
            "a chunk of more than 64 bits",
            "GET",
            chunked("5\r\nhello\r\n10000000000000005\r\nhello\r\n"),
            false,
            Cut("5\r\nhello\r\n"),
        ),
        // Bodies that end otherwise.
        (
            "to the end of the connection",
            "GET",
            ok("\r\nhello"),
            true,
            Whole(200, "5\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "of HTTP/1.0",
            "GET",
            "HTTP/1.0 200 OK\r\n\r\nhello".into(),
            true,
            Whole(200, "5\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "an empty body",
            "GET",
            ok("Content-Length: 0\r\n\r\n"),
            false,
            Whole(200, ""),
        ),
        // Heads.
        (
            "bare LFs",
            "GET",
            "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello".into(),
            false,
            Whole(200, "hello"),
        ),
        (
            "a NUL",
            "GET",
            ok("X-A: \0\r\nContent-Length: 5\r\n\r\nhello"),
            false,
            Nothing,
        ),
        (
            "a bare CR",
            "GET",
            ok("X-A: a\rb\r\nContent-Length: 5\r\n\r\nhello"),
            false,
            Nothing,
        ),
        (
            "a fold",
            "GET",
            ok("X-A: a\r\n b\r\nContent-Length: 5\r\n\r\nhello"),
            false,
            Nothing,
        ),
        (
            "a space before a colon",
            "GET",
            ok("Content-Length : 5\r\n\r\nhello"),
            false,
            Nothing,
        ),
        (
            "a large head",
            "GET",
            ok(&format!(
                "X-A: {}\r\nContent-Length: 5\r\n\r\nhello",
                many(300_000, "a")
            )),
            false,
            Nothing,
        ),
        (
            "many headers",
            "GET",
            ok(&format!(
                "{}Content-Length: 5\r\n\r\nhello",
                many(300, "X-A: a\r\n")
            )),
            false,
            Nothing,
        ),
        (
            "another version",
            "GET",
            "HTTP/2.0 200 OK\r\n\r\n".into(),
            true,
            Nothing,
        ),
        (
            "a status of two digits",
            "GET",
            "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello".into(),
            false,
            Nothing,
        ),
        (
            "a status below 100",
            "GET",
            "HTTP/1.1 099 OK\r\nContent-Length: 5\r\n\r\nhello".into(),
            false,
            Nothing,
        ),
        ("no HTTP", "GET", "hello\r\n\r\n".into(), true, Nothing),
        (
            "half a head",
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Le".into(),
            true,
            Nothing,
        ),
        ("nothing", "GET", String::new(), true, Nothing),
        // Statuses of their own kind.
        (
            "many 100",
            "GET",
            format!(
                "{}{}",
                many(5000, "HTTP/1.1 100 Continue\r\n\r\n"),
                ok("Content-Length: 5\r\n\r\nhello")
            ),
            false,
            Whole(200, "hello"),
        ),
        (
            "many 103",
            "GET",
            format!(
                "{}{}",
                many(500, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
                ok("Content-Length: 5\r\n\r\nhello")
            ),
            false,
            Whole(200, "hello"),
        ),
        (
            "101 that nobody asked for",
            "GET",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello"
                .into(),
            false,
            Nothing,
        ),
        (
            "204",
            "GET",
            "HTTP/1.1 204 No Content\r\n\r\n".into(),
            false,
            Whole(204, ""),
        ),
        (
            "204 with a length",
            "GET",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n".into(),
            false,
            Whole(204, ""),
        ),
        (
            "304 with a length",
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n".into(),
            false,
            Whole(304, ""),
        ),
        (
            "HEAD",
            "HEAD",
            ok("Content-Length: 5\r\n\r\n"),
            false,
            Whole(200, ""),
        ),
        ("HEAD of chunks", "HEAD", chunked(""), false, Whole(200, "")),
        // And bodies where there must be none.
        (
            "204 with a body",
            "GET",
            format!(
                "HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{POISON}",
                POISON.len()
            ),
            false,
            Whole(204, ""),
        ),
        (
            "304 with a body",
            "GET",
            format!(
                "HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{POISON}",
                POISON.len()
            ),
            false,
            Whole(304, ""),
        ),
        (
            "HEAD with a body",
            "HEAD",
            ok(&format!("Content-Length: {}\r\n\r\n{POISON}", POISON.len())),
            false,
            Whole(200, ""),
        ),
        (
            "a body too long",
            "GET",
            ok(&format!("Content-Length: 5\r\n\r\nhello{POISON}")),
            false,
            Whole(200, "hello"),
        ),
        (
            "more behind the last chunk",
            "GET",
            chunked(&format!("5\r\nhello\r\n0\r\n\r\n{POISON}")),
            false,
            Whole(200, "5\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "more behind nothing",
            "GET",
            ok(&format!("Content-Length: 0\r\n\r\n{POISON}")),
            false,
            Whole(200, ""),
        ),
    ]
}
