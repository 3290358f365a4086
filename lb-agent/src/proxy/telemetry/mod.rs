//! What the proxy tells of itself: an access log, spans and counts.
//!
//! - [`access_log`]: a line for each request, by a thread of its own.
//! - [`counts`]: counters and histograms, from which `crate::metrics` makes families.
//!
//! Nothing here makes a request wait: records go into bounded queues and are dropped and counted
//! where these are full.

pub mod access_log;
pub mod counts;
#[cfg(test)]
mod sample;

use std::sync::Arc;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{self, error::TrySendError},
};

use self::counts::Counts;
use crate::{
    config::proxy::ProxyConfig,
    domain::http::{
        exchange::{Exchange, SpanContext},
        trace_context::Sampling,
    },
};

/// Records that wait for a writer; beyond them they are dropped.
const QUEUE: usize = 8192;

/// Takes what there is to tell, without ever waiting. Cheap to clone. The default one counts and
/// does nothing else.
#[derive(Clone, Debug, Default)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    log: Option<mpsc::Sender<Exchange>>,
    spans: Option<mpsc::Sender<Exchange>>,
    sampling: Sampling,
    counts: Arc<Counts>,
}

impl Telemetry {
    /// Hands every record to the other end of `records`.
    pub fn to(records: mpsc::Sender<Exchange>) -> Self {
        Self(Arc::new(Inner {
            log: Some(records),
            ..Inner::default()
        }))
    }

    /// Starts the writers that `config` asks for. To be called within a Tokio runtime.
    ///
    /// # Errors
    /// The access log cannot be opened.
    pub fn start(config: &ProxyConfig) -> Result<(Self, Writers), StartError> {
        if config.traces.is_some() {
            return Err(StartError::Traces);
        }
        // Once it is waited for, the signal never ends the process: whoever rotates logs sends it
        // whether there is a log or not.
        drop(signal(SignalKind::user_defined1()).map_err(StartError::Signal)?);
        let counts = Arc::<Counts>::default();
        let mut inner = Inner::default();
        let mut writers = Writers::default();
        if let Some(config) = &config.access_log {
            let (sender, records) = mpsc::channel(QUEUE);
            let losses = Arc::clone(&counts.losses);
            writers.log = Some(access_log::start(config, records, losses)?);
            inner.log = Some(sender);
        }
        inner.counts = counts;
        Ok((Self(Arc::new(inner)), writers))
    }

    /// Whether anybody reads the record of a request of this trace: one that is not sampled is
    /// only for the log.
    pub fn wants_record_of(&self, trace: SpanContext) -> bool {
        self.0.log.is_some() || trace.sampled && self.0.spans.is_some()
    }

    /// Which traces that begin here are recorded; none without spans.
    pub fn sampling(&self) -> Sampling {
        self.0.sampling
    }

    /// The proxy's counters.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.0.counts
    }

    /// Takes a record; where a writer is behind, its copy is dropped and counted.
    pub fn record(&self, exchange: Exchange) {
        let inner = &*self.0;
        let losses = &inner.counts.losses;
        let traced = inner.spans.as_ref().filter(|_| exchange.trace.sampled);
        match (&inner.log, traced) {
            (Some(log), Some(spans)) => {
                let tries = exchange.tries.len();
                offer(spans, exchange.clone(), || losses.spans(tries));
                offer(log, exchange, || losses.line());
            }
            (Some(log), None) => offer(log, exchange, || losses.line()),
            (None, Some(spans)) => {
                let tries = exchange.tries.len();
                offer(spans, exchange, || losses.spans(tries));
            }
            (None, None) => {}
        }
    }
}

fn offer(queue: &mpsc::Sender<Exchange>, exchange: Exchange, lost: impl FnOnce()) {
    match queue.try_send(exchange) {
        Ok(()) => {}
        Err(TrySendError::Full(_) | TrySendError::Closed(_)) => lost(),
    }
}

/// What writes down; to be ended last, once no request is under way.
#[derive(Debug, Default)]
pub struct Writers {
    log: Option<access_log::AccessLog>,
}

impl Writers {
    /// Writes down what is queued, for a few seconds at most, and ends.
    pub async fn finish(self) {
        if let Some(log) = self.log {
            log.finish().await;
        }
    }
}

/// Why the proxy cannot tell of itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// SIGUSR1.
    #[error("cannot wait for SIGUSR1: {0}")]
    Signal(#[source] std::io::Error),
    /// Spans.
    #[error("[proxy] traces: sending traces is not in this version yet; leave it out")]
    Traces,
    /// The access log.
    #[error(transparent)]
    AccessLog(#[from] access_log::OpenError),
}
