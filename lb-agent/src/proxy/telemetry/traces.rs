//! Spans: those of each request go to an OTLP receiver, many at a time.
//!
//! A receiver that is away or slow costs spans, which are counted, and never a request: those only
//! put records into a bounded queue. What was taken from it is sent again for a while, with growing
//! pauses.

mod attributes;
mod receiver;
mod spans;

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::InstrumentationScope,
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{info, warn};

pub use self::receiver::ReceiverError;
use self::{
    attributes::Attributes,
    receiver::{Receiver, Refused},
};
use super::{counts::SpanCounts, queue};
use crate::{config::proxy::TracesConfig, domain::backoff::full_jitter, surroundings::host_name};

/// Spans that are sent at once, if so many come in [`DELAY`].
const BATCH: usize = 512;
/// The same, by their size in bytes. Receivers take 4 MiB at a time by default, and one request may have
/// many spans.
const BATCH_BYTES: usize = 1 << 20;
/// How long the first span of a batch waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// How long the receiver may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a batch is sent again before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the last spans may take.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// Between complaints that spans are not taken.
const COMPLAINTS: Duration = Duration::from_secs(60);
/// Version of the semantic conventions that the names of attributes are from.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

/// What sends spans.
#[derive(Debug)]
pub struct Traces {
    ending: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Starts the task that sends. Nobody is connected to before there are spans.
pub(super) fn start(
    config: &TracesConfig,
    records: queue::Receiver,
    counts: Arc<SpanCounts>,
) -> Result<Traces, ReceiverError> {
    let (ending, ended) = watch::channel(false);
    let exporter = Exporter {
        receiver: Receiver::new(config)?,
        endpoint: config.endpoint.clone(),
        resource: resource(),
        counts,
        ending: ended,
        failures: 0,
        complained: None,
    };
    Ok(Traces {
        ending,
        task: tokio::spawn(exporter.run(records)),
    })
}

impl Traces {
    /// Sends what is queued, for a few seconds at most, and ends.
    pub(super) async fn finish(self) {
        self.ending.send_replace(true);
        let abort = self.task.abort_handle();
        if timeout(LAST_SPANS, self.task).await.is_err() {
            abort.abort();
            warn!("the receiver of traces does not take the last spans");
        }
    }
}

/// Who tells of the spans.
fn resource() -> Resource {
    let mut attributes = Attributes::default();
    attributes.text("service.name", "lb-agent");
    attributes.text("service.version", env!("CARGO_PKG_VERSION"));
    // One that cannot be told is left out.
    if let Ok(name) = host_name() {
        attributes.text("host.name", &name);
    }
    Resource {
        attributes: attributes.0,
        ..Resource::default()
    }
}

/// See the module's documentation.
struct Exporter {
    receiver: Receiver,
    endpoint: String,
    resource: Resource,
    counts: Arc<SpanCounts>,
    ending: watch::Receiver<bool>,
    /// In a row.
    failures: u32,
    complained: Option<Instant>,
}

impl Exporter {
    async fn run(mut self, mut records: queue::Receiver) {
        loop {
            let spans = self.collect(&mut records).await;
            if spans.is_empty() {
                return;
            }
            self.deliver(spans).await;
        }
    }

    /// As many spans as are sent at once; none: there will be no more.
    async fn collect(&mut self, records: &mut queue::Receiver) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut bytes = 0;
        let mut due = Instant::now();
        while spans.len() < BATCH && bytes < BATCH_BYTES {
            tokio::select! {
                biased;
                // What is queued still comes.
                _ = self.ending.wait_for(|ending| *ending), if !records.is_closed() => {
                    records.close();
                }
                record = records.recv() => match record {
                    Some(record) => {
                        if spans.is_empty() {
                            due = Instant::now() + DELAY;
                        }
                        let before = spans.len();
                        spans::of(&record, &mut spans);
                        bytes += spans[before..].iter().map(Span::encoded_len).sum::<usize>();
                    }
                    None => break,
                },
                () = sleep_until(due), if !spans.is_empty() => break,
            }
        }
        spans
    }

    /// Sends spans until they are taken or given up.
    async fn deliver(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let request = self.request(spans);
        let until = Instant::now() + PATIENCE;
        loop {
            let sent = timeout(ANSWER, self.receiver.send(&request)).await;
            let refused = match sent {
                Ok(Ok(rejected)) => {
                    let rejected = rejected.min(count);
                    self.counts.exported(count - rejected);
                    self.counts.failed(rejected);
                    if std::mem::take(&mut self.failures) > 0 {
                        info!(endpoint = self.endpoint, "spans are taken again");
                        self.complained = None;
                    }
                    if rejected > 0 {
                        self.complain(&format!("{rejected} of {count} spans are not to its taste"));
                    }
                    return;
                }
                Ok(Err(refused)) => refused,
                Err(_) => Refused::for_now("it does not answer"),
            };
            self.failures = self.failures.saturating_add(1);
            self.complain(&refused.reason);
            let now = Instant::now();
            if !refused.may_repeat || now >= until || self.is_ending() {
                self.counts.failed(count);
                return;
            }
            let pause = refused
                .after
                .unwrap_or_else(|| full_jitter(self.failures, &mut rand::rng()));
            tokio::select! {
                () = sleep(pause.min(until - now)) => {}
                // Once more, at once.
                _ = self.ending.wait_for(|ending| *ending) => {}
            }
        }
    }

    /// Also if whoever would say so has gone.
    fn is_ending(&self) -> bool {
        *self.ending.borrow() || self.ending.has_changed().is_err()
    }

    fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: "lb-agent/proxy".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                    schema_url: SCHEMA.into(),
                }],
                schema_url: SCHEMA.into(),
            }],
        }
    }

    fn complain(&mut self, reason: &str) {
        let due = |since: Instant| since.elapsed() >= COMPLAINTS;
        if self.complained.is_none_or(due) {
            self.complained = Some(Instant::now());
            let endpoint = &*self.endpoint;
            warn!(
                endpoint,
                reason, "the receiver of traces does not take spans"
            );
        }
    }
}

#[cfg(test)]
mod tests;
