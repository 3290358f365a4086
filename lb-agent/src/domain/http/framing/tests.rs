//! Bytes in, where requests end or what must not be out.

use rand::Rng as _;

use super::{
    Framing,
    InvalidFraming::{self, *},
    Refused,
};

/// Reads it all at once. What is refused is told by the bytes before it.
fn read(bytes: &[u8]) -> (Result<(), (usize, InvalidFraming)>, bool) {
    let mut framing = Framing::default();
    let read = framing.read(bytes).map_err(|Refused { at, why }| (at, why));
    (read, framing.is_within())
}

#[test]
fn requests_end_where_they_say() {
    // bytes → whether the client is within a request
    for (bytes, within) in [
        ("", false),
        ("\r\n", false),
        ("G", true),
        ("GET / HTTP/1.1\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", false),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", true),
        ("POST / HTTP/1.1\r\ncontent-LENGTH:3 \t\r\n\r\nabc", false),
        ("POST / HTTP/1.1\r\nContent-Length: 03\r\n\r\nabc", false),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcG", true),
        (
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\n\n\nGET / HTTP/1.1\r\n\r\n",
            false,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n0\r\n",
            true,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding:chunked\r\n\r\n3;a=b\r\n\n\n\n\r\n0A \r\n0123456789\r\n0\r\n\r\n",
            false,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: y\r\nz: \r\n\r\n",
            false,
        ),
        // Of which the library makes nothing either.
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc",
            true,
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\n", false),
        // What is no version at all is left to the library.
        ("GET / HTTP/3.00\r\n", true),
        ("GET / http/3.0\r\n", true),
        ("GET /HTTP/3.0\r\n", true),
        ("GET / HTTP/1.0\r\n", true),
    ] {
        assert_eq!(read(bytes.as_bytes()), (Ok(()), within), "{bytes:?}");
    }
}

#[test]
fn what_is_ambiguous_is_refused_at_the_end_of_its_line() {
    let long = format!(
        "POST / HTTP/1.1\r\nContent-Length: {}1\r\n",
        "0".repeat(300)
    );
    for (line, why) in [
        ("Content-Length: 1\r\nContent-Length: 1\r\n", SeveralLengths),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", SeveralLengths),
        ("Content-Length: 1, 1\r\n", Length),
        ("Content-Length: +1\r\n", Length),
        ("Content-Length: -1\r\n", Length),
        ("Content-Length: 1 x\r\n", Length),
        ("Content-Length: 0x1\r\n", Length),
        ("Content-Length:\r\n", Length),
        ("Content-Length: 18446744073709551616\r\n", Length),
        (
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            TwoLengths,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            TwoLengths,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            SeveralCodings,
        ),
        ("Transfer-Encoding: chunked, identity\r\n", Coding),
        ("Transfer-Encoding: xchunked\r\n", Coding),
        ("Transfer-Encoding: \x0bchunked\r\n", Coding),
        ("Transfer-Encoding:\r\n", Coding),
        ("Host: a\n", BareLineFeed),
        ("\n", BareLineFeed),
    ] {
        let bytes = format!("POST / HTTP/1.1\r\n{line}");
        let expected = (Err((bytes.len() - 1, why)), true);
        assert_eq!(read(bytes.as_bytes()), expected, "{line:?}");
        // Nothing behind it counts.
        let more = format!("{bytes}\r\nGET / HTTP/1.1\r\n\r\n");
        assert_eq!(read(more.as_bytes()), expected, "{line:?}");
    }
    let longer = format!("GET /{} HTTP/2.0\r\n", "a".repeat(300));
    for (bytes, why) in [
        (long.as_str(), Length),
        (longer.as_str(), Version),
        ("GET / HTTP/3.0\r\n", Version),
        ("GET / HTTP/1.2\r\n", Version),
        ("GET / HTTP/0.9\r\n", Version),
        ("\r\nGET /a b HTTP/9.9\r\n", Version),
        ("GET / HTTP/1.1\n", BareLineFeed),
        ("\n", BareLineFeed),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\n",
            BareLineFeed,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n",
            BareLineFeed,
        ),
    ] {
        let (found, _) = read(bytes.as_bytes());
        assert_eq!(found, Err((bytes.len() - 1, why)), "{bytes:?}");
    }
}

#[test]
fn an_upgraded_connection_is_not_looked_at() {
    let mut framing = Framing::default();
    framing.read(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    framing.end();
    framing.read(b"\n\n").unwrap();
    assert!(!framing.is_within());
}

/// Whatever comes, in whatever pieces: no panic, and the same is found at the same place.
#[test]
fn pieces_make_no_difference() {
    const WORDS: [&str; 25] = [
        "GET / HTTP/1.2\r\n",
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\n",
        "\r\n",
        "\n",
        "\r",
        "Host: a\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "content-length:18446744073709551615\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "T: x\r\n",
        "C",
        "5\r\nhello\r\n",
        "5;x=\"y\"\r\nhel",
        "lo\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "X-Sum: 1\r\n",
        "hello",
        " ",
        "PRI * HTTP/2.0\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let mut random = crate::domain::chance::of_test(11);
    for _ in 0..100_000 {
        let mut bytes = Vec::new();
        for _ in 0..random.random_range(1..12) {
            bytes.extend(WORDS[random.random_range(0..WORDS.len())].as_bytes());
            if random.random_ratio(1, 100) {
                bytes.extend([b'x'; 300]);
            }
        }
        if random.random_ratio(1, 4) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        let whole = read(&bytes);
        let mut framing = Framing::default();
        let (mut found, mut from) = (Ok(()), 0);
        while from < bytes.len() {
            let to = (from + random.random_range(1..20)).min(bytes.len());
            let piece = framing.read(&bytes[from..to]);
            if let Err(Refused { at, why }) = piece {
                assert!(found.is_ok(), "refused twice");
                found = Err((from + at, why));
            }
            from = to;
        }
        let shown = String::from_utf8_lossy(&bytes);
        assert_eq!((found, framing.is_within()), whole, "{shown:?}");
    }
}
