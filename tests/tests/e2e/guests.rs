//! Clients over HTTP/2 that ask again and again, several streams at a time on one connection, and
//! connect anew when they are told to go.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lb_tests::namespace::Namespace;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::scene::PATIENCE;

/// What the streams of a connection ask for, each the same all the time.
const PATHS: [&str; 4] = ["/size/20000", "/size/200000", "/delay/100", "/delay/700"];
const REST: Duration = Duration::from_millis(5);

/// How a client comes.
#[derive(Clone)]
pub(crate) enum Way {
    /// It knows that HTTP/2 is spoken.
    Plain(SocketAddr),
    /// By TLS, to the name `web`.
    Tls(SocketAddr, TlsConnector),
}

/// What became of the requests of one client.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) answered: AtomicU64,
    /// Connections that ended in good order.
    pub(crate) left: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Record {
    fn fail(&self, what: String) {
        self.failures.lock().unwrap().push(what);
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }
}

/// Lets them ask while `meanwhile` goes on, which gets a record for each, and until everybody has
/// an answer after it.
pub(crate) fn entertained(from: &Namespace, ways: &[Way], meanwhile: impl FnOnce(&[Arc<Record>])) {
    struct Stop(Arc<AtomicBool>);
    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    // Whatever becomes of it, nobody is to ask for ever.
    let stop = Stop(Arc::default());
    let records: Vec<Arc<Record>> = ways.iter().map(|_| Arc::default()).collect();
    thread::scope(|scope| {
        let stop = stop;
        for (way, record) in ways.iter().zip(&records) {
            let guest = Arc::new(Guest {
                way: way.clone(),
                record: Arc::clone(record),
                link: tokio::sync::Mutex::default(),
                stop: Arc::clone(&stop.0),
            });
            scope.spawn(move || {
                from.run(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap();
                    runtime.block_on(async {
                        let streams = PATHS.map(|path| tokio::spawn(Arc::clone(&guest).stay(path)));
                        for stream in streams {
                            stream.await.unwrap();
                        }
                    });
                });
            });
        }
        meanwhile(&records);
    });
}

struct Guest {
    way: Way,
    record: Arc<Record>,
    link: tokio::sync::Mutex<Option<SendRequest<Empty<Bytes>>>>,
    stop: Arc<AtomicBool>,
}

impl Guest {
    async fn stay(self: Arc<Self>, path: &'static str) {
        while !self.stop.load(Relaxed) {
            match tokio::time::timeout(PATIENCE, self.ask(path)).await {
                Ok(Ok(())) => drop(self.record.answered.fetch_add(1, Relaxed)),
                Ok(Err(error)) => self.record.fail(format!("{path}: {error}")),
                Err(_) => self.record.fail(format!("{path}: no answer")),
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Asks once. What could not be sent any more goes on a new connection; nothing is sent twice.
    async fn ask(&self, path: &str) -> Result<(), String> {
        let answer = loop {
            let mut sender = self.connected().await?;
            let scheme = match self.way {
                Way::Plain(_) => "http",
                Way::Tls(..) => "https",
            };
            let request = Request::get(format!("{scheme}://web{path}"));
            match sender
                .try_send_request(request.body(Empty::new()).unwrap())
                .await
            {
                Ok(answer) => break answer,
                Err(mut error) => {
                    if error.take_message().is_none() {
                        return Err(format!("{:?}", error.into_error()));
                    }
                }
            }
        };
        let status = answer.status();
        let body = answer.into_body().collect().await;
        let length = body.map_err(|error| format!("cut: {error:?}"))?;
        let length = length.to_bytes().len();
        let wanted = path
            .strip_prefix("/size/")
            .map(|size| size.parse().unwrap());
        if status != 200 || wanted.is_some_and(|wanted: usize| wanted != length) {
            return Err(format!("status {status}, {length} bytes"));
        }
        Ok(())
    }

    /// The connection that all streams share, made anew once it takes no more requests.
    async fn connected(&self) -> Result<SendRequest<Empty<Bytes>>, String> {
        let mut link = self.link.lock().await;
        if let Some(sender) = &mut *link
            && sender.ready().await.is_ok()
        {
            return Ok(sender.clone());
        }
        *link = None;
        let sender = match &self.way {
            Way::Plain(to) => self.greet(connect(*to).await?).await?,
            Way::Tls(to, connector) => {
                let name = "web".try_into().unwrap();
                let stream = connector.connect(name, connect(*to).await?).await;
                let stream = stream.map_err(|error| format!("no TLS: {error}"))?;
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err("no HTTP/2 was agreed upon".into());
                }
                self.greet(stream).await?
            }
        };
        *link = Some(sender.clone());
        Ok(sender)
    }

    async fn greet<S>(&self, stream: S) -> Result<SendRequest<Empty<Bytes>>, String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let both = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = both.map_err(|error| format!("no handshake: {error:?}"))?;
        let record = Arc::clone(&self.record);
        tokio::spawn(async move {
            match connection.await {
                Ok(()) => drop(record.left.fetch_add(1, Relaxed)),
                Err(error) => record.fail(format!("the connection broke: {error:?}")),
            }
        });
        Ok(sender)
    }
}

async fn connect(to: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(to).await;
    let stream = stream.map_err(|error| format!("no connection: {error}"))?;
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    Ok(stream)
}
