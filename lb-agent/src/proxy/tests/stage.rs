//! A proxy with its real listeners, a backend that writes down what reaches it and answers as it
//! is told, and clients that send bytes as they are.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::{
    config::proxy::{ListenerConfig, ProxyConfig},
    domain::{http::policy::HttpPolicy, service::Protocol},
    proxy::{
        engine::{Shared, tests::rig::snapshot},
        front::{Pool, holder::Keep},
        telemetry::Telemetry,
    },
};

/// Nothing here takes longer.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// A request as a backend got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The request line and the headers, a line each.
    pub(super) head: Vec<String>,
    /// The body, still framed.
    pub(super) body: String,
}

impl Seen {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    head.iter().skip(1).find_map(|line| {
        let (own, value) = line.split_once(": ")?;
        own.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// The proxy and the only backend of its service `web`.
pub(super) struct Stage {
    pub(super) proxy: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    /// Serves as long as this is there.
    _pool: Pool,
}

/// What a backend does with a request; an error ends its connection.
type Answer = dyn Fn(&Seen, &mut TcpStream) -> io::Result<()> + Send + Sync;

impl Stage {
    /// A backend that answers each request alike.
    pub(super) fn answering(answer: &'static str) -> Self {
        Self::with(move |_, stream| stream.write_all(answer.as_bytes()))
    }

    /// A backend that answers a head and ends after so long, without a look at the body.
    pub(super) fn early(answer: &'static str, after: Duration) -> Self {
        Self::serving(Arc::default(), move |mut stream| {
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            while find(&bytes, b"\r\n\r\n").is_none() {
                match stream.read(&mut buffer) {
                    Ok(length @ 1..) => bytes.extend_from_slice(&buffer[..length]),
                    _ => return,
                }
            }
            let _ = stream.write_all(answer.as_bytes());
            // The end resets the connection.
            thread::sleep(after);
        })
    }

    pub(super) fn with(
        answer: impl Fn(&Seen, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let record = Arc::clone(&seen);
        let answer: Arc<Answer> = Arc::new(answer);
        Self::serving(seen, move |stream| serve(stream, &record, &*answer))
    }

    fn serving(
        seen: Arc<Mutex<Vec<Seen>>>,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let config = ProxyConfig::default();
        let serve = Arc::new(serve);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = listener.local_addr().unwrap();
        let connections = Arc::<Mutex<usize>>::default();
        let count = Arc::clone(&connections);
        // It ends with the process: nobody connects to it after the test.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                *count.lock().unwrap() += 1;
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        let shared = Shared::new(Telemetry::default(), 1, config.bounds.headers);
        let policy = HttpPolicy::default();
        shared.update(&snapshot(policy, Protocol::Http, &[backend]));
        // Nobody holds its sockets.
        let keep = Keep::find("/nonexistent/held".into(), |_| {
            Err(io::ErrorKind::Other.into())
        });
        let mut pool = Pool::new(1, shared, &config, keep);
        let listener = ListenerConfig {
            address: "127.0.0.1:0".parse().unwrap(),
            certificates: Vec::new(),
            proxy_protocol: false,
        };
        let proxy = pool.share(&listener).unwrap();
        pool.begin();
        Self {
            proxy,
            seen,
            connections,
            _pool: pool,
        }
    }

    /// What the backend got since this was last asked.
    pub(super) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// How many connections the backend has had.
    pub(super) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.proxy).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends bytes as they are, and answers with all that comes until the proxy closes.
    pub(super) fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // What is refused early need not be taken whole.
        let _ = stream.write_all(bytes);
        let mut answers = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answers) {
            let so_far = String::from_utf8_lossy(&answers).into_owned();
            let sent = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
            panic!("{error} after {so_far:?} for {sent:?}");
        }
        answers
    }

    /// A request of these header lines, on a connection of its own; its answer.
    pub(super) fn ask(&self, line: &str, headers: &str) -> Got {
        let request = format!("{line} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n{headers}\r\n");
        Got::read(&self.raw(request.as_bytes()))
    }
}

fn serve(mut stream: TcpStream, record: &Mutex<Vec<Seen>>, answer: &Answer) {
    let mut rest = Vec::new();
    while let Some(seen) = request(&mut stream, &mut rest) {
        record.lock().unwrap().push(seen.clone());
        if answer(&seen, &mut stream).is_err() {
            // Without a look at what else has come, which would reset the connection.
            let _ = stream.shutdown(Shutdown::Write);
            return;
        }
    }
}

/// Reads a request from what came before and what comes.
fn request(stream: &mut TcpStream, rest: &mut Vec<u8>) -> Option<Seen> {
    loop {
        if let Some((seen, length)) = parse(rest) {
            rest.drain(..length);
            return Some(seen);
        }
        let mut buffer = [0; 16 * 1024];
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => rest.extend_from_slice(&buffer[..length]),
            _ => return None,
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(Seen, usize)> {
    let end = find(bytes, b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let head: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
    let body = &bytes[end + 4..];
    let length = if header(&head, "transfer-encoding").is_some() {
        chunked(body)?
    } else {
        let length = header(&head, "content-length").map_or(0, |value| value.parse().unwrap());
        Some(length).filter(|length| body.len() >= *length)?
    };
    let body = String::from_utf8_lossy(&body[..length]).into_owned();
    Some((Seen { head, body }, end + 4 + length))
}

/// How long a body in chunks is with its trailers.
pub(super) fn chunked(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = at + find(&body[at..], b"\r\n")?;
        let size = std::str::from_utf8(&body[at..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        at = line + 2;
        if size == 0 {
            loop {
                let line = at + find(&body[at..], b"\r\n")?;
                let empty = line == at;
                at = line + 2;
                if empty {
                    return Some(at);
                }
            }
        }
        at += size + 2;
        body.get(..at)?;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// An answer taken apart, and what came behind it.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) head: Vec<String>,
    /// Everything behind the head, as it came.
    pub(super) rest: Vec<u8>,
}

impl Got {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let end = find(bytes, b"\r\n\r\n").unwrap_or(bytes.len());
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let head: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
        let status = head[0].split(' ').nth(1);
        Self {
            status: status.and_then(|status| status.parse().ok()).unwrap_or(0),
            rest: bytes.get(end + 4..).unwrap_or_default().to_vec(),
            head,
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }
}

/// The statuses of all answers in what came.
pub(super) fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    let heads = text.split("HTTP/1.").skip(1);
    heads
        .filter_map(|head| head.get(2..5)?.parse().ok())
        .collect()
}
