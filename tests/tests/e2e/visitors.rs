//! Clients that ask the proxy again and again, with a record of what became of each request.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use lb_tests::namespace::Namespace;
use tokio::net::TcpStream;

use crate::scene::{PATIENCE, address};

/// A client that asks again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visitor {
    to: &'static str,
    /// Between two requests.
    rest: Duration,
    /// It keeps its connection as long as it may.
    keeps: bool,
}

impl Visitor {
    /// With a connection for each request.
    pub(crate) fn once(to: &'static str) -> Self {
        Self {
            to,
            rest: Duration::from_millis(4),
            keeps: false,
        }
    }

    pub(crate) fn keeping(to: &'static str, rest: u64) -> Self {
        Self {
            to,
            rest: Duration::from_millis(rest),
            keeps: true,
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    NoConnection(String),
    Broken(String),
}

/// All requests, with the time of their end.
#[derive(Debug, Default)]
pub(crate) struct Visits(Mutex<Vec<(Instant, Visitor, Outcome)>>);

impl Visits {
    fn note(&self, visitor: Visitor, outcome: Outcome) {
        self.0
            .lock()
            .unwrap()
            .push((Instant::now(), visitor, outcome));
    }

    pub(crate) fn answered(&self) -> usize {
        let all = self.0.lock().unwrap();
        let answered = all.iter().filter(|(.., it)| *it == Outcome::Answered);
        answered.count()
    }

    pub(crate) fn failures(&self) -> Vec<(Instant, Visitor, Outcome)> {
        let all = self.0.lock().unwrap();
        let failed = all.iter().filter(|(.., it)| *it != Outcome::Answered);
        failed.cloned().collect()
    }

    /// The longest time without an answer to anybody, between two moments.
    pub(crate) fn gap(&self, from: Instant, to: Instant) -> Duration {
        let all = self.0.lock().unwrap();
        let times = all.iter().filter(|(.., it)| *it == Outcome::Answered);
        let mut times: Vec<Instant> = times.map(|(time, ..)| *time).collect();
        times.retain(|time| (from..to).contains(time));
        times.extend([from, to]);
        times.sort();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }
}

/// Lets them ask while `meanwhile` goes on, and until everybody has an answer after it.
pub(crate) fn visits(from: &Namespace, visitors: &[Visitor], meanwhile: impl FnOnce()) -> Visits {
    let visits = Visits::default();
    observed(from, visitors, &visits, meanwhile);
    visits
}

pub(crate) fn observed(
    from: &Namespace,
    visitors: &[Visitor],
    visits: &Visits,
    meanwhile: impl FnOnce(),
) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Whatever becomes of it, nobody is to ask for ever.
        let _stop = Stop(&stop);
        for visitor in visitors {
            let (visitor, stop) = (*visitor, &stop);
            scope.spawn(move || {
                from.run(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap();
                    runtime.block_on(visit(visitor, visits, stop));
                });
            });
        }
        meanwhile();
    });
}

async fn visit(visitor: Visitor, visits: &Visits, stop: &AtomicBool) {
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let outcome = tokio::time::timeout(PATIENCE, ask(visitor, &mut kept)).await;
        let outcome = outcome.unwrap_or_else(|_| Outcome::Broken("no answer".into()));
        if outcome != Outcome::Answered {
            kept = None;
        }
        visits.note(visitor, outcome);
        tokio::time::sleep(visitor.rest).await;
    }
}

type Sender = http1::SendRequest<Empty<Bytes>>;

/// Asks once, on the connection that it has unless it knows that this has ended.
async fn ask(visitor: Visitor, kept: &mut Option<Sender>) -> Outcome {
    let to: SocketAddr = address(visitor.to);
    let broken = |error: hyper::Error| Outcome::Broken(format!("{error:?}"));
    if let Some(sender) = kept
        && sender.ready().await.is_err()
    {
        *kept = None;
    }
    let mut sender = match kept.take() {
        Some(sender) => sender,
        None => {
            let stream = match TcpStream::connect(to).await {
                Ok(stream) => stream,
                Err(error) => return Outcome::NoConnection(error.to_string()),
            };
            let (sender, connection) = match http1::handshake(TokioIo::new(stream)).await {
                Ok(both) => both,
                Err(error) => return broken(error),
            };
            tokio::spawn(connection);
            sender
        }
    };
    let request = Request::get("/").header("host", "web");
    let request = if visitor.keeps {
        request
    } else {
        request.header("connection", "close")
    };
    let answer = match sender
        .send_request(request.body(Empty::new()).unwrap())
        .await
    {
        Ok(answer) => answer,
        Err(error) => return broken(error),
    };
    let status = answer.status();
    if let Err(error) = answer.into_body().collect().await {
        return broken(error);
    }
    *kept = visitor.keeps.then_some(sender);
    if status == 200 {
        Outcome::Answered
    } else {
        Outcome::Broken(format!("status {status}"))
    }
}
