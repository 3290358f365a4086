//! One request and its answer, on the thread's own runtime: [`crate::client`] brings that thread
//! into a namespace.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    HeaderMap, Method, Request,
    body::{Body, Incoming},
    client::conn::http1,
    header::{CONNECTION, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    time,
};

use crate::echo::BACKEND_HEADER;
use crate::pace::at_this_pace;

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
            connect_timeout: at_this_pace(Duration::from_secs(2)),
            read_timeout: at_this_pace(Duration::from_secs(5)),
            source: None,
            reset: false,
        }
    }
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

/// Sends one datagram and waits for the answer.
pub(crate) async fn udp(
    options: &Options,
    to: SocketAddr,
    payload: &[u8],
) -> Result<(Vec<u8>, UdpSocket), RequestError> {
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
        .map(|answer| (answer, socket))
        .map_err(|error: io::Error| RequestError::Connect(error.kind()))
}
