//! The backend of the proxy's tests and benchmarks: HTTP/1.1, HTTP/2 without TLS and gRPC on one
//! port, and each request's path says what is to come of it.
//!
//! | path           | answer |
//! |----------------|--------|
//! | `/size/N`      | N bytes |
//! | `/status/N`    | that status, with a body where there may be one |
//! | `/delay/MS`    | 200 after so many milliseconds |
//! | `/hang`        | none |
//! | `/reset`       | none: the connection is closed once the request is in |
//! | `/cut`         | the connection is closed in the middle of the body |
//! | `/early`       | 413 at once, whatever is still to come |
//! | `/trailers`    | a body with the trailer `x-sum` |
//! | `/head`        | the request's head as it came in, a header a line |
//! | `/echo`        | the request's body, its trailers too |
//! | `/upgrade`     | 101, then every byte comes back |
//! | `/counts`      | a line `ID N` for each value of the header `x-id`, `total N` for all requests |
//! | `/grpc.Echo/*` | every message comes back, then the status of the header `x-grpc-status`, or 0 |
//! | `/grpc.Count/*` | one message: how many came, in digits |
//! | `/grpc.Repeat/N/MS` | the message that came N times, with so many milliseconds between |
//! | `/grpc.Fail/N` | nothing but that `grpc-status`, in the head |
//! | `/always/PATH` | from now on every request is answered like that path; without one, no longer |
//!
//! `/counts` and `/always` are not counted themselves. `/counts` also tells, as `abandoned N`, the
//! requests to `/hang` and `/grpc.Repeat` whose client went away. A header `x-fail: N` has the
//! first N requests of the same `x-id` answered 503, calls of gRPC with UNAVAILABLE.

mod answer;
mod grpc;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;

/// Requests so far, by their id.
#[derive(Debug, Default)]
struct Counts {
    total: u64,
    abandoned: u64,
    by_id: BTreeMap<String, u64>,
}

impl Counts {
    /// One more of this id; how many there were before.
    fn add(&mut self, id: &str) -> u64 {
        self.total += 1;
        let count = self.by_id.entry(id.to_owned()).or_default();
        *count += 1;
        *count - 1
    }

    fn text(&self) -> String {
        let mut text = format!("total {}\nabandoned {}\n", self.total, self.abandoned);
        for (id, count) in &self.by_id {
            text += &format!("{id} {count}\n");
        }
        text
    }
}

/// What all connections share.
#[derive(Debug)]
struct Backend {
    name: String,
    /// Whether each request's id is printed, so that it is known after a violent end.
    tell: bool,
    counts: Mutex<Counts>,
    /// The path that stands in for every other.
    always: Mutex<Option<String>>,
}

impl Backend {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn always(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.always.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way; it counts as abandoned when it is dropped before its end.
#[derive(Debug)]
struct UnderWay {
    backend: Arc<Backend>,
    ended: bool,
}

impl UnderWay {
    fn new(backend: &Arc<Backend>) -> Self {
        Self {
            backend: Arc::clone(backend),
            ended: false,
        }
    }

    fn end(&mut self) {
        self.ended = true;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.ended {
            self.backend.counts().abandoned += 1;
        }
    }
}

/// Serves until `shutdown`. `name` is the header `x-backend` of every answer; with `tell` the
/// `x-id` of every request is printed.
///
/// # Errors
///
/// An address cannot be listened on.
pub async fn serve(
    name: String,
    tell: bool,
    listen: Vec<SocketAddr>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let backend = Arc::new(Backend {
        name,
        tell,
        counts: Mutex::default(),
        always: Mutex::default(),
    });
    for address in listen {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        tokio::spawn(accept(listener, Arc::clone(&backend)));
    }
    shutdown.await;
    Ok(())
}

async fn accept(listener: TcpListener, backend: Arc<Backend>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                eprintln!("cannot accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                continue;
            }
        };
        let backend = Arc::clone(&backend);
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request| {
                let backend = Arc::clone(&backend);
                async move { answer::answer(&backend, request).await }
            });
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().half_close(true);
            // How a connection ends is the client's affair.
            let _ = server
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_id() {
        let mut counts = Counts::default();
        assert_eq!(
            (counts.add("a"), counts.add("b"), counts.add("a")),
            (0, 0, 1)
        );
        assert_eq!(counts.text(), "total 3\nabandoned 0\na 2\nb 1\n");
    }
}
