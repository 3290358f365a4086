//! A stand-in for Consul: answers health questions for as many instances as are wanted, holds
//! blocking ones, and knows when each answer went out, which the real one does not tell.

use std::{convert::Infallible, net::TcpListener, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use lb_tests::{consul, namespace::Namespace};
use tokio::runtime::Runtime;

use crate::catalog::{Catalog, List};

/// The server. Ends with the value.
pub(crate) struct StandIn {
    _runtime: Runtime,
}

impl StandIn {
    /// Answers where Consul would, in this namespace.
    pub(crate) fn start(namespace: &Namespace, catalog: &Arc<Catalog>) -> Result<Self> {
        let listener = namespace
            .run(|| TcpListener::bind(consul::ADDRESS))
            .context("cannot listen where Consul would")?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let catalog = Arc::clone(catalog);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("inside a runtime");
            while let Ok((stream, _)) = listener.accept().await {
                let catalog = Arc::clone(&catalog);
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let service = service_fn(move |request| {
                        let catalog = Arc::clone(&catalog);
                        async move { Ok::<_, Infallible>(answer(&catalog, request).await) }
                    });
                    // An agent that hangs up is no concern of ours.
                    let _ = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { _runtime: runtime })
    }
}

async fn answer(catalog: &Catalog, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let list: &List = match path {
        "/v1/catalog/services" => &catalog.names,
        "/v1/health/state/critical" => &catalog.critical,
        _ => match path.strip_prefix("/v1/health/service/") {
            Some(name) => match catalog.named(name) {
                Some(list) => list,
                None => &catalog.nothing,
            },
            None => &catalog.nothing,
        },
    };
    let (index, wait) = held(request.uri().query().unwrap_or_default());
    let mut changes = list.subscribe();
    if index > 0 {
        let news = changes.wait_for(|answer| answer.index > index);
        // In vain or not, what there is now is the answer.
        let _ = tokio::time::timeout(wait, news).await;
    }
    let answer = changes.borrow().clone();
    let keys = path.starts_with("/v1/kv/");
    let body = if keys { Bytes::new() } else { answer.body };
    let response = Response::builder()
        .status(if keys { 404 } else { 200 })
        .header("X-Consul-Index", answer.index)
        .header("X-Consul-KnownLeader", "true")
        .header("X-Consul-LastContact", "0")
        .body(Full::new(body))
        .expect("a valid response");
    list.note(answer.index);
    response
}

/// Index and wait of a question.
fn held(query: &str) -> (u64, Duration) {
    let value = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .next_back()
    };
    let index = value("index").and_then(|text| text.parse().ok());
    let wait = value("wait").and_then(|text| text.strip_suffix("ms")?.parse().ok());
    (
        index.unwrap_or(0),
        Duration::from_millis(wait.unwrap_or(30_000)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let rows = [
            ("", (0, 30_000)),
            ("index=7&wait=1500ms", (7, 1500)),
            ("dc=x&index=8", (8, 30_000)),
        ];
        for (query, (index, wait)) in rows {
            assert_eq!(held(query), (index, Duration::from_millis(wait)), "{query}");
        }
    }
}
