//! Requests of real clients through the proxy to real servers, by VIP and by shared listener.

use std::{
    net::{TcpListener, TcpStream},
    thread,
};

use lb_tests::{pace::at_this_pace, topology::Topology};
use tungstenite::Message;

use crate::{
    proxy_scene::{SHARED, Site, nginx},
    scene::{PATIENCE, VIP, address},
};

const WAYS: [&str; 2] = [SHARED, VIP];

fn site() -> Site {
    Site::new(&format!("\"{SHARED}\""), "", "limits = { body = 20000000 }")
}

/// curl with its `Expect: 100-continue`, chunks, trailers, HEAD, and statuses without a body.
#[test]
fn curl_and_every_kind_of_request() {
    let site = site();
    let file = site.topology.directory().join("upload");
    let body: Vec<u8> = (0..5_000_000_u32)
        .flat_map(|number| number.to_le_bytes())
        .take(5_000_000)
        .collect();
    std::fs::write(&file, &body).unwrap();
    let upload = format!("@{}", file.display());
    let back = site.topology.directory().join("back");
    let back_path = back.display().to_string();
    for way in WAYS {
        let url = |path: &str| format!("http://{way}{path}");
        let host = ["-H", "Host: web"];
        site.wait_for_status(&[&host[..], &[&url("/head")]].concat(), 200);
        // Large bodies there and back, with a length and in chunks, after a 100.
        for more in [
            &["-H", "Expect: 100-continue"][..],
            &[
                "-H",
                "Transfer-Encoding: chunked",
                "-H",
                "Expect: 100-continue",
            ],
            &["-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
            &["--http1.0"],
        ] {
            let _ = std::fs::remove_file(&back);
            let url = url("/echo");
            let words = [
                "--data-binary",
                &upload,
                "--no-include",
                "-o",
                &back_path,
                &url,
            ];
            let got = site.curl(&[&host[..], more, &words].concat());
            assert_eq!(got.code, 0, "{way} {more:?}");
            assert!(
                std::fs::read(&back).unwrap() == body,
                "{way} {more:?}: another body came back"
            );
        }
        // Refused early: the answer is there, whatever of the body was.
        let got = site.curl(&[&host[..], &["--data-binary", &upload, &url("/early")]].concat());
        assert_eq!(got.status, 413, "{way}: {got:?}");
        // By the proxy's own limit: at once by the length, and within the answer that has begun
        // when there is too much of what had none.
        let five: Vec<&str> = [&upload[..]; 5]
            .iter()
            .flat_map(|part| ["--data-binary", part])
            .collect();
        let got = site.curl(&[&host[..], &five, &[&url("/echo")]].concat());
        assert_eq!(got.status, 413, "{way}: {:?} {}", got.head, got.code);
        let chunked = ["-H", "Transfer-Encoding: chunked"];
        let got = site.curl(&[&host[..], &chunked, &five, &[&url("/echo")]].concat());
        assert_ne!(got.code, 0, "{way}: {:?}", got.head);
        for status in [200, 204, 304, 404, 500] {
            for method in [&["-X", "GET"][..], &["--head"]] {
                // curl waits for a body that does not come if it is told of one.
                let path = url(&format!("/status/{status}"));
                let got = site.curl(&[&host[..], method, &[&path]].concat());
                assert_eq!(
                    (got.code, got.status),
                    (0, status),
                    "{way} {method:?}: {got:?}"
                );
                assert_eq!(
                    got.header("transfer-encoding"),
                    None,
                    "{way} {method:?}: {got:?}"
                );
                let empty = method == ["--head"] || status == 204 || status == 304;
                assert_eq!(got.body.is_empty(), empty, "{way} {method:?}: {got:?}");
            }
        }
        // Several requests over one connection, the first of which ends in the middle.
        let urls = [
            url("/size/10"),
            url("/size/100000"),
            url("/trailers"),
            url("/size/0"),
        ];
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let connects = ["--no-include", "-w", "%{num_connects} "];
        let discard: Vec<&str> = urls
            .iter()
            .flat_map(|url| ["-o", "/dev/null", url])
            .collect();
        let got = site.curl(&[&host[..], &connects, &discard].concat());
        assert_eq!(got.body.trim(), "1 0 0 0", "{way}: {got:?}");
        let got = site.curl(&[&host[..], &[&url("/cut")]].concat());
        assert_eq!(got.code, 18, "{way}: curl should miss the rest: {got:?}");
        let got = site.curl(
            &[
                &host[..],
                &["-H", &format!("X-A: {}", "a".repeat(70_000)), &url("/")],
            ]
            .concat(),
        );
        assert_eq!(got.status, 431, "{way}: {got:?}");
    }
}

/// What smuggles is refused by the VIP as by the listener, and the backend sees nothing of it.
#[test]
fn nothing_is_smuggled() {
    let site = site();
    let counts = || {
        let got = site.wait_for_status(&[&format!("http://{VIP}/counts")], 200);
        got.body
    };
    let before = counts();
    for way in WAYS {
        for request in [
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhelloG",
            "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: web\r\nX: y\nContent-Length: 50\r\n\r\n",
        ] {
            let more = format!("{request}GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n");
            let answer = site.raw(way, more.as_bytes());
            assert!(
                answer.starts_with("HTTP/1.1 400 "),
                "{way} {request:?}: {answer:?}"
            );
            assert_eq!(
                answer.matches("HTTP/1.1").count(),
                1,
                "{way} {request:?}: {answer:?}"
            );
        }
    }
    assert_eq!(counts(), before);
}

/// nginx behind the proxy: files, conditions, ranges, HEAD, and its own idea of a body too large.
#[test]
fn nginx_behind_the_proxy() {
    let topology = Topology::new(1).unwrap();
    let root = topology.directory().join("root");
    std::fs::create_dir(&root).unwrap();
    let body = vec![b'n'; 3_000_000];
    std::fs::write(root.join("file"), &body).unwrap();
    let server = format!(
        "listen 8080;\nroot {};\nclient_max_body_size 1k;\nlocation /up {{ proxy_pass http://127.0.0.1:9; }}",
        root.display()
    );
    let backend = nginx(&topology, 1, &server);
    let site = Site::with(topology, vec![backend], &format!("\"{SHARED}\""), "", "");
    for way in WAYS {
        let host = ["-H", "Host: web"];
        let url = format!("http://{way}/file");
        let got = site.wait_for_status(&[&host[..], &[&url]].concat(), 200);
        assert_eq!(got.body.len(), body.len());
        let tag = got.header("etag").unwrap().to_owned();
        let condition = format!("If-None-Match: {tag}");
        let got = site.curl(&[&host[..], &["-H", &condition, &url]].concat());
        assert_eq!((got.code, got.status, &*got.body), (0, 304, ""), "{got:?}");
        let got = site.curl(&[&host[..], &["-r", "5-14", &url]].concat());
        assert_eq!((got.status, &*got.body), (206, "nnnnnnnnnn"), "{got:?}");
        let got = site.curl(&[&host[..], &["--head", &url]].concat());
        assert_eq!((got.code, got.status), (0, 200), "{got:?}");
        assert_eq!(got.header("content-length"), Some("3000000"), "{got:?}");
        let up = format!("http://{way}/up");
        let file = format!("@{}", root.join("file").display());
        let got = site.curl(&[&host[..], &["--data-binary", &file, &up]].concat());
        assert_eq!(got.status, 413, "{way}: {got:?}");
    }
}

/// A WebSocket by VIP and by shared listener: messages of all sizes, a ping, and its end.
#[test]
fn websockets() {
    let topology = Topology::new(1).unwrap();
    let listen = topology.backend_address(1);
    let listener = topology.backends()[0]
        .run(|| TcpListener::bind(listen))
        .unwrap();
    // It ends with the test, whose namespace nobody reaches any more.
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || echo(stream));
        }
    });
    let site = Site::with(topology, Vec::new(), &format!("\"{SHARED}\""), "", "");
    for way in WAYS {
        site.client().run(|| {
            let stream = TcpStream::connect(address(way)).unwrap();
            stream
                .set_read_timeout(Some(at_this_pace(PATIENCE)))
                .unwrap();
            let (mut socket, response) = tungstenite::client("ws://web/chat", stream).unwrap();
            assert_eq!(response.status(), 101, "{way}");
            for length in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
                for message in [
                    Message::text("x".repeat(length)),
                    Message::binary(vec![7; length]),
                ] {
                    socket.send(message.clone()).unwrap();
                    assert!(socket.read().unwrap() == message, "{way}: {length}");
                }
            }
            let data = vec![1, 2, 3];
            socket.send(Message::Ping(data.clone().into())).unwrap();
            assert_eq!(socket.read().unwrap(), Message::Pong(data.into()), "{way}");
            socket.close(None).unwrap();
            while let Ok(message) = socket.read() {
                assert!(message.is_close(), "{way}: {message}");
            }
        });
    }
}

/// Sends every message back, until its end.
fn echo(stream: TcpStream) {
    let Ok(mut socket) = tungstenite::accept(stream) else {
        return;
    };
    // The end comes as an error.
    while let Ok(message) = socket.read() {
        if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
            return;
        }
    }
}
