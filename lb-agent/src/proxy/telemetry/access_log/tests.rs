//! Lines as they are written, and a file that is moved away or takes nothing.

use std::fs;

use super::*;
use crate::{
    domain::http::exchange::{Outcome, SpanContext},
    proxy::telemetry::{queue::queue, sample::exchange},
};

fn json(exchange: &Exchange) -> serde_json::Value {
    let mut line = Vec::new();
    json::write(&mut line, exchange);
    assert!(!line.contains(&b'\n'), "{line:?}");
    serde_json::from_slice(&line).unwrap()
}

#[test]
fn json_of_everything() {
    let expected = serde_json::json!({
        "time": "2026-01-02T03:04:05.006007Z",
        "request_id": "r-1",
        "trace_id": "0000000000000000000000000000abcd",
        "span_id": "0000000000000001",
        "parent_span_id": "000000000000000f",
        "sampled": true,
        "client": "192.0.2.1:999",
        "listener": "[::1]:80",
        "tls": false,
        "version": "HTTP/1.1",
        "method": "GET",
        "host": "echo.consul.localhost:80",
        "path": "/a",
        "query": "b=1",
        "user_agent": "curl \"8\"\n",
        "referer": "http://r/",
        "status": 200,
        "grpc_status": 0,
        "outcome": "answered",
        "service": "echo",
        "route": "/a",
        "subset": "v2",
        "backend": "10.0.0.2:80",
        "tries": [
            {
                "backend": "10.0.0.1:80",
                "span_id": "0000000000000002",
                "error": "connection refused",
                "after": 0.0001,
                "waited": 0.0002,
                "hedge": false,
            },
            {
                "backend": "10.0.0.2:80",
                "subset": "v2",
                "span_id": "0000000000000003",
                "status": 200,
                "after": 0.001,
                "waited": 0.003,
                "hedge": true,
            },
        ],
        "received_bytes": 3,
        "sent_bytes": 1024,
        "first_byte": 0.0035,
        "total": 0.004,
        "overhead": 0.00054,
    });
    assert_eq!(json(&exchange()), expected);
}

#[test]
fn json_without_a_service() {
    let exchange = Exchange {
        service: None,
        route: None,
        parent: None,
        user_agent: None,
        referer: None,
        grpc_status: None,
        first_byte: None,
        tries: Vec::new(),
        target: "/".into(),
        outcome: Outcome::NoRoute,
        ..exchange()
    };
    let line = json(&exchange);
    let absent = [
        "service",
        "route",
        "parent_span_id",
        "user_agent",
        "referer",
        "grpc_status",
        "query",
        "first_byte",
        "overhead",
        "backend",
        "subset",
    ];
    for key in absent {
        assert!(line.get(key).is_none(), "{key}: {line}");
    }
    assert_eq!(line["outcome"], "no_route");
}

/// Nothing is known of it but who sent it.
fn unread() -> Exchange {
    Exchange {
        request_id: String::new(),
        trace: SpanContext::NONE,
        parent: None,
        method: String::new(),
        target: String::new(),
        status: 400,
        sent: 0,
        referer: None,
        user_agent: None,
        outcome: Outcome::BadRequest,
        ..exchange()
    }
}

#[test]
fn json_of_an_unread_request() {
    let line = json(&unread());
    for key in ["request_id", "trace_id", "span_id", "method", "path"] {
        assert!(line.get(key).is_none(), "{key}: {line}");
    }
    let told = ["client", "status", "outcome"].map(|key| line[key].clone());
    assert_eq!(
        told,
        ["192.0.2.1:999".into(), 400.into(), "bad_request".into()] as [serde_json::Value; 3]
    );
}

#[test]
fn combined_log_format() {
    let rows = [
        (
            exchange(),
            r#"192.0.2.1 - - [02/Jan/2026:03:04:05 +0000] "GET /a?b=1 HTTP/1.1" 200 1024 "http://r/" "curl \x228\x22\x0A""#,
        ),
        (
            Exchange {
                client: "[::ffff:192.0.2.7]:1".parse().unwrap(),
                target: "/\u{e4}\\\u{1b}[2J\u{7f}".into(),
                status: 0,
                referer: None,
                user_agent: None,
                ..exchange()
            },
            r#"192.0.2.7 - - [02/Jan/2026:03:04:05 +0000] "GET /\xC3\xA4\x5C\x1B[2J\x7F HTTP/1.1" 000 1024 "-" "-""#,
        ),
        (
            unread(),
            r#"192.0.2.1 - - [02/Jan/2026:03:04:05 +0000] "-" 400 0 "-" "-""#,
        ),
    ];
    for (exchange, expected) in rows {
        let mut line = Vec::new();
        combined::write(&mut line, &exchange);
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }
}

fn to_file(path: PathBuf) -> AccessLogConfig {
    AccessLogConfig {
        file: Some(path),
        stderr: false,
        format: AccessLogFormat::Combined,
    }
}

/// Lines of the file once there are so many; the log is written by another thread.
async fn lines(path: &PathBuf, count: usize) -> usize {
    for _ in 0..500 {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count {
            return text.lines().count();
        }
        time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} has no {count} lines after five seconds", path.display());
}

#[tokio::test]
async fn rotation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let moved = directory.path().join("access.log.1");
    fs::write(&path, "of before\n").unwrap();
    let losses = Arc::<Losses>::default();
    let (sender, records) = queue(32);
    let log = start(&to_file(path.clone()), records, Arc::clone(&losses)).unwrap();
    assert!(sender.offer(exchange()));
    assert_eq!(lines(&path, 2).await, 2);
    fs::rename(&path, &moved).unwrap();
    assert!(sender.offer(exchange()));
    assert_eq!(lines(&moved, 3).await, 3);
    let own = std::process::id().to_string();
    let kill = std::process::Command::new("kill")
        .args(["-USR1", &own])
        .status();
    assert!(kill.unwrap().success());
    // It is there before the next request.
    while !path.exists() {
        time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..3 {
        assert!(sender.offer(exchange()));
    }
    log.finish().await;
    assert_eq!(lines(&path, 3).await, 3);
    assert_eq!(lines(&moved, 3).await, 3);
    assert_eq!(losses.lost_lines(), 0);
    assert!(!sender.offer(exchange()));
}

#[tokio::test]
async fn a_full_disk_costs_lines_only() {
    let losses = Arc::<Losses>::default();
    let (sender, records) = queue(32);
    let log = start(&to_file("/dev/full".into()), records, Arc::clone(&losses)).unwrap();
    for _ in 0..20 {
        assert!(sender.offer(exchange()));
    }
    log.finish().await;
    assert_eq!(losses.lost_lines(), 20);
}

#[test]
fn torn_lines_are_ended() {
    /// Takes seven bytes, then nothing until it is emptied.
    #[derive(Default)]
    struct Disk(Vec<u8>, bool);
    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = if self.1 {
                bytes.len()
            } else {
                7_usize.saturating_sub(self.0.len())
            };
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = &bytes[..room.min(bytes.len())];
            self.0.extend(taken);
            Ok(taken.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink::new(Disk::default());
    assert!(!sink.write(b"first line\n", "file"));
    sink.to.1 = true;
    assert!(sink.write(b"second line\n", "file"));
    assert!(sink.write(b"third line\n", "file"));
    assert_eq!(sink.to.0, b"first l\nsecond line\nthird line\n");
}

#[tokio::test]
async fn a_file_that_cannot_be_opened() {
    let (_sender, records) = queue(1);
    let error = start(&to_file("/nowhere/log".into()), records, Arc::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot open the access log /nowhere/log: No such file or directory (os error 2)"
    );
}
