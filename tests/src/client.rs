//! Requests from inside a namespace: HTTP with a connection each, and UDP.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use tokio::{runtime, task::JoinSet};

pub use crate::exchange::{Options, RequestError, Response};
use crate::{
    exchange::{Exchange, get_mark, udp},
    namespace::{Entry, Namespace},
};

/// Makes requests from one namespace.
#[derive(Clone, Debug)]
pub struct Client {
    namespace: Entry,
    /// How requests are made.
    pub options: Options,
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

    /// `DELETE path`.
    pub fn delete(&self, to: SocketAddr, path: &str) -> Result<Response, RequestError> {
        self.request(Method::DELETE, to, path, Bytes::new())
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
        self.inside(async || Ok(udp(&self.options, to, payload).await?.0))
    }

    /// Sends `count` datagrams, each from a socket of its own, `concurrency` at a time. The sockets
    /// stay open to the end, so that no port comes twice: each datagram is a flow.
    pub fn spread_udp(&self, to: SocketAddr, count: usize, concurrency: usize) -> Spread {
        let open = Arc::new(Mutex::new(Vec::new()));
        self.repeat(count, concurrency, move |options| {
            let open = Arc::clone(&open);
            async move {
                let (answer, socket) = udp(&options, to, b"ping").await?;
                open.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(socket);
                let answer = String::from_utf8_lossy(&answer);
                let (mark, _) = answer.split_once(':').ok_or(RequestError::Unmarked)?;
                Ok(mark.to_owned())
            }
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
