//! The echo service that plays a backend. Every HTTP answer names it in `x-backend`.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /` | JSON: `hostname`, `text`, and if there are such `version` and `request_id` (the `X-Request-Id` that came) |
//! | `GET /head` | JSON: the headers that came, by name |
//! | `GET /health` | 200, or 503 between `POST /fail` and `POST /heal`, and while it drains |
//! | `GET /bytes/N` | the first N bytes of [`crate::pattern`] |
//! | `PUT /upload` | JSON: `bytes` and `sha256` of the body |
//! | datagram | `NAME:` and the datagram, from the same port over UDP |
//! | TCP, on a port of its own | the same bytes back |
//! | HTTPS, on a port of its own | as HTTP |
//! | gRPC health, on a port of its own | SERVING, or NOT_SERVING between fail and heal |

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    io::{self, AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
    time,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    authority,
    pattern::{PatternBody, hex},
};

/// Header that names the backend.
pub const BACKEND_HEADER: &str = "x-backend";

/// How long open requests may take to end after the service was asked to.
const GRACE: Duration = Duration::from_secs(2);

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name in `x-backend`, `hostname` and UDP answers.
    pub name: String,
    /// `text` of the answer to `GET /`.
    pub text: String,
    /// `version` of the answer to `GET /`.
    pub version: Option<String>,
    /// How long everybody is still served after the request to end, while health says no.
    pub drain: Duration,
    /// Addresses for HTTP and UDP.
    pub listen: Vec<SocketAddr>,
    /// Port for the plain TCP echo, on the same addresses.
    pub tcp_echo: Option<u16>,
    /// Port for HTTPS, on the same addresses, and directory of the authority that issues the
    /// certificate; see [`crate::authority`].
    pub https: Option<(u16, PathBuf)>,
    /// Port for `grpc.health.v1`, on the same addresses.
    pub grpc: Option<u16>,
}

struct Service {
    name: String,
    mark: HeaderValue,
    text: String,
    version: Option<String>,
    failing: AtomicBool,
    /// Of gRPC.
    health: HealthReporter,
}

type Body = Either<Full<Bytes>, PatternBody>;

/// The request to end.
#[derive(Clone)]
struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Waits for it. That nobody is left to ask means the same.
    async fn requested(&self) {
        let _ = self.0.clone().wait_for(|stopped| *stopped).await;
    }
}

/// Serves until `shutdown` and for the time of the drain, then lets open requests end for at most two
/// seconds. Fails if an address cannot be bound.
pub async fn serve(options: Options, shutdown: impl Future<Output = ()>) -> Result<()> {
    let (health, grpc) = tonic_health::server::health_reporter();
    let service = Arc::new(Service {
        health,
        mark: HeaderValue::from_str(&options.name)
            .context("the name must do as the value of a header")?,
        name: options.name,
        text: options.text,
        version: options.version,
        failing: AtomicBool::new(false),
    });
    let (stop, stopped) = watch::channel(false);
    let stopped = Stop(stopped);
    let mut tasks = JoinSet::new();
    let acceptor = match &options.https {
        Some((_, directory)) => {
            let addresses = options.listen.iter().map(SocketAddr::ip).collect();
            Some(authority::acceptor(directory, addresses)?)
        }
        None => None,
    };
    for address in options.listen {
        let listener = bind(address).await?;
        tasks.spawn(accept(
            listener,
            Arc::clone(&service),
            stopped.clone(),
            serve_http,
        ));
        let socket = UdpSocket::bind(address)
            .await
            .with_context(|| format!("cannot listen on UDP {address}"))?;
        tasks.spawn(echo_datagrams(
            socket,
            Arc::clone(&service),
            stopped.clone(),
        ));
        if let Some(port) = options.tcp_echo {
            let listener = bind(SocketAddr::new(address.ip(), port)).await?;
            tasks.spawn(accept(
                listener,
                Arc::clone(&service),
                stopped.clone(),
                echo_bytes,
            ));
        }
        if let (Some((port, _)), Some(acceptor)) = (&options.https, &acceptor) {
            let listener = bind(SocketAddr::new(address.ip(), *port)).await?;
            let acceptor = acceptor.clone();
            tasks.spawn(accept(
                listener,
                Arc::clone(&service),
                stopped.clone(),
                move |stream, service, stopped| {
                    serve_https(acceptor.clone(), stream, service, stopped)
                },
            ));
        }
        if let Some(port) = options.grpc {
            let listener = bind(SocketAddr::new(address.ip(), port)).await?;
            let incoming = TcpListenerStream::new(listener);
            let (grpc, stopped) = (grpc.clone(), stopped.clone());
            tasks.spawn(async move {
                let server = tonic::transport::Server::builder().add_service(grpc);
                let end = async move { stopped.requested().await };
                // How connections end is their clients' business.
                let _ = server.serve_with_incoming_shutdown(incoming, end).await;
            });
        }
    }
    shutdown.await;
    if !options.drain.is_zero() {
        service.set_failing(true).await;
        time::sleep(options.drain).await;
    }
    stop.send_replace(true);
    // What has not ended by then ends with the process.
    let _ = time::timeout(GRACE, tasks.join_all()).await;
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on TCP {address}"))
}

/// Accepts until asked to stop, then waits for the connections.
async fn accept<F>(
    listener: TcpListener,
    service: Arc<Service>,
    stopped: Stop,
    handle: impl Fn(TcpStream, Arc<Service>, Stop) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(handle(stream, Arc::clone(&service), stopped.clone()));
                }
                // Out of descriptors, most likely: let some connections end.
                Err(_) => time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
            _ = stopped.requested() => break,
        }
    }
    drop(listener);
    connections.join_all().await;
}

async fn serve_https(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    service: Arc<Service>,
    stopped: Stop,
) {
    // A client that does not trust the certificate says so itself.
    if let Ok(stream) = acceptor.accept(stream).await {
        converse(stream, service, stopped).await;
    }
}

async fn serve_http(stream: TcpStream, service: Arc<Service>, stopped: Stop) {
    // A failure costs latency only.
    let _ = stream.set_nodelay(true);
    converse(stream, service, stopped).await;
}

/// HTTP over a connection.
async fn converse<S>(stream: S, service: Arc<Service>, stopped: Stop)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = http1::Builder::new().serve_connection(
        TokioIo::new(stream),
        service_fn(move |request| {
            let service = Arc::clone(&service);
            async move { Ok::<_, Infallible>(service.answer(request).await) }
        }),
    );
    let mut connection = std::pin::pin!(connection);
    // How a connection ends is the client's business: it reports what it missed.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.requested() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn echo_bytes(mut stream: TcpStream, _: Arc<Service>, stopped: Stop) {
    let (mut reader, mut writer) = stream.split();
    tokio::select! {
        _ = io::copy(&mut reader, &mut writer) => {}
        _ = stopped.requested() => {}
    }
}

async fn echo_datagrams(socket: UdpSocket, service: Arc<Service>, stopped: Stop) {
    let mark = format!("{}:", service.name);
    let mut buffer = vec![0; 65_536];
    buffer[..mark.len()].copy_from_slice(mark.as_bytes());
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer[mark.len()..]) => {
                // Errors are those of earlier answers (port unreachable); datagrams may be lost.
                if let Ok((length, from)) = received {
                    let _ = socket.send_to(&buffer[..mark.len() + length], from).await;
                }
            }
            _ = stopped.requested() => return,
        }
    }
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let mut response = match (request.method(), path.as_str()) {
            (&Method::GET, "/") => self.introduce(&request),
            (&Method::GET, "/head") => {
                let headers = request.headers().iter();
                let headers: BTreeMap<&str, _> = headers
                    .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
                    .collect();
                json(&json!(headers))
            }
            (&Method::GET, "/health") if self.failing.load(Ordering::Relaxed) => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "failing\n")
            }
            (&Method::GET, "/health") => plain(StatusCode::OK, "ok\n"),
            (&Method::POST, "/fail") => self.set_failing(true).await,
            (&Method::POST, "/heal") => self.set_failing(false).await,
            (&Method::PUT, "/upload") => upload(request.into_body()).await,
            (&Method::GET, other) => match other.strip_prefix("/bytes/").map(str::parse) {
                Some(Ok(length)) => Response::new(Either::Right(PatternBody::new(length))),
                Some(Err(_)) => plain(StatusCode::BAD_REQUEST, "GET /bytes/N takes a number\n"),
                None => plain(StatusCode::NOT_FOUND, "no such path\n"),
            },
            _ => plain(StatusCode::NOT_FOUND, "no such path\n"),
        };
        response
            .headers_mut()
            .insert(BACKEND_HEADER, self.mark.clone());
        response
    }

    fn introduce(&self, request: &Request<Incoming>) -> Response<Body> {
        let mut told = json!({"hostname": self.name, "text": self.text});
        if let Some(version) = &self.version {
            told["version"] = json!(version);
        }
        if let Some(id) = request.headers().get("x-request-id") {
            told["request_id"] = json!(String::from_utf8_lossy(id.as_bytes()));
        }
        json(&told)
    }

    async fn set_failing(&self, failing: bool) -> Response<Body> {
        self.failing.store(failing, Ordering::Relaxed);
        let status = match failing {
            true => ServingStatus::NotServing,
            false => ServingStatus::Serving,
        };
        self.health.set_service_status("", status).await;
        plain(StatusCode::OK, "done\n")
    }
}

async fn upload(mut body: Incoming) -> Response<Body> {
    let mut digest = Sha256::new();
    let mut bytes = 0_u64;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return plain(StatusCode::BAD_REQUEST, "the body broke off\n");
        };
        if let Some(data) = frame.data_ref() {
            digest.update(data);
            bytes += data.len() as u64;
        }
    }
    json(&json!({"bytes": bytes, "sha256": hex(&digest.finalize())}))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = status;
    response
}

fn json(value: &serde_json::Value) -> Response<Body> {
    // The line's end is for those who look at it in a terminal.
    let mut response = Response::new(Either::Left(Full::from(format!("{value}\n"))));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
