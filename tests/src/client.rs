//! Requests from inside a namespace: HTTP with a connection each, and UDP.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::{
    HeaderMap, Method, Request,
    body::{Body, Incoming},
    client::conn::http1,
    header::{CONNECTION, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    runtime,
    task::JoinSet,
    time,
};

use crate::{
    echo::BACKEND_HEADER,
    namespace::{Entry, Namespace},
};

/// How requests are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Limit for the handshake.
    pub connect_timeout: Duration,
    /// Limit for the head of the answer, for each piece of its body, and for a UDP answer.
    pub read_timeout: Duration,
    /// Source address; port 0: any. A port is taken even while its last connection lingers.
    pub source: Option<SocketAddr>,
    /// Close with a reset, so that a chosen port can be used again at once.
    pub reset: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            read_timeout: Duration::from_secs(5),
            source: None,
            reset: false,
        }
    }
}

/// Makes requests from one namespace.
#[derive(Clone, Debug)]
pub struct Client {
    namespace: Entry,
    /// How requests are made.
    pub options: Options,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum RequestError {
    /// The namespace is gone, or no socket is to be had.
    #[error("cannot begin: {0}")]
    Setup(String),
    /// The source address cannot be used.
    #[error("cannot bind {address}: {kind}")]
    Bind {
        /// As asked for.
        address: SocketAddr,
        /// The system's word.
        kind: io::ErrorKind,
    },
    /// The handshake failed.
    #[error("cannot connect: {0}")]
    Connect(io::ErrorKind),
    /// Nobody answered the handshake.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The connection stands, but nothing comes.
    #[error("no answer within {0:?}")]
    AnswerTimeout(Duration),
    /// The connection ended before the answer did.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Another status than 200.
    #[error("status {0}")]
    Status(u16),
    /// An answer that no echo service gave.
    #[error("the answer does not name its backend")]
    Unmarked,
    /// The first wrong byte of a transfer.
    #[error("wrong data at byte {0}")]
    Corrupt(u64),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The client's port.
    pub local_port: u16,
}

impl Response {
    /// The backend that names itself in the answer.
    pub fn backend(&self) -> Option<&str> {
        self.headers.get(BACKEND_HEADER)?.to_str().ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The backend's name, if the answer is one of an echo service and has status 200.
    fn mark(self) -> Result<String, RequestError> {
        if self.status != 200 {
            return Err(RequestError::Status(self.status));
        }
        let mark = self.backend().ok_or(RequestError::Unmarked)?;
        Ok(mark.to_owned())
    }
}

/// Who answered how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Answers by backend.
    pub backends: BTreeMap<String, usize>,
    /// Failures by reason.
    pub failures: BTreeMap<RequestError, usize>,
}

impl Spread {
    /// Number of answers.
    pub fn answered(&self) -> usize {
        self.backends.values().sum()
    }

    /// Number of failures.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// Answers of one backend.
    pub fn of(&self, backend: &str) -> usize {
        self.backends.get(backend).copied().unwrap_or(0)
    }

    /// Counts one request; `Ok` holds the backend's name.
    pub fn count(&mut self, outcome: Result<String, RequestError>) {
        match outcome {
            Ok(backend) => *self.backends.entry(backend).or_default() += 1,
            Err(error) => *self.failures.entry(error).or_default() += 1,
        }
    }
}

impl Client {
    /// A client in `namespace`.
    pub fn new(namespace: &Namespace) -> Self {
        Self::at(namespace.entry())
    }

    /// A client behind an [`Entry`].
    pub fn at(namespace: Entry) -> Self {
        Self {
            namespace,
            options: Options::default(),
        }
    }

    /// The same client with one source address, any port.
    pub fn from(&self, source: IpAddr) -> Self {
        let mut client = self.clone();
        client.options.source = Some(SocketAddr::new(source, 0));
        client
    }

    /// The same client with other limits for the handshake and for the answer.
    pub fn patience(&self, limit: Duration) -> Self {
        let mut client = self.clone();
        client.options.connect_timeout = limit;
        client.options.read_timeout = limit;
        client
    }

    /// `GET path`. An answer is an answer, whatever its status.
    pub fn get(&self, to: SocketAddr, path: &str) -> Result<Response, RequestError> {
        self.request(Method::GET, to, path, Bytes::new())
    }

    /// `POST path` without a body.
    pub fn post(&self, to: SocketAddr, path: &str) -> Result<Response, RequestError> {
        self.request(Method::POST, to, path, Bytes::new())
    }

    /// `PUT path` with a body.
    pub fn put(
        &self,
        to: SocketAddr,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Response, RequestError> {
        self.request(Method::PUT, to, path, body.into())
    }

    fn request(
        &self,
        method: Method,
        to: SocketAddr,
        path: &str,
        body: Bytes,
    ) -> Result<Response, RequestError> {
        self.inside(async || {
            let exchange =
                Exchange::begin(&self.options, to, method, path, Full::new(body)).await?;
            exchange.collect(&self.options).await
        })
    }

    /// Sends `count` requests `GET /`, each on a connection of its own, `concurrency` at a time.
    pub fn spread(&self, to: SocketAddr, count: usize, concurrency: usize) -> Spread {
        self.repeat(count, concurrency, move |options| async move {
            get_mark(&options, to).await
        })
    }

    /// Sends one datagram and waits for the answer.
    pub fn udp(&self, to: SocketAddr, payload: &[u8]) -> Result<Vec<u8>, RequestError> {
        self.inside(async || udp(&self.options, to, payload).await)
    }

    /// Sends `count` datagrams, each from a socket of its own, `concurrency` at a time.
    pub fn spread_udp(&self, to: SocketAddr, count: usize, concurrency: usize) -> Spread {
        self.repeat(count, concurrency, move |options| async move {
            let answer = udp(&options, to, b"ping").await?;
            let answer = String::from_utf8_lossy(&answer);
            let (mark, _) = answer.split_once(':').ok_or(RequestError::Unmarked)?;
            Ok(mark.to_owned())
        })
    }

    fn repeat<F>(
        &self,
        count: usize,
        concurrency: usize,
        once: impl Fn(Options) -> F + Clone + Send + Sync + 'static,
    ) -> Spread
    where
        F: Future<Output = Result<String, RequestError>> + Send,
    {
        let spread = self.inside(async || {
            let begun = Arc::new(AtomicUsize::new(0));
            let mut workers = JoinSet::new();
            for _ in 0..concurrency.min(count) {
                let (begun, once) = (Arc::clone(&begun), once.clone());
                let options = self.options.clone();
                workers.spawn(async move {
                    let mut spread = Spread::default();
                    while begun.fetch_add(1, Ordering::Relaxed) < count {
                        spread.count(once(options.clone()).await);
                    }
                    spread
                });
            }
            let mut total = Spread::default();
            for part in workers.join_all().await {
                for (backend, answers) in part.backends {
                    *total.backends.entry(backend).or_default() += answers;
                }
                for (error, failures) in part.failures {
                    *total.failures.entry(error).or_default() += failures;
                }
            }
            Ok(total)
        });
        spread.unwrap_or_else(|error| Spread {
            failures: [(error, count)].into(),
            ..Spread::default()
        })
    }

    /// Runs `work` on a thread inside the namespace.
    pub(crate) fn inside<T: Send>(
        &self,
        work: impl AsyncFnOnce() -> Result<T, RequestError> + Send,
    ) -> Result<T, RequestError> {
        thread::scope(|scope| {
            scope
                .spawn(|| runtime_inside(&self.namespace)?.block_on(work()))
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The way into the client's namespace.
    pub(crate) fn namespace(&self) -> &Entry {
        &self.namespace
    }
}

/// Moves the calling thread into the namespace and gives it a runtime.
pub(crate) fn runtime_inside(namespace: &Entry) -> Result<runtime::Runtime, RequestError> {
    namespace
        .enter()
        .map_err(|error| RequestError::Setup(format!("{error:#}")))?;
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| RequestError::Setup(error.to_string()))
}

/// One `GET /` to an echo service; the name of the backend that answered with status 200.
pub(crate) async fn get_mark(options: &Options, to: SocketAddr) -> Result<String, RequestError> {
    let exchange = Exchange::begin(options, to, Method::GET, "/", Empty::new()).await?;
    exchange.collect(options).await?.mark()
}

/// A request whose answer has begun.
pub(crate) struct Exchange {
    pub(crate) answer: hyper::Response<Incoming>,
    local_port: u16,
}

impl Exchange {
    /// Connects, sends the request and waits for the head of the answer.
    pub(crate) async fn begin<B>(
        options: &Options,
        to: SocketAddr,
        method: Method,
        path: &str,
        body: B,
    ) -> Result<Self, RequestError>
    where
        B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
    {
        let stream = connect(options, to).await?;
        let local_port = stream
            .local_addr()
            .map_err(|error| RequestError::Setup(error.to_string()))?
            .port();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, to.to_string())
            .header(CONNECTION, "close")
            .body(body)
            .map_err(|error| RequestError::Setup(error.to_string()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // It ends with the answer; its error comes out of the answer, too.
        tokio::spawn(connection);
        let answer = time::timeout(options.read_timeout, sender.send_request(request))
            .await
            .map_err(|_| RequestError::AnswerTimeout(options.read_timeout))?
            .map_err(|error| broken(&error))?;
        Ok(Self { answer, local_port })
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn next(&mut self, options: &Options) -> Result<Option<Bytes>, RequestError> {
        loop {
            let frame = time::timeout(options.read_timeout, self.answer.body_mut().frame())
                .await
                .map_err(|_| RequestError::AnswerTimeout(options.read_timeout))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Reads the body to its end.
    pub(crate) async fn collect(mut self, options: &Options) -> Result<Response, RequestError> {
        let mut body = Vec::new();
        while let Some(data) = self.next(options).await? {
            body.extend_from_slice(&data);
        }
        Ok(Response {
            status: self.answer.status().as_u16(),
            headers: std::mem::take(self.answer.headers_mut()),
            body: body.into(),
            local_port: self.local_port,
        })
    }
}

/// The innermost cause says what happened: "connection reset by peer".
fn broken(error: &hyper::Error) -> RequestError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    RequestError::Broken(cause.to_string())
}

async fn connect(options: &Options, to: SocketAddr) -> Result<TcpStream, RequestError> {
    let setup = |error: io::Error| RequestError::Setup(error.to_string());
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
    .map_err(setup)?;
    if let Some(address) = options.source {
        socket.set_reuseaddr(true).map_err(setup)?;
        socket.bind(address).map_err(|error| RequestError::Bind {
            address,
            kind: error.kind(),
        })?;
    }
    if options.reset {
        socket.set_zero_linger().map_err(setup)?;
    }
    let stream = time::timeout(options.connect_timeout, socket.connect(to))
        .await
        .map_err(|_| RequestError::ConnectTimeout(options.connect_timeout))?
        .map_err(|error| RequestError::Connect(error.kind()))?;
    stream.set_nodelay(true).map_err(setup)?;
    Ok(stream)
}

async fn udp(options: &Options, to: SocketAddr, payload: &[u8]) -> Result<Vec<u8>, RequestError> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let address = options.source.unwrap_or(SocketAddr::new(any, 0));
    let socket = UdpSocket::bind(address)
        .await
        .map_err(|error| RequestError::Bind {
            address,
            kind: error.kind(),
        })?;
    let answered = async {
        // Connected, so that only this peer's answer counts and its refusal is heard.
        socket.connect(to).await?;
        socket.send(payload).await?;
        let mut buffer = vec![0; 65_536];
        let length = socket.recv(&mut buffer).await?;
        buffer.truncate(length);
        Ok(buffer)
    };
    time::timeout(options.read_timeout, answered)
        .await
        .map_err(|_| RequestError::AnswerTimeout(options.read_timeout))?
        .map_err(|error: io::Error| RequestError::Connect(error.kind()))
}
