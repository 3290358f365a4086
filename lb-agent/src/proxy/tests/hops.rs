//! Headers and trailers on their way to a backend: what ends at the proxy, what it adds, and what
//! passes as it is.

use std::io::Write as _;

use super::stage::Stage;

#[test]
fn headers_of_one_hop_and_all_others() {
    let stage = Stage::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    // headers → lines at the backend, names that are not there
    for (headers, lines, none) in [
        (
            "Connection: x-a, X-B\r\nX-A: 1\r\nx-b: 2\r\nX-C: 3\r\n",
            &["x-c: 3"][..],
            &["x-a", "x-b", "connection"][..],
        ),
        (
            "Connection: x-a\r\nConnection: ,, x-b ,\r\nX-A: 1\r\nX-B: 2\r\n",
            &[],
            &["x-a", "x-b"],
        ),
        (
            "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nProxy: x\r\n",
            &[],
            &[
                "keep-alive",
                "proxy-connection",
                "proxy-authorization",
                "proxy",
            ],
        ),
        ("TE: gzip;q=0.5, trailers\r\n", &["te: trailers"], &[]),
        ("TE: gzip\r\n", &[], &["te"]),
        ("Upgrade: h2c\r\n", &[], &["upgrade"]),
        (
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
            &["connection: upgrade", "upgrade: websocket"],
            &[],
        ),
        ("Expect: 100-continue\r\n", &[], &["expect"]),
        // Nobody takes away what the proxy vouches for.
        (
            "Connection: host, x-request-id, x-forwarded-for, x-forwarded-proto, forwarded, traceparent\r\n",
            &[
                "host: web",
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-proto: http",
                "forwarded: for=127.0.0.1;host=web;proto=http",
            ],
            &[],
        ),
        // Nor says it in its place.
        (
            "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
             Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n",
            &[
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-proto: http",
                "x-forwarded-host: web",
                "forwarded: for=127.0.0.1;host=web;proto=http",
            ],
            &[],
        ),
        (
            "Via: 1.0 a, 1.1 b\r\nAuthorization: Basic x\r\nX-Empty:\r\nX-Raw: \u{e4}\r\nAccept: a\r\nAccept: b\r\nCookie: a=1\r\n",
            &[
                "via: 1.0 a, 1.1 b",
                "authorization: Basic x",
                "x-empty: ",
                "x-raw: \u{e4}",
                "accept: a",
                "accept: b",
                "cookie: a=1",
            ],
            &[],
        ),
    ] {
        let got = stage.ask("GET /", headers);
        assert_eq!(got.status, 200, "{headers:?}: {got:?}");
        let seen = stage.take().remove(0);
        for line in lines {
            let count = seen.head.iter().filter(|own| own == line).count();
            assert_eq!(count, 1, "{line:?} of {headers:?} in {:#?}", seen.head);
        }
        for name in none {
            assert_eq!(
                seen.header(name),
                None,
                "{headers:?} became {:#?}",
                seen.head
            );
        }
        let id = seen
            .header("x-request-id")
            .expect("every request has an id");
        assert_eq!(got.header("x-request-id"), Some(id), "{headers:?}");
    }
}

/// What a client sends in some order arrives in it; names in small letters, values untouched.
#[test]
fn order_is_kept() {
    let stage = Stage::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let names: Vec<String> = (0..80)
        .map(|number| format!("X-N{}", number * 37 % 80))
        .collect();
    let headers: String = names
        .iter()
        .map(|name| format!("{name}: V{name}\r\n"))
        .collect();
    assert_eq!(stage.ask("GET /", &headers).status, 200);
    let seen = stage.take().remove(0);
    let expected = names
        .iter()
        .map(|name| format!("{}: V{name}", name.to_ascii_lowercase()));
    let own: Vec<&String> = seen
        .head
        .iter()
        .filter(|line| line.starts_with("x-n"))
        .collect();
    assert_eq!(
        own,
        expected.collect::<Vec<String>>().iter().collect::<Vec<_>>()
    );
}

#[test]
fn as_many_headers_as_are_allowed() {
    let stage = Stage::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    // Host and Connection are two more.
    let allowed = crate::config::proxy::Bounds::default().headers - 2;
    for (count, status) in [(allowed, 200), (allowed + 1, 431)] {
        let headers: String = (0..count)
            .map(|number| format!("X-{number}: 1\r\n"))
            .collect();
        assert_eq!(
            stage.ask("GET /", &headers).status,
            status,
            "{count} headers"
        );
    }
    for (length, status) in [(60_000, 200), (70_000, 431)] {
        let header = format!("X-A: {}\r\n", "a".repeat(length));
        assert_eq!(stage.ask("GET /", &header).status, status, "{length} bytes");
    }
}

/// Trailers of an answer reach who takes them and says so; nobody else is told of any.
#[test]
fn trailers_of_answers() {
    let stage = Stage::with(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, content-length\r\n\r\n\
              5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\nX-Other: 2\r\n\r\n",
        )
    });
    for (headers, body) in [
        ("TE: trailers\r\n", "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"),
        ("", "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let got = stage.ask("GET /", headers);
        assert_eq!((got.status, &*got.text()), (200, body), "{headers:?}");
    }
    assert_eq!(stage.connections(), 1);
}
