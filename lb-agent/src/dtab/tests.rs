//! The interface as a client sees it, over a controller that answers from a script.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
};

use super::*;
use crate::{
    controller::{Command, OperatorError},
    domain::{
        snapshot::{ServiceState, Snapshot},
        split::{ActiveSplit, Shares, SplitSource},
        weigh::{Inputs, weigh},
    },
};

const CONFIG: &str = r#"
[node]
interfaces = ["eth0"]
[[service]]
name = "echo"
vip = ["198.51.100.10:80"]
backends = [{ address = "10.0.0.1:80", subset = "v1" }, { address = "10.0.0.2:80", subset = "v2" }]
split = { v1 = 9, v2 = 1 }
"#;

/// The service `echo`, split 9 to 1.
fn snapshot() -> Snapshot {
    let config = crate::config::parse(CONFIG, std::path::Path::new("x.toml")).unwrap();
    let spec = config.services[0].clone();
    let file = ActiveSplit {
        shares: Shares::parse(&["v1=9", "v2=1"]).unwrap(),
        source: SplitSource::File,
        origin: String::new(),
        fallback: Vec::new(),
    };
    let inputs = Inputs {
        instances: Vec::new(),
        observed: &|_| crate::domain::health::Observed::Unknown,
        drains: None,
        splits: crate::domain::precedence::SplitStack::of(&spec, [file]),
        shift: None,
    };
    let state: Arc<ServiceState> = Arc::new(weigh(&spec, inputs));
    Snapshot {
        version: 1,
        services: [("echo".to_owned(), state)].into(),
    }
}

/// Serves over a controller that knows no other service, and refuses what has no share for v1.
async fn start() -> SocketAddr {
    let (commands, mut asked) = mpsc::channel(4);
    let (publish, snapshots) = watch::channel(Arc::new(snapshot()));
    tokio::spawn(async move {
        while let Some(command) = asked.recv().await {
            let Command::PutDtab(dentries, _, reply) = command else {
                panic!("{command:?}");
            };
            let strange = dentries.iter().find(|dentry| dentry.service != "echo");
            let answer = match strange {
                Some(dentry) => Err(OperatorError::UnknownService {
                    name: dentry.service.clone(),
                    known: vec!["echo".into()],
                }),
                None if dentries.iter().all(|d| d.shares.get("v1").is_none()) => {
                    Err(OperatorError::Refused("acknowledge first".into()))
                }
                None => Ok(()),
            };
            reply.send(answer).unwrap();
        }
        drop(publish);
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Handle::new(commands, snapshots);
    tokio::spawn(serve(
        listener,
        handle,
        "default".into(),
        std::future::pending(),
    ));
    address
}

/// Status, header and body.
async fn ask(to: SocketAddr, head: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let host = match head.contains("host:") {
        true => "",
        false => "host: localhost\r\n",
    };
    let (first, rest) = head.split_once('\n').unwrap_or((head, ""));
    let rest: String = rest.lines().map(|line| format!("{line}\r\n")).collect();
    let request = format!(
        "{first} HTTP/1.1\r\n{host}{rest}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (header, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = header[9..12].parse().unwrap();
    (status, header.to_owned(), body.to_owned())
}

#[tokio::test]
async fn tables_are_read_in_both_forms() {
    let server = start().await;
    let (status, _, body) = ask(server, "GET /api/1/dtabs", "").await;
    assert_eq!((status, body.as_str()), (200, "[\"default\"]\n"));
    let (status, header, body) = ask(server, "GET /api/1/dtabs/default", "").await;
    assert_eq!(status, 200);
    assert_eq!(
        body,
        "[{\"prefix\":\"/svc/echo\",\"dst\":\"9 * /#/lb-agent/echo/v1 & 1 * /#/lb-agent/echo/v2\"}]\n"
    );
    assert!(
        header.contains("content-type: application/json"),
        "{header}"
    );
    assert!(header.contains("etag: \""), "{header}");
    let head = "GET /api/1/dtabs/default\naccept: application/dtab";
    let (_, header, text) = ask(server, head, "").await;
    assert!(
        header.contains("content-type: application/dtab"),
        "{header}"
    );
    assert_eq!(dtab::parse(&text).unwrap().len(), 1);
    // What was read can be sent back, in both forms.
    for (media, body) in [("json", &body), ("dtab", &text)] {
        let head = format!("PUT /api/1/dtabs/default\ncontent-type: application/{media}");
        assert_eq!(ask(server, &head, body).await.0, 204);
    }
}

/// Rows of a request's head and body, the status and words of the answer.
#[tokio::test]
async fn what_is_refused_says_why_and_where() {
    let server = start().await;
    let (_, header, _) = ask(server, "GET /api/1/dtabs/default", "").await;
    let tag = header.split("etag: ").nth(1).unwrap();
    let tag = tag.lines().next().unwrap().to_owned();
    let bare = tag.trim_matches('"').to_owned();
    let put =
        |more: &str| format!("PUT /api/1/dtabs/default\ncontent-type: application/dtab{more}");
    let json = "PUT /api/1/dtabs/default\ncontent-type: application/json; charset=utf-8";
    let good = "/svc/echo => 1 * /#/x/v1 & 9 * /#/x/v2";
    let rows = [
        (put(""), good, 204, ""),
        (put(&format!("\nif-match: {tag}")), good, 204, ""),
        (put(&format!("\nif-match: \"x\", {tag}")), good, 204, ""),
        (put(&format!("\nif-match: {bare}")), good, 204, ""),
        (put("\nif-match: *"), good, 204, ""),
        (put("\nif-match: \"x\""), good, 412, "the table has changed"),
        (
            put(&format!("\nif-match: W/{tag}")),
            good,
            412,
            "read it again",
        ),
        (
            put(""),
            "/svc/echo =>\n  oops",
            400,
            "line 2, column 3: `oops` is not of",
        ),
        (
            put(""),
            "/svc/other => /#/v1",
            422,
            "there is no service `other`; configured are echo",
        ),
        (put(""), "/svc/echo => /#/v2", 409, "acknowledge first"),
        (
            json.into(),
            "{",
            400,
            "expected a sequence at line 1 column 0; a table is a list",
        ),
        (
            json.into(),
            r#"[{"prefix": "/svc/echo"}]"#,
            400,
            "missing field `dst`",
        ),
        (
            json.into(),
            r#"[{"prefix": "/svc/echo", "dst": "/#/v1 &"}]"#,
            400,
            "entry 1, `dst`, line 1, column 8: expected a path",
        ),
        (
            json.into(),
            r#"[{"prefix": "/x", "dst": "/#/v1"}]"#,
            400,
            "entry 1, `prefix`, line 1, column 1: `/x` is not",
        ),
        (
            json.into(),
            r#"[{"prefix": "/svc/echo", "dst": "/#/v1"}, {"prefix": "/svc/echo", "dst": "/#/v1"}]"#,
            400,
            "entry 2: `/svc/echo` is given twice",
        ),
        (
            "PUT /api/1/dtabs/default".into(),
            good,
            415,
            "send `Content-Type: application/dtab`",
        ),
        (
            "PUT /api/1/dtabs/other\ncontent-type: application/dtab".into(),
            good,
            404,
            "no namespace `other`; there is `default`",
        ),
        ("GET /api/1/dtabs/other".into(), "", 404, "no namespace"),
        (
            "DELETE /api/1/dtabs/default".into(),
            "",
            405,
            "read (GET) or replaced (PUT)",
        ),
        ("POST /api/1/dtabs".into(), "", 405, "can be read, no more"),
        ("GET /".into(), "", 404, "ask for /api/1/dtabs"),
        (
            "GET /api/1/dtabs\nhost: evil.example".into(),
            "",
            403,
            "loopback",
        ),
        ("GET /api/1/dtabs\nhost: [::1]:4180".into(), "", 200, ""),
    ];
    for (head, body, status, words) in rows {
        let (got, _, answer) = ask(server, &head, body).await;
        assert_eq!(got, status, "{head} {body}: {answer}");
        assert!(answer.contains(words), "{head} {body}: {answer}");
    }
    let huge = "#".repeat(MAX_TABLE + 1);
    let (status, _, answer) = ask(server, &put(""), &huge).await;
    assert_eq!(status, 413, "{answer}");
}

#[test]
fn hosts_that_are_this_one() {
    let rows = [
        ("localhost", true),
        ("LOCALHOST:4180", true),
        ("127.0.0.1:4180", true),
        ("127.1.2.3", true),
        ("[::1]", true),
        ("[::1]:80", true),
        ("192.0.2.1:4180", false),
        ("localhost.evil.example", false),
        ("", false),
    ];
    for (host, local) in rows {
        assert_eq!(answer::is_local(host), local, "{host}");
    }
}
