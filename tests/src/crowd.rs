//! Many clients at once, each with a connection of HTTP/1.1 that it keeps as long as it can.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::LocalSet, time};

use crate::namespace::Entry;

/// Beyond this a request counts as not answered.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one client asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Where it connects to.
    pub to: SocketAddr,
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Body; empty: none.
    pub body: Bytes,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its `x-id`.
    pub id: String,
    /// Its method.
    pub method: Method,
    /// Since the beginning of all, when it was sent.
    pub sent: Duration,
    /// Until its answer was whole.
    pub took: Duration,
    /// The status; an error: there was no whole answer.
    pub status: Result<u16, String>,
    /// The `x-backend` of the answer.
    pub backend: String,
    /// The body of answers that are no success.
    pub complaint: String,
}

/// Clients that ask until they are stopped.
#[derive(Debug)]
pub struct Crowd {
    stop: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    thread: thread::JoinHandle<()>,
    began: Instant,
}

impl Crowd {
    /// Starts `clients`, in the namespace, that each ask with this pause between requests. `ask`
    /// says what request `number` of client `client` is.
    pub fn start(
        namespace: Entry,
        clients: usize,
        pause: Duration,
        ask: impl Fn(usize, usize) -> Ask + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let outcomes = Arc::<Mutex<Vec<Outcome>>>::default();
        let began = Instant::now();
        let thread = {
            let (stop, outcomes) = (Arc::clone(&stop), Arc::clone(&outcomes));
            thread::spawn(move || {
                namespace
                    .enter()
                    .unwrap_or_else(|error| panic!("{error:#}"));
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                let all = async {
                    let asking = (0..clients)
                        .map(|client| one(client, pause, &ask, &stop, &outcomes, began));
                    for_all(asking).await;
                };
                LocalSet::new().block_on(&runtime, all);
            })
        };
        Self {
            stop,
            outcomes,
            thread,
            began,
        }
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Requests that are over.
    pub fn done(&self) -> usize {
        lock(&self.outcomes).len()
    }

    /// Ends it after the requests under way; everything that came of it.
    pub fn stop(self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
        std::mem::take(&mut *lock(&self.outcomes))
    }
}

fn lock(outcomes: &Mutex<Vec<Outcome>>) -> std::sync::MutexGuard<'_, Vec<Outcome>> {
    outcomes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs futures at once until all have ended.
async fn for_all(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut all: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        match all.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

async fn one(
    client: usize,
    pause: Duration,
    ask: &impl Fn(usize, usize) -> Ask,
    stop: &AtomicBool,
    outcomes: &Mutex<Vec<Outcome>>,
    began: Instant,
) {
    // A connection leads to one place.
    let mut kept: Option<(SocketAddr, SendRequest<Full<Bytes>>)> = None;
    // Not all at the same time.
    time::sleep(pause.mul_f64(client as f64 / 97.0 % 1.0)).await;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let ask = ask(client, number);
        let id = format!("{client}-{number}");
        let sent = began.elapsed();
        let asked = time::timeout(PATIENCE, exchange(&mut kept, &ask, &id)).await;
        let answered = asked.unwrap_or_else(|_| Err("no answer".into()));
        if answered.is_err() {
            kept = None;
        }
        let took = began.elapsed() - sent;
        let (status, backend, complaint) = match answered {
            Ok((status, backend, complaint)) => (Ok(status), backend, complaint),
            Err(error) => (Err(error), String::new(), String::new()),
        };
        lock(outcomes).push(Outcome {
            id,
            method: ask.method,
            sent,
            took,
            status,
            backend,
            complaint,
        });
        time::sleep(pause).await;
    }
}

async fn exchange(
    kept: &mut Option<(SocketAddr, SendRequest<Full<Bytes>>)>,
    ask: &Ask,
    id: &str,
) -> Result<(u16, String, String), String> {
    let usable = kept
        .as_ref()
        .is_some_and(|(to, sender)| *to == ask.to && !sender.is_closed());
    if !usable {
        *kept = None;
        let stream = TcpStream::connect(ask.to).await;
        let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
        let made = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|error| error.to_string())?;
        tokio::task::spawn_local(async move {
            // Its error reaches the request on it.
            let _ = connection.await;
        });
        *kept = Some((ask.to, sender));
    }
    let Some((_, sender)) = kept else {
        return Err("no connection".into());
    };
    sender
        .ready()
        .await
        .map_err(|error| format!("not ready: {error}"))?;
    let request = Request::builder()
        .method(ask.method.clone())
        .uri(&ask.path)
        .header("host", "web")
        .header("x-id", id)
        .body(Full::new(ask.body.clone()))
        .map_err(|error| error.to_string())?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| format!("no answer: {error}"))?;
    let status = response.status();
    let backend = response.headers().get("x-backend");
    let backend = backend.and_then(|name| name.to_str().ok());
    let backend = backend.unwrap_or_default().to_owned();
    let body = response.into_body().collect().await;
    let body = body.map_err(|error| format!("a cut answer: {error}"))?;
    let complaint = match status.is_success() {
        true => String::new(),
        false => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
    };
    Ok((status.as_u16(), backend, complaint))
}
