//! Answers of backends that are broken or mean harm: what the client sees of each, and that the
//! next requests get answers of their own.

use std::{io, io::Write, thread, time::Duration};

use super::stage::{Got, Stage};

/// What the client sees.
#[derive(Debug)]
enum Sees {
    /// A whole answer.
    Whole(u16, &'static str),
    /// The beginning of one at most, and that there is no more than that.
    Cut(&'static str),
    /// Nothing of it.
    Nothing,
}

use Sees::{Cut, Nothing, Whole};

const OWN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond";
/// What comes behind an answer that has ended.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

type Row = (&'static str, &'static str, String, bool, Sees);

fn rows() -> Vec<Row> {
    let many = |count: usize, what: &str| what.repeat(count);
    let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}");
    let chunked = |rest: &str| ok(&format!("Transfer-Encoding: chunked\r\n\r\n{rest}"));
    // name, method, the answer, whether the connection ends with it
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
            Cut("hello"),
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

#[test]
fn each_is_what_it_is_and_the_next_its_own() {
    let answers: Vec<(String, bool)> = rows().into_iter().map(|row| (row.2, row.3)).collect();
    let stage = Stage::with(move |seen, stream| {
        let path = seen.head[0].split(' ').nth(1).unwrap();
        let Ok(index) = path[1..].parse::<usize>() else {
            return stream.write_all(OWN.as_bytes());
        };
        let (answer, ends) = &answers[index];
        // Of what breaks off, the head goes first: with it, the proxy would send nothing at all.
        let pause = answer
            .find("hello")
            .filter(|_| seen.header("x-pause").is_some());
        let (first, rest) = answer.split_at(pause.unwrap_or(0));
        stream.write_all(first.as_bytes())?;
        if pause.is_some() {
            thread::sleep(Duration::from_millis(30));
        }
        stream.write_all(rest.as_bytes())?;
        if *ends {
            Err(io::ErrorKind::Other.into())
        } else {
            Ok(())
        }
    });
    let mut wrong = Vec::new();
    for (index, (name, method, _, _, sees)) in rows().into_iter().enumerate() {
        let pause = if matches!(sees, Cut(_)) {
            "X-Pause: 1\r\n"
        } else {
            ""
        };
        let got = stage.ask(&format!("{method} /{index}"), pause);
        let text = got.text();
        let lengths = got
            .head
            .iter()
            .filter(|line| line.starts_with("content-length"))
            .count();
        let right = match &sees {
            Whole(status, body) => got.status == *status && text == *body,
            // An answer of chunks is whole with its last, one of a length with all of that.
            Cut(body) => {
                got.status == 200
                    && body.starts_with(&*text)
                    && !text.ends_with("0\r\n\r\n")
                    && got
                        .header("content-length")
                        .is_none_or(|length| length == "10")
            }
            Nothing => got.status == 502 && !text.contains("hello"),
        };
        if !right || lengths > 1 {
            wrong.push(format!(
                "{name}: {sees:?} expected, not {} and {text:?}",
                got.status
            ));
        }
        for _ in 0..2 {
            let next = stage.ask("GET /next", "");
            if (next.status, &*next.rest) != (200, b"second") {
                wrong.push(format!("behind {name}: {} {:?}", next.status, next.text()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An answer that nobody asked for, while its connection lies idle, is no answer to what comes next.
#[test]
fn what_comes_late_ends_the_connection() {
    let stage = Stage::with(|seen, stream| {
        if seen.head[0].starts_with("GET /next") {
            return stream.write_all(OWN.as_bytes());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n")?;
        thread::sleep(Duration::from_millis(50));
        stream.write_all(POISON.as_bytes())
    });
    for _ in 0..5 {
        let got = stage.ask("HEAD /", "");
        assert_eq!((got.status, &*got.rest), (200, &b""[..]));
        thread::sleep(Duration::from_millis(150));
        for _ in 0..2 {
            let next = stage.ask("GET /next", "");
            assert_eq!((next.status, &*next.rest), (200, &b"second"[..]));
        }
    }
}

/// Headers that mean one hop only end at the proxy; all others come through as they are.
#[test]
fn heads_of_answers() {
    let stage = Stage::answering(
        "HTTP/1.1 299 Fine enough\r\nConnection: x-hop, keep-alive\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n\
         Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nSet-Cookie: a=1\r\nX-One: 1\r\nSet-Cookie: b=2\r\n\
         Vary: a\r\nVary: b\r\nServer: x\r\nDate: then\r\nVia: 1.1 other\r\nX-Raw: \u{e4}\r\n\
         Content-Length: 0\r\n\r\n",
    );
    let got: Got = stage.ask("GET /", "");
    assert_eq!(got.status, 299);
    let lines: Vec<&str> = got.head.iter().map(String::as_str).collect();
    for line in [
        "set-cookie: a=1",
        "set-cookie: b=2",
        "x-one: 1",
        "vary: a",
        "vary: b",
        "server: x",
        "date: then",
        "via: 1.1 other",
        "x-raw: \u{e4}",
        "content-length: 0",
        "connection: close",
    ] {
        assert_eq!(
            lines.iter().filter(|own| **own == line).count(),
            1,
            "{line} in {lines:#?}"
        );
    }
    for name in ["keep-alive", "x-hop", "proxy-authenticate", "upgrade"] {
        assert_eq!(got.header(name), None, "{lines:#?}");
    }
}

/// A client of HTTP/1.0 knows neither chunks nor trailers: its answer ends with the connection, or
/// has a length if it wants to keep that.
#[test]
fn clients_of_http_1_0() {
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
                          5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    for (answer, more, count) in [
        (CHUNKS, "TE: trailers\r\n", 1),
        (CHUNKS, "Connection: keep-alive\r\n", 1),
        (LENGTH, "", 1),
        (LENGTH, "Connection: keep-alive\r\n", 2),
    ] {
        let stage = Stage::answering(answer);
        let first = format!("GET / HTTP/1.0\r\nHost: web\r\n{more}\r\n");
        let bytes = format!("{first}GET / HTTP/1.0\r\nHost: web\r\n\r\n");
        let answers = String::from_utf8(stage.raw(bytes.as_bytes())).unwrap();
        assert_eq!(
            answers.matches("200 OK\r\n").count(),
            count,
            "{more:?}: {answers:?}"
        );
        assert_eq!(
            answers.matches("\r\n\r\nhello").count(),
            count,
            "{more:?}: {answers:?}"
        );
        for word in ["chunked", "x-sum: 1", "5\r\nhello"] {
            let own = answers.to_ascii_lowercase();
            assert!(!own.contains(word), "{word} for {more:?}: {answers:?}");
        }
    }
}
