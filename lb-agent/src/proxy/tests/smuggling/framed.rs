//! Rows of requests whose end is not where everybody would look for it.

use super::{Row, get, post};

fn chunks(chunks: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", chunks)
}

pub(super) fn rows() -> Vec<Row> {
    vec![
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
    ]
}
