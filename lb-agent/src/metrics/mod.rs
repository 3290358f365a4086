//! Prometheus metrics and a health page over HTTP.
//!
//! Nothing is kept here: each scrape asks the controller and writes what it answers. So the
//! series of a backend or rule that vanishes vanish with it.
//!
//! - `collect`: what is asked, and in which order it is written.
//! - `node`, `process`, `registrar`, `services`, `blocks`, `trace`: the families, by subject.
//! - `family`: one metric's name, help, type and samples.

mod blocks;
mod collect;
mod family;
mod fragments;
mod node;
mod process;
mod proxy;
mod registrar;
mod services;
mod trace;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::oneshot, time};

use crate::{
    controller::{Handle, OperatorError},
    fragments::FragmentStats,
    probe::ProbeStats,
    proxy::telemetry::counts::Counts,
    watch::WatchStats,
};

/// Media type of the text format, version 0.0.4.
const CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// How long the controller may take to answer; shorter than Prometheus' own 10 s, so that the
/// reason arrives there.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long answers under way may take once the agent shuts down.
const GRACE: Duration = Duration::from_secs(1);

/// Serves `GET /metrics`, `GET /healthz` and `GET /readyz` until `shutdown` completes.
///
/// `/metrics` answers 200 with the Prometheus text format. `/healthz` answers 200 and `ok`, or
/// 503 and the problems, one on each line. `/readyz` is for whoever sends traffic to the node: it
/// answers 200 and `ready`, or 503 while the node is drained; what is wrong with a single service
/// is no reason to send the others' traffic elsewhere. All answer 503 and a sentence while the controller
/// does not answer. `others` are served besides.
pub async fn serve(
    listener: TcpListener,
    sources: Sources,
    others: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(sources)
        .merge(others)
        .fallback(not_found)
        .into_make_service_with_connect_info::<SocketAddr>();
    let (stopping, stopped) = oneshot::channel();
    let server = axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            shutdown.await;
            // Whoever would hear it has ended already otherwise.
            stopping.send(()).ok();
        })
        .into_future();
    let grace_is_over = async {
        stopped.await.ok();
        time::sleep(GRACE).await;
    };
    // A client that neither asks nor goes away must not keep the agent from ending.
    tokio::select! {
        ended = server => {
            if let Err(error) = ended {
                tracing::error!("metrics are no longer served: {error}");
            }
        }
        () = grace_is_over => {}
    }
}

/// What the pages are made of.
#[derive(Clone)]
pub struct Sources {
    /// The controller.
    pub handle: Handle,
    /// Results of the probes.
    pub probes: Arc<ProbeStats>,
    /// What traces and captures have come to.
    pub watch: Arc<WatchStats>,
    /// What became of fragments that came too early.
    pub fragments: Arc<FragmentStats>,
    /// What the proxy has counted.
    pub proxy: Arc<Counts>,
}

async fn metrics(State(sources): State<Sources>) -> Result<Response, Unavailable> {
    let reading = in_time(collect::read(&sources)).await?;
    let text = collect::text(&reading, SystemTime::now()).map_err(Unavailable::Encoding)?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

async fn healthz(State(sources): State<Sources>) -> Result<Response, Unavailable> {
    let status = in_time(sources.handle.status()).await?;
    if status.problems.is_empty() {
        return Ok("ok\n".into_response());
    }
    let mut lines = status.problems.join("\n");
    lines.push('\n');
    Ok((StatusCode::SERVICE_UNAVAILABLE, lines).into_response())
}

async fn readyz(State(sources): State<Sources>) -> Result<Response, Unavailable> {
    let Some(drain) = in_time(sources.handle.node_drain()).await? else {
        return Ok("ready\n".into_response());
    };
    let since = humantime::format_rfc3339_seconds(drain.since);
    let line = format!("the node is drained since {since}\n");
    Ok((StatusCode::SERVICE_UNAVAILABLE, line).into_response())
}

async fn not_found() -> impl IntoResponse {
    (
        StatusCode::NOT_FOUND,
        "nothing here; ask for /metrics, /healthz or /readyz\n",
    )
}

/// Bounds a question to the controller.
async fn in_time<T>(
    answer: impl Future<Output = Result<T, OperatorError>>,
) -> Result<T, Unavailable> {
    match time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(Unavailable::Controller),
        Err(_) => Err(Unavailable::Silence),
    }
}

/// Why there is nothing to show. Always answered as 503.
#[derive(Debug, thiserror::Error)]
enum Unavailable {
    #[error("{0}")]
    Controller(#[source] OperatorError),
    #[error(
        "the agent's controller has not answered within {}; see the agent's log",
        humantime::format_duration(PATIENCE)
    )]
    Silence,
    #[error("cannot write the metrics as text: {0}")]
    Encoding(#[source] prometheus::Error),
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{self}\n")).into_response()
    }
}

#[cfg(test)]
pub(crate) mod tests;
