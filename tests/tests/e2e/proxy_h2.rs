//! HTTP/2 as clients speak it to the proxy: the usual ones, and those that break its rules.

use std::{
    fs,
    time::{Duration, Instant},
};

use lb_tests::{
    http2::{END_STREAM, End, Hand, Header, kind, request},
    pace::at_this_pace,
};

use crate::{
    proxy_stage::{SHARED, Stage},
    scene::{VIP, address},
};

pub(crate) const HTTP: &str = "protocol = \"http\"\n";
/// Anything that the proxy is to say comes within this.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// RFC 9113, section 7.
const PROTOCOL_ERROR: u32 = 1;

pub(crate) fn hand(stage: &Stage) -> Hand {
    Hand::connect(stage.client(), address(SHARED), &[]).unwrap()
}

/// Another connection is served as if nothing were.
pub(crate) fn assert_others_are_served(stage: &Stage) {
    let begun = Instant::now();
    let mut other = hand(stage);
    other.headers(1, &request("GET", "/size/10"), true).unwrap();
    assert_eq!(other.end_of(1, SOON), End::Answer(200));
    assert!(
        begun.elapsed() < at_this_pace(Duration::from_secs(2)),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn usual_clients() {
    let stage = Stage::served(2, HTTP, "");
    let client = stage.client();
    for to in [VIP, SHARED] {
        let words = ["-n", "3000", "-c", "8", "-m", "20", "-H", ":authority: web"];
        let url = format!("http://{to}/size/1000");
        let printed = client
            .tool("h2load", &[&words[..], &[&url]].concat())
            .unwrap();
        assert!(
            printed.contains("3000 succeeded, 0 failed, 0 errored, 0 timeout"),
            "{printed}"
        );
        assert!(printed.contains("3000 2xx"), "{printed}");

        let file = stage.topology.directory().join("body");
        fs::write(&file, vec![b'x'; 300_000]).unwrap();
        let url = format!("http://{to}/echo");
        let file = file.to_str().unwrap();
        let words = ["-d", file, "-H", ":authority: web", "--trailer", "x-end: 1"];
        let printed = client
            .tool("nghttp", &[&words[..], &[&url]].concat())
            .unwrap();
        assert_eq!(printed.len(), 300_000);
        let words = ["-nv", "-H", ":authority: web", "-H", "te: trailers"];
        let url = format!("http://{to}/trailers");
        let printed = client
            .tool("nghttp", &[&words[..], &[&url]].concat())
            .unwrap();
        assert!(printed.contains("x-sum: 42"), "{printed}");
    }
    let spread: Vec<u64> = [1, 2].map(|number| stage.seen(number).total).into();
    assert!(spread.iter().all(|count| *count > 1000), "{spread:?}");
}

/// Over TLS the client chooses by ALPN.
#[test]
fn by_alpn() {
    let certificate = rcgen::generate_simple_self_signed(["web".to_owned()]).unwrap();
    let directory = lb_tests::scratch::Scratch::new().unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
    fs::write(&cert, certificate.cert.pem()).unwrap();
    fs::write(&key, certificate.signing_key.serialize_pem()).unwrap();
    let listen = format!(
        "listen = [{{ address = \"10.77.0.1:8443\", tls = [{{ cert = {cert:?}, key = {key:?} }}] }}]"
    );
    let stage = Stage::served(1, HTTP, &listen);
    let cert = cert.to_str().unwrap();
    for (offer, version, status) in [
        ("--http2", "2", "200"),
        ("--http1.1", "1.1", "200"),
        ("--no-alpn", "1.1", "200"),
    ] {
        let words = [
            "-sS",
            "-o",
            "/dev/null",
            "--cacert",
            cert,
            "--resolve",
            "web:8443:10.77.0.1",
            "-w",
            "%{http_version} %{http_code}",
            offer,
            "https://web:8443/size/100000",
        ];
        let printed = stage.client().tool("curl", &words).unwrap();
        assert_eq!(printed, format!("{version} {status}"), "{offer}");
    }
    let words = [
        "-n",
        "500",
        "-c",
        "4",
        "-m",
        "10",
        "--connect-to=10.77.0.1:8443",
    ];
    let url = ["https://web:8443/size/1000"];
    let printed = stage
        .client()
        .tool("h2load", &[&words[..], &url].concat())
        .unwrap();
    assert!(printed.contains("500 succeeded, 0 failed"), "{printed}");
}

/// What is malformed is refused, and no backend hears of it.
#[test]
fn malformed_heads() {
    let stage = Stage::served(1, HTTP, "");
    let get = || request("GET", "/size/1");
    let and = |name: &'static [u8], value: &'static [u8]| {
        let mut headers = get();
        headers.push((name, value));
        headers
    };
    let without = |name: &[u8]| {
        let mut headers = get();
        headers.retain(|(held, _)| *held != name);
        headers
    };
    let but = |name: &'static [u8], value: &'static [u8]| {
        let mut headers = without(name);
        headers.insert(0, (name, value));
        headers
    };
    let rows: Vec<(&str, Vec<Header<'_>>)> = vec![
        ("no :path", without(b":path")),
        ("no :method", without(b":method")),
        ("no :scheme", without(b":scheme")),
        ("no :authority, no Host", without(b":authority")),
        ("an empty :path", but(b":path", b"")),
        ("two :path", and(b":path", b"/b")),
        ("two :method", and(b":method", b"GET")),
        ("an unknown pseudo-header", and(b":other", b"x")),
        ("that of an answer", and(b":status", b"200")),
        ("a pseudo-header behind another", {
            let mut headers = without(b":path");
            headers.extend([(&b"x-a"[..], &b"1"[..]), (b":path", b"/")]);
            headers
        }),
        ("capital letters", and(b"X-Upper", b"1")),
        ("connection", and(b"connection", b"close")),
        ("keep-alive", and(b"keep-alive", b"timeout=5")),
        ("proxy-connection", and(b"proxy-connection", b"close")),
        ("transfer-encoding", and(b"transfer-encoding", b"chunked")),
        ("upgrade", and(b"upgrade", b"websocket")),
        ("te", and(b"te", b"gzip")),
        ("CR LF in a value", and(b"x-a", b"1\r\nx-b: 2")),
        ("LF in a value", and(b"x-a", b"1\nx-b: 2")),
        ("NUL in a value", and(b"x-a", b"1\0")),
        ("a colon in a name", and(b"x-a: b\r\nx", b"1")),
        ("a blank in a name", and(b"x a", b"1")),
        ("an empty name", and(b"", b"1")),
        (
            "CR LF in :path",
            but(b":path", b"/ HTTP/1.1\r\nhost: evil\r\n\r\n"),
        ),
        ("a blank in :path", but(b":path", b"/a b")),
        ("no slash in :path", but(b":path", b"size/1")),
        ("a host in :path", but(b":path", b"http://evil/")),
        (
            "CR LF in :method",
            but(b":method", b"GET / HTTP/1.1\r\nx: y\r\n\r\nGET"),
        ),
        ("CR LF in :authority", but(b":authority", b"web\r\nx: y")),
        ("a user in :authority", but(b":authority", b"user@web")),
        ("a path in :authority", but(b":authority", b"web/x")),
        ("another host", and(b"host", b"other")),
        ("the same host twice", {
            let mut headers = and(b"host", b"web");
            headers.push((b"host", b"web"));
            headers
        }),
        ("content-length of letters", and(b"content-length", b"x")),
        ("content-length with a sign", and(b"content-length", b"+0")),
        ("CONNECT", but(b":method", b"CONNECT")),
    ];
    let before = stage.seen(1).total;
    let mut wrong = Vec::new();
    for (what, headers) in &rows {
        let mut hand = hand(&stage);
        hand.headers(1, headers, true).unwrap();
        let end = hand.end_of(1, SOON);
        let refused = [
            End::Reset(PROTOCOL_ERROR),
            End::GoAway(PROTOCOL_ERROR),
            End::Answer(400),
        ];
        let refused = refused.contains(&end) || *what == "CONNECT" && end == End::Answer(405);
        let seen = stage.seen(1).total - before;
        if !refused || seen != 0 {
            wrong.push((what, end, seen));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // What is well-formed, and looks alike, passes.
    for (what, headers) in [
        ("te: trailers", and(b"te", b"trailers")),
        ("the same host", and(b"host", b"web")),
        ("Host only", {
            let mut headers = without(b":authority");
            headers.push((b"host", b"web"));
            headers
        }),
        ("a body of no bytes", and(b"content-length", b"0")),
    ] {
        let mut hand = hand(&stage);
        hand.headers(1, &headers, true).unwrap();
        assert_eq!(hand.end_of(1, SOON), End::Answer(200), "{what}");
    }
}

/// A body that is not as long as was said is none, and nothing of it becomes a request.
#[test]
fn bodies_are_as_long_as_they_say() {
    let stage = Stage::served(1, HTTP, "");
    let smuggled = b"GET /smuggled HTTP/1.1\r\nhost: web\r\nx-id: smuggled\r\n\r\n";
    let mut post = request("POST", "/echo");
    post.push((b"content-length", b"5"));
    let ends = |end, stage: &Stage| {
        assert!(
            [End::Reset(PROTOCOL_ERROR), End::Answer(400)].contains(&end),
            "{end:?}"
        );
        assert_others_are_served(stage);
        assert!(!stage.seen(1).by_id.contains_key("smuggled"));
    };
    // More than was said.
    let mut hand = self::hand(&stage);
    hand.headers(1, &post, false).unwrap();
    hand.send(
        kind::DATA,
        END_STREAM,
        1,
        &[&b"12345"[..], smuggled].concat(),
    )
    .unwrap();
    ends(hand.end_of(1, SOON), &stage);
    // Less.
    hand.headers(3, &post, false).unwrap();
    hand.send(kind::DATA, END_STREAM, 3, b"123").unwrap();
    ends(hand.end_of(3, SOON), &stage);
    // None at all.
    hand.headers(5, &post, true).unwrap();
    ends(hand.end_of(5, SOON), &stage);
    // Two lengths.
    post.push((b"content-length", b"6"));
    hand.headers(7, &post, false).unwrap();
    hand.send(kind::DATA, END_STREAM, 7, b"12345").unwrap();
    ends(hand.end_of(7, SOON), &stage);
    // What looks like another request within a body is a body.
    hand.headers(9, &request("POST", "/echo"), false).unwrap();
    hand.send(kind::DATA, END_STREAM, 9, smuggled).unwrap();
    assert_eq!(hand.end_of(9, SOON), End::Answer(200));
    assert_others_are_served(&stage);
    assert!(!stage.seen(1).by_id.contains_key("smuggled"));
}
