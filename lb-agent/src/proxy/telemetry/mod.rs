//! What the proxy tells of itself: an access log, spans and counts.
//!
//! - [`access_log`]: a line for each request, by a thread of its own.
//! - [`traces`]: spans of each request and its tries, to an OTLP receiver.
//! - [`counts`]: counters and histograms, from which `crate::metrics` makes families.
//!
//! Nothing here makes a request wait: records go into bounded queues and are dropped and counted
//! where these are full, by their number or by what clients have written into them.

pub mod access_log;
pub mod counts;
mod queue;
#[cfg(test)]
mod sample;
pub mod traces;

use std::sync::Arc;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::{
    counts::Counts,
    queue::{Sender, queue},
};
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
    log: Option<Sender>,
    spans: Option<Sender>,
    sampling: Sampling,
    counts: Arc<Counts>,
}

impl Telemetry {
    /// Hands every record to the other end of `records`.
    pub fn to(records: mpsc::Sender<Exchange>) -> Self {
        Self(Arc::new(Inner {
            log: Some(Sender::to(records)),
            ..Inner::default()
        }))
    }

    /// Starts the writers that `config` asks for. To be called within a Tokio runtime.
    ///
    /// # Errors
    /// The access log cannot be opened.
    pub fn start(config: &ProxyConfig) -> Result<(Self, Writers), StartError> {
        // Once it is waited for, the signal never ends the process: whoever rotates logs sends it
        // whether there is a log or not.
        drop(signal(SignalKind::user_defined1()).map_err(StartError::Signal)?);
        let counts = Arc::<Counts>::default();
        let mut inner = Inner::default();
        let mut writers = Writers::default();
        if let Some(config) = &config.access_log {
            let (sender, records) = queue(QUEUE);
            let losses = Arc::clone(&counts.losses);
            writers.log = Some(access_log::start(config, records, losses)?);
            inner.log = Some(sender);
        }
        if let Some(config) = &config.traces {
            let (sender, records) = queue(QUEUE);
            writers.traces = Some(traces::start(config, records, Arc::clone(&counts.spans))?);
            inner.spans = Some(sender);
            inner.sampling = Sampling::new(config.sample);
        }
        inner.counts = counts;
        Ok((Self(Arc::new(inner)), writers))
    }

    /// Whether anybody reads records.
    pub fn is_read(&self) -> bool {
        self.0.log.is_some() || self.0.spans.is_some()
    }

    /// Whether there are spans: the proxy takes part in traces.
    pub fn traces(&self) -> bool {
        self.0.spans.is_some()
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
        let Counts { losses, spans, .. } = &*inner.counts;
        let traced = inner.spans.as_ref().filter(|_| exchange.trace.sampled);
        match (&inner.log, traced) {
            (Some(log), Some(traces)) => {
                let tries = exchange.tries.len();
                offer(traces, exchange.clone(), || spans.lost(tries));
                offer(log, exchange, || losses.line());
            }
            (Some(log), None) => offer(log, exchange, || losses.line()),
            (None, Some(traces)) => {
                let tries = exchange.tries.len();
                offer(traces, exchange, || spans.lost(tries));
            }
            (None, None) => {}
        }
    }
}

fn offer(queue: &Sender, exchange: Exchange, lost: impl FnOnce()) {
    if !queue.offer(exchange) {
        lost();
    }
}

/// What writes down; to be ended last, once no request is under way.
#[derive(Debug, Default)]
pub struct Writers {
    log: Option<access_log::AccessLog>,
    traces: Option<traces::Traces>,
}

impl Writers {
    /// Writes down what is queued, for a few seconds at most, and ends.
    pub async fn finish(self) {
        let log = async {
            if let Some(log) = self.log {
                log.finish().await;
            }
        };
        let traces = async {
            if let Some(traces) = self.traces {
                traces.finish().await;
            }
        };
        tokio::join!(log, traces);
    }
}

/// Why the proxy cannot tell of itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// SIGUSR1.
    #[error("cannot wait for SIGUSR1: {0}")]
    Signal(#[source] std::io::Error),
    /// Spans.
    #[error(transparent)]
    Traces(#[from] traces::ReceiverError),
    /// The access log.
    #[error(transparent)]
    AccessLog(#[from] access_log::OpenError),
}
