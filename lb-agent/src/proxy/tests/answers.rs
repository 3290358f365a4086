//! Answers of backends that are broken or mean harm: what the client sees of each, and that the
//! next requests get answers of their own.

mod rows;

use std::{io, io::Write, thread, time::Duration};

use self::rows::{
    POISON,
    Sees::{Cut, Nothing, Whole},
    rows,
};
use super::stage::{Got, Stage};

const OWN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond";

#[test]
fn each_is_what_it_is_and_the_next_its_own() {
    let answers: Vec<(String, bool)> = rows().into_iter().map(|row| (row.2, row.3)).collect();
    let stage = Stage::with(move |seen, stream| {
        let path = seen.head[0].split(' ').nth(1).unwrap();
        let Ok(index) = path[1..].parse::<usize>() else {
            return stream.write_all(OWN.as_bytes());
        };
        let (answer, ends) = &answers[index];
        stream.write_all(answer.as_bytes())?;
        if *ends {
            Err(io::ErrorKind::Other.into())
        } else {
            Ok(())
        }
    });
    let mut wrong = Vec::new();
    for (index, (name, method, _, _, sees)) in rows().into_iter().enumerate() {
        let got = stage.ask(&format!("{method} /{index}"), "");
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
