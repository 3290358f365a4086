//! Services of made-up backends, an engine behind a listener of its own, and raw clients.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::LocalSet,
    time::timeout,
};

use crate::{
    domain::{
        backend::{CatalogHealth, Instance, InstanceId},
        gate::GateSpec,
        health::Observed,
        http::{exchange::Exchange, policy::HttpPolicy},
        precedence::SplitStack,
        service::{Affinity, Catalog, Forwarding, HealthPolicy, Origin, Protocol, ServiceSpec},
        snapshot::{BackendState, ServiceState, Snapshot},
    },
    proxy::{
        engine::{Arrival, Engine, Shared},
        telemetry::Telemetry,
    },
};

/// Nothing here takes longer.
pub(in crate::proxy) const SOON: Duration = Duration::from_secs(10);

/// Runs a test on one thread with local tasks.
pub(in crate::proxy) fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let test = async { timeout(3 * SOON, test).await.expect("the test hangs") };
    LocalSet::new().block_on(&runtime, test)
}

/// A service `web` of these backends, all of the same weight.
pub(in crate::proxy) fn snapshot(
    policy: HttpPolicy,
    protocol: Protocol,
    backends: &[SocketAddr],
) -> Snapshot {
    let backends: Vec<(SocketAddr, u32)> = backends.iter().map(|&address| (address, 1)).collect();
    weighted(1, policy, protocol, &backends)
}

/// The same with weights.
pub(in crate::proxy) fn weighted(
    version: u64,
    policy: HttpPolicy,
    protocol: Protocol,
    backends: &[(SocketAddr, u32)],
) -> Snapshot {
    let backend = |&(address, weight): &(SocketAddr, u32)| BackendState {
        instance: Instance {
            detail: Default::default(),
            id: InstanceId(address.to_string().into()),
            address,
            weight,
            tags: Arc::default(),
            meta: Arc::default(),
            subset: None,
            health: CatalogHealth::Passing,
        },
        subset: None,
        observed: Observed::Unknown,
        ejection: None,
        ramp: None,
        drain: None,
        held: None,
        weight,
        reason: "".into(),
    };
    let spec = ServiceSpec {
        name: "web".into(),
        vips: Vec::new(),
        protocol,
        forwarding: Forwarding::Nat,
        affinity: Affinity::Connection,
        allow: None,
        catalog: Catalog::Static(Vec::new()),
        subsets: BTreeMap::new(),
        split: None,
        probe: None,
        gate: GateSpec::default(),
        health: HealthPolicy::default(),
        http: Arc::new(policy),
        origin: Origin {
            file: PathBuf::from("test"),
            line: 1,
        },
    };
    let state = ServiceState {
        router: Default::default(),
        spec: Arc::new(spec),
        backends: backends.iter().map(backend).collect(),
        split: None,
        splits: SplitStack::default(),
        shift: None,
        panic: false,
        pending: false,
        notes: Vec::new(),
        routes: BTreeSet::new(),
        steering: None,
    };
    Snapshot {
        version,
        services: [("web".into(), Arc::new(state))].into(),
    }
}

/// An engine and where it is reached.
pub(in crate::proxy) struct Proxy {
    pub(in crate::proxy) address: SocketAddr,
    pub(in crate::proxy) shared: Arc<Shared>,
    pub(in crate::proxy) engine: Rc<Engine>,
    records: RefCell<mpsc::Receiver<Exchange>>,
}

impl Proxy {
    pub(in crate::proxy) async fn start(snapshot: &Snapshot) -> Self {
        Self::one_of(1, snapshot).await
    }

    /// The engine of one of so many threads.
    pub(in crate::proxy) async fn one_of(threads: usize, snapshot: &Snapshot) -> Self {
        let (sender, records) = mpsc::channel(1000);
        let shared = Shared::new(Telemetry::to(sender), threads, 100);
        shared.update(snapshot);
        let engine = Rc::new(Engine::new(Arc::clone(&shared), 0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Rc::clone(&engine);
        tokio::task::spawn_local(async move {
            while let Ok((stream, client)) = listener.accept().await {
                tokio::task::spawn_local(serve(Rc::clone(&serving), stream, client));
            }
        });
        Self {
            address,
            shared,
            engine,
            records: RefCell::new(records),
        }
    }

    /// The next record.
    pub(in crate::proxy) async fn record(&self) -> Exchange {
        let next = std::future::poll_fn(|context| self.records.borrow_mut().poll_recv(context));
        timeout(SOON, next).await.expect("no record").unwrap()
    }

    /// Sends a request as it stands, and answers with all that comes until the end.
    pub(in crate::proxy) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = timeout(SOON, read).await.expect("no end of the answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A request without a body, on a connection of its own.
    pub(in crate::proxy) async fn ask(&self, method: &str, more: &str) -> Got {
        let request =
            format!("{method} /x HTTP/1.1\r\nHost: web\r\nConnection: close\r\n{more}\r\n");
        Got::read(&self.raw(&request).await)
    }

    /// A POST with a body.
    pub(in crate::proxy) async fn post(&self, body: &str) -> Got {
        let length = body.len();
        let request = format!(
            "POST /x HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        Got::read(&self.raw(&request).await)
    }
}

/// An answer taken apart.
#[derive(Debug)]
pub(in crate::proxy) struct Got {
    pub(in crate::proxy) status: u16,
    pub(in crate::proxy) head: String,
    pub(in crate::proxy) body: String,
}

impl Got {
    pub(in crate::proxy) fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Self {
            status: status.unwrap_or(0),
            head: head.to_ascii_lowercase(),
            body: body.into(),
        }
    }
}

async fn serve(engine: Rc<Engine>, stream: TcpStream, client: SocketAddr) {
    let arrival = Arc::new(Arrival {
        client,
        peer: client,
        listener: stream.local_addr().unwrap(),
        tls: false,
        trusted: false,
        service: None,
        headers: 100,
    });
    let mut first = [0; 14];
    let preface = stream
        .peek(&mut first)
        .await
        .is_ok_and(|read| first[..read].starts_with(b"PRI"));
    let service = service_fn(move |request| {
        let (engine, arrival) = (Rc::clone(&engine), Arc::clone(&arrival));
        async move { Ok::<_, Infallible>(engine.handle(request, &arrival).await) }
    });
    let stream = TokioIo::new(stream);
    // How a connection ends is what the tests look at from its other side.
    if preface {
        let _ = hyper::server::conn::http2::Builder::new(Local)
            .serve_connection(stream, service)
            .await;
    } else {
        let served = hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
        let _ = served.with_upgrades().await;
    }
}

/// Runs futures on this thread.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// A backend that does with each connection (told by number) what the test says, and what it got.
pub(in crate::proxy) struct Backend {
    pub(in crate::proxy) address: SocketAddr,
    pub(in crate::proxy) connections: Rc<RefCell<u32>>,
}

impl Backend {
    pub(in crate::proxy) async fn start<F>(serve: impl Fn(TcpStream, u32) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Rc::new(RefCell::new(0));
        let count = Rc::clone(&connections);
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = *count.borrow();
                *count.borrow_mut() += 1;
                tokio::task::spawn_local(serve(stream, number));
            }
        });
        Self {
            address,
            connections,
        }
    }

    /// One that answers every request alike, and keeps its connections.
    pub(in crate::proxy) async fn answering(answer: &'static str) -> Self {
        Self::start(move |mut stream, _| async move {
            while read_request(&mut stream).await.is_some() {
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
        .await
    }

    /// One that answers with the request as it came.
    pub(in crate::proxy) async fn echoing() -> Self {
        Self::start(|mut stream, _| async move {
            while let Some(request) = read_request(&mut stream).await {
                let length = request.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                if stream.write_all(head.as_bytes()).await.is_err()
                    || stream.write_all(request.as_bytes()).await.is_err()
                {
                    return;
                }
            }
        })
        .await
    }

    pub(in crate::proxy) fn connections(&self) -> u32 {
        *self.connections.borrow()
    }
}

/// Reads a request, with its body as it is framed; `None`: the connection has ended.
pub(in crate::proxy) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1);
            let length = length.and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
            let chunked = head.contains("transfer-encoding: chunked");
            if chunked
                && (body.ends_with("\r\n0\r\n\r\n")
                    || body == "0\r\n\r\n"
                    || body.contains("\r\n0\r\nx-") && body.ends_with("\r\n\r\n"))
                || !chunked && body.len() >= length.unwrap_or(0)
            {
                return Some(text);
            }
        }
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
}

/// An address where nobody listens, nor will: it stays taken, for tests beside this one bind ports too.
pub(in crate::proxy) async fn nowhere() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}
