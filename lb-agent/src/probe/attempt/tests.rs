//! Each kind of probe against what answers, or does not, on loopback.

mod secure;

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

use super::*;
use crate::domain::{backend::InstanceId, service::ProbeSpec};

/// Long enough for a loaded machine wherever an answer is expected.
const PATIENT: Duration = Duration::from_secs(20);
/// For probes that must run into their timeout.
const HASTY: Duration = Duration::from_millis(150);

fn http(path: &str, host: Option<&str>) -> ProbeKind {
    ProbeKind::Http {
        path: path.into(),
        host: host.map(str::to_owned),
        status: vec![(200, 299)],
        body: None,
        tls: None,
    }
}

fn target(address: SocketAddr, kind: ProbeKind, timeout: Duration) -> Arc<Target> {
    Arc::new(Target {
        service: "echo".into(),
        id: InstanceId(address.to_string().into()),
        address,
        spec: ProbeSpec {
            kind,
            timeout,
            ..ProbeSpec::default()
        },
    })
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A port on which nothing listens, and on which nothing can while the socket is held.
fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn read_header(stream: &mut TcpStream) -> String {
    let mut header = Vec::new();
    while !header.ends_with(b"\r\n\r\n") {
        header.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(header).unwrap()
}

/// Takes one request, sends `answer` and closes; ends with the request's header.
async fn answering(answer: Vec<u8>) -> (SocketAddr, JoinHandle<String>) {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let header = read_header(&mut stream).await;
        stream.write_all(&answer).await.unwrap();
        header
    });
    (address, server)
}

async fn words(target: Arc<Target>) -> String {
    match probe(target, Arc::default()).await {
        Ok(()) => "success".into(),
        Err(failure) => failure.to_string(),
    }
}

/// A connection that is accepted by the kernel is success, and is closed in order.
#[tokio::test]
async fn tcp_accepted() {
    let (listener, address) = listener().await;
    assert_eq!(
        words(target(address, ProbeKind::Tcp, PATIENT)).await,
        "success"
    );
    let (mut stream, _) = listener.accept().await.unwrap();
    let end = stream.read(&mut [0; 1]).await;
    assert_eq!(end.unwrap(), 0, "a FIN and no reset");
}

/// Both kinds of probe, when nothing listens.
#[tokio::test]
async fn refused() {
    let (_socket, address) = closed_port();
    for kind in [ProbeKind::Tcp, http("/", None)] {
        let words = words(target(address, kind, PATIENT)).await;
        assert_eq!(words, "connection refused");
    }
}

/// A full backlog swallows the SYN: the timeout decides.
#[tokio::test]
async fn tcp_hangs() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = tokio::time::timeout(HASTY, TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
    }
    let words = words(target(address, ProbeKind::Tcp, HASTY)).await;
    assert_eq!(words, "no answer within 150ms");
}

/// What servers answer, and what becomes of it.
#[tokio::test]
async fn http_answers() {
    let huge = format!(
        "HTTP/1.1 200 OK\r\nx: {}\r\n\r\n",
        "x".repeat(2 * 16 * 1024)
    );
    let rows = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "success"),
        ("HTTP/1.0 204 No Content\r\n\r\n", "success"),
        // The body is promised and never comes; nobody waits for it.
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", "success"),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "success",
        ),
        (
            "HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n",
            "HTTP status 302",
        ),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "HTTP status 404"),
        ("HTTP/1.1 503 Unavailable\r\n\r\n", "HTTP status 503"),
        ("", "connection closed before an answer"),
        (
            "HTTP/1.1 200 OK\r\nx: ",
            "connection closed before an answer",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", "the answer is not valid HTTP/1"),
        ("HTTP/9.9 200 OK\r\n\r\n", "the answer is not valid HTTP/1"),
        (&huge, "the answer is not valid HTTP/1"),
    ];
    for (answer, expected) in rows {
        let (address, server) = answering(answer.as_bytes().to_vec()).await;
        let words = words(target(address, http("/health", None), PATIENT)).await;
        assert_eq!(words, expected, "for {answer:.40}");
        server.abort();
    }
}

/// What the backend gets to see.
#[tokio::test]
async fn http_request() {
    let rows = [(None, None), (Some("echo.example"), Some("echo.example"))];
    for (host, expected) in rows {
        let (address, server) = answering(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()).await;
        let kind = http("/health?deep=1", host);
        assert_eq!(words(target(address, kind, PATIENT)).await, "success");
        let header = server.await.unwrap();
        let expected = expected.map_or(address.to_string(), str::to_owned);
        assert!(
            header.starts_with("GET /health?deep=1 HTTP/1.1\r\n"),
            "{header}"
        );
        for line in [
            format!("host: {expected}"),
            format!("user-agent: lb-agent/{}", env!("CARGO_PKG_VERSION")),
            "connection: close".to_owned(),
        ] {
            assert!(header.contains(&format!("\r\n{line}\r\n")), "{header}");
        }
    }
}

/// A server that takes the request and says nothing: the timeout decides, and the
/// connection does not outlive the probe.
#[tokio::test]
async fn http_hangs() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_header(&mut stream).await;
        stream.read(&mut [0; 1]).await.unwrap()
    });
    let words = words(target(address, http("/", None), HASTY)).await;
    assert_eq!(words, "no answer within 150ms");
    assert_eq!(server.await.unwrap(), 0);
}

/// A reset in the middle of the answer.
#[tokio::test]
async fn http_reset() {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_header(&mut stream).await;
        stream.set_zero_linger().unwrap();
    });
    let words = words(target(address, http("/", None), PATIENT)).await;
    assert_eq!(words, "connection reset");
}

/// A request that cannot be built is nobody's fault but the spec's, and opens no connection.
#[tokio::test]
async fn http_impossible_request() {
    let (listener, address) = listener().await;
    for kind in [http("/a b", None), http("/", Some("a\nb"))] {
        let target = target(address, kind, PATIENT);
        let failure = probe(target, Arc::default()).await.unwrap_err();
        assert!(matches!(failure, ProbeFailure::Request(_)), "{failure}");
        assert!(!failure.blames_backend());
    }
    let accepted = tokio::time::timeout(HASTY, listener.accept()).await;
    assert!(accepted.is_err(), "a connection was opened");
}

/// The spec's port is probed instead of the backend's.
#[tokio::test]
async fn port_of_its_own() {
    let (_socket, closed) = closed_port();
    let (_listener, open) = listener().await;
    let mut diverted = (*target(closed, ProbeKind::Tcp, PATIENT)).clone();
    diverted.spec.port = Some(open.port());
    assert_eq!(words(Arc::new(diverted)).await, "success");
}

/// A body that is wanted: found wherever it begins, even in two pieces and before the body's end;
/// looked for only where the status is right.
#[tokio::test]
async fn http_bodies() {
    let body = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let far = format!("{}ready", " ".repeat(70_000));
    let missing = "the answer's body does not contain \"ready\"";
    let rows = [
        (body("ready"), "success"),
        (body("{\"state\": \"ready\"}"), "success"),
        (body("not yet"), missing),
        (body(""), missing),
        // Beyond what is searched.
        (body(&far), missing),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n".into(),
            "success",
        ),
        (
            "HTTP/1.1 500 Oh\r\ncontent-length: 5\r\n\r\nready".into(),
            "HTTP status 500",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nrea".into(),
            "connection closed before an answer",
        ),
    ];
    for (answer, expected) in rows {
        let (address, server) = answering(answer.clone().into_bytes()).await;
        let kind = ProbeKind::Http {
            path: "/".into(),
            host: None,
            status: vec![(200, 299)],
            body: Some("ready".into()),
            tls: None,
        };
        assert_eq!(
            words(target(address, kind, PATIENT)).await,
            expected,
            "{answer:.60}"
        );
        server.abort();
    }
}

/// Several ranges.
#[tokio::test]
async fn http_statuses() {
    for (status, expected) in [(204, "success"), (401, "success"), (302, "HTTP status 302")] {
        let answer = format!("HTTP/1.1 {status} X\r\n\r\n");
        let (address, server) = answering(answer.into_bytes()).await;
        let kind = ProbeKind::Http {
            path: "/".into(),
            host: None,
            status: vec![(200, 299), (401, 401)],
            body: None,
            tls: None,
        };
        assert_eq!(words(target(address, kind, PATIENT)).await, expected);
        server.abort();
    }
}
