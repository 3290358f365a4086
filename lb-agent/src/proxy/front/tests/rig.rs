//! A thread of the proxy with one listener, and raw clients.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use super::super::{
    Place,
    admission::Admission,
    certificates::Certificates,
    crew::Crew,
    ending::Ending,
    gathering::{Gathering, Turn},
    life::Pace,
    worker::{self, Facts, Order},
};
use crate::{
    config::proxy::Bounds,
    domain::{
        http::{exchange::Exchange, policy::HttpPolicy},
        service::Protocol,
    },
    proxy::{
        engine::{
            Shared,
            tests::rig::{Local, SOON, snapshot},
        },
        telemetry::Telemetry,
    },
};

/// Longer than any test.
pub(super) const LONG: Duration = Duration::from_secs(3600);
/// Long enough that what is to happen before it does, and short enough to wait for it.
pub(super) const SHORT: Duration = Duration::from_millis(300);
/// After a stop is told.
pub(super) const GRACE: Duration = Duration::from_millis(200);
/// Records of requests that are kept.
const RECORDS: usize = 64;
/// A request. [`OK`] answers it.
pub(super) const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
/// The same from who wants no other on its connection.
pub(super) const CLOSING: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Nothing ends by itself.
pub(super) fn patient() -> Bounds {
    Bounds {
        head_timeout: LONG,
        keep_alive: LONG,
        ..Bounds::default()
    }
}

/// What connections begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Tls,
    Proxied,
}

/// A thread that serves.
pub(super) struct Front {
    pub(super) address: SocketAddr,
    pub(super) facts: Arc<Facts>,
    orders: Vec<mpsc::UnboundedSender<Order>>,
    threads: Vec<JoinHandle<()>>,
    /// What is told of requests; beyond [`RECORDS`] nothing is.
    pub(super) records: mpsc::Receiver<Exchange>,
    certificate: Option<CertificateDer<'static>>,
    _files: Option<tempfile::TempDir>,
}

/// What a thread does, with little patience at a stop.
fn serve(number: usize, facts: Arc<Facts>, orders: mpsc::UnboundedReceiver<Order>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .unwrap();
    let linger = u64::try_from(GRACE.as_millis()).unwrap();
    let pace = Pace {
        linger,
        linger_new: linger,
        grain: 10,
        ..Pace::new(&facts.bounds)
    };
    runtime.block_on(worker::work(number, facts, orders, pace));
}

impl Front {
    pub(super) fn start(
        bounds: Bounds,
        kind: Kind,
        policy: HttpPolicy,
        backend: SocketAddr,
    ) -> Self {
        Self::of(1, bounds, kind, policy, backend)
    }

    /// Several threads, of which the first accepts.
    pub(super) fn of(
        threads: usize,
        bounds: Bounds,
        kind: Kind,
        policy: HttpPolicy,
        backend: SocketAddr,
    ) -> Self {
        let (sender, records) = mpsc::channel(RECORDS);
        let shared = Shared::new(Telemetry::to(sender), threads, bounds.headers);
        shared.update(&snapshot(policy, Protocol::Http, &[backend]));
        let (orders, receivers): (Vec<_>, Vec<_>) =
            (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
        let facts = Arc::new(Facts {
            crew: Crew::new(&orders),
            gathering: Gathering::new(threads),
            shared,
            admission: Admission::new(bounds.connections, bounds.per_client),
            ending: Arc::new(Ending::new()),
            bounds,
            trusted: vec!["127.0.0.0/8".parse().unwrap()],
        });
        let threads = receivers.into_iter().enumerate();
        let threads = threads.map(|(number, receiver)| {
            let facts = Arc::clone(&facts);
            std::thread::spawn(move || serve(number, facts, receiver))
        });
        let threads = threads.collect();
        let mut front = Self {
            address: ([127, 0, 0, 1], 0).into(),
            facts,
            orders,
            threads,
            records,
            certificate: None,
            _files: None,
        };
        let tls = (kind == Kind::Tls).then(|| front.certify());
        front.address = front.open(Place {
            service: None,
            proxy_protocol: kind == Kind::Proxied,
            tls,
        });
        front
    }

    fn certify(&mut self) -> TlsAcceptor {
        let files = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["web".to_owned()]).unwrap();
        let path = |name| -> PathBuf { files.path().join(name) };
        let (chain, key) = (path("chain"), path("key"));
        std::fs::write(&chain, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        self.certificate = Some(CertificateDer::from_pem_file(&chain).unwrap());
        let certificates = Certificates::read(&[(chain, key)]).unwrap();
        self._files = Some(files);
        TlsAcceptor::from(certificates.config().unwrap())
    }

    /// Opens one more listener.
    pub(super) fn open(&self, place: Place) -> SocketAddr {
        self.open_on(&[(0, Turn::Always)], place)
    }

    /// The same, for these threads, each at its turn.
    pub(super) fn open_on(&self, threads: &[(usize, Turn)], place: Place) -> SocketAddr {
        let socket = Arc::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let place = Arc::new(place);
        for (number, turn) in threads {
            let order = Order::Open(address, Arc::clone(&socket), *turn, Arc::clone(&place));
            self.orders[*number].send(order).unwrap();
        }
        address
    }

    pub(super) async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// A client that has sent this.
    pub(super) async fn sending(&self, bytes: &[u8]) -> Client {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client
    }

    /// A client that has done its handshake.
    pub(super) async fn connect_tls(&self, protocols: &[&str]) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone().unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let protocols = protocols.iter();
        config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("web").unwrap();
        connector.connect(name, stream).await.unwrap()
    }

    /// Connections there are, as its counts have it.
    pub(super) fn connections(&self) -> i64 {
        let counts = self.facts.shared.telemetry().counts();
        counts.listener(self.address).open.load(Relaxed)
    }

    /// Waits until there are so many connections.
    pub(super) async fn until_connections(&self, wanted: i64) {
        let begun = Instant::now();
        while self.connections() != wanted {
            assert!(begun.elapsed() < SOON, "{} stay", self.connections());
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn tell_stop(&self, patience: Duration) {
        self.facts.ending.begin();
        let end = tokio::time::Instant::now() + patience;
        for orders in &self.orders {
            orders.send(Order::Stop(end)).unwrap();
        }
    }

    /// Waits until the thread has ended.
    pub(super) async fn ended(self) {
        let mut threads = self.threads.into_iter();
        let joined =
            tokio::task::spawn_blocking(move || threads.all(|thread| thread.join().is_ok()));
        let joined = timeout(SOON, joined).await.expect("a thread goes on");
        assert!(joined.unwrap());
    }
}

/// A client of bytes.
pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Reads until this has come.
    pub(super) async fn expect(&mut self, end: &str) -> String {
        let mut got = Vec::new();
        let read = async {
            while !got.ends_with(end.as_bytes()) {
                let mut buffer = [0; 4096];
                let read = self.0.read(&mut buffer).await.unwrap();
                assert!(read > 0, "{:?} and no more", String::from_utf8_lossy(&got));
                got.extend_from_slice(&buffer[..read]);
            }
        };
        timeout(SOON, read).await.expect("nothing comes");
        String::from_utf8(got).unwrap()
    }

    /// Sends a request, and reads its answer.
    pub(super) async fn ask(&mut self) -> String {
        self.send(GET.as_bytes()).await;
        self.expect("ok").await
    }

    /// All that comes until the end.
    pub(super) async fn rest(&mut self) -> String {
        rest(&mut self.0).await
    }
}

/// All that comes until the end, which may be a reset.
pub(super) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut got = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut got))
        .await
        .expect("no end");
    String::from_utf8_lossy(&got).into_owned()
}

/// A client of HTTP/2 that pings all the time, with these bytes of window a stream, and its task
/// that ends with the connection.
pub(super) async fn http2(
    stream: impl AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    window: u32,
) -> (
    http2::SendRequest<Empty<Bytes>>,
    tokio::task::JoinHandle<hyper::Result<()>>,
) {
    let (client, connection) = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_millis(20))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(window)
        .max_header_list_size(1 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    (client, tokio::task::spawn_local(connection))
}
