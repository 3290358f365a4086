//! What is noted of a request from its head to its end, and what it holds so long.

use std::{
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header, request::Parts};
use http_body::Frame;

use super::{
    Arrival,
    counted::{Counted, OfService},
    replay::Replay,
    tally::Tally,
};
use crate::{
    domain::http::{
        exchange::{Exchange, Outcome, SpanContext, Try},
        trace_context,
    },
    proxy::telemetry::{Telemetry, counts::Finished},
};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The notes. They are handed on when it is dropped.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) began: Instant,
    pub(super) trace: Option<SpanContext>,
    /// The record, and where it goes; `None`: nobody reads records.
    exchange: Option<(Box<Exchange>, Telemetry)>,
    /// Tries that are not over; empty without a record.
    under_way: Vec<Try>,
    outcome: Option<Outcome>,
    pub(super) body: Option<Rc<Replay>>,
    pub(super) counted: Option<Counted<OfService>>,
    tally: Rc<Tally>,
    /// Of the backend that answered or was tried last.
    backend: Option<usize>,
    status: u16,
    /// Of a call of gRPC: the `grpc-status` that was sent.
    grpc: Option<Option<u32>>,
    http2: bool,
    sent: u64,
    /// Until a connection was looked for.
    pub(super) prepared: Option<Duration>,
    first_byte: Option<Duration>,
    /// Until the last try was over.
    waited: Option<Duration>,
}

impl Ledger {
    pub(super) fn open(
        telemetry: &Telemetry,
        head: &Parts,
        arrival: &Arrival,
        request_id: &str,
        trace: Option<SpanContext>,
        parent: Option<u64>,
        tally: &Rc<Tally>,
    ) -> Self {
        tally.begin();
        let recorded = trace.filter(|trace| telemetry.wants_record_of(*trace));
        let exchange = recorded.map(|trace| {
            let text = |name| {
                let value = head.headers.get(name)?;
                Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
            };
            let host = head.uri.authority().map(|authority| authority.to_string());
            let exchange = Box::new(Exchange {
                began: SystemTime::now(),
                client: arrival.client,
                peer: arrival.peer,
                listener: arrival.listener,
                tls: arrival.tls,
                version: match head.version {
                    http::Version::HTTP_10 => "HTTP/1.0",
                    http::Version::HTTP_2 => "HTTP/2.0",
                    _ => "HTTP/1.1",
                },
                method: head.method.to_string(),
                host: host.or_else(|| text(header::HOST)).unwrap_or_default(),
                target: head
                    .uri
                    .path_and_query()
                    .map_or("*", |path| path.as_str())
                    .into(),
                rewritten: None,
                user_agent: text(header::USER_AGENT),
                referer: text(header::REFERER),
                request_id: request_id.into(),
                trace,
                parent,
                tracestate: trace_context::state(&head.headers),
                service: None,
                route: None,
                tries: Vec::new(),
                status: 0,
                grpc: false,
                grpc_status: None,
                received: 0,
                sent: 0,
                outcome: Outcome::ClientGone,
                prepared: None,
                first_byte: None,
                total: std::time::Duration::ZERO,
            });
            (exchange, telemetry.clone())
        });
        Self {
            began: Instant::now(),
            trace,
            exchange,
            under_way: Vec::new(),
            outcome: None,
            body: None,
            counted: None,
            tally: Rc::clone(tally),
            backend: None,
            status: 0,
            grpc: None,
            http2: head.version == http::Version::HTTP_2,
            sent: 0,
            prepared: None,
            first_byte: None,
            waited: None,
        }
    }

    /// Changes the record, if there is one.
    pub(super) fn note(&mut self, change: impl FnOnce(&mut Exchange)) {
        if let Some((exchange, _)) = &mut self.exchange {
            change(exchange);
        }
    }

    /// It is counted here, for its route is known.
    pub(super) fn count_by(&mut self, tally: Rc<Tally>) {
        tally.begin();
        self.tally.leave();
        self.tally = tally;
    }

    /// It is a call of gRPC.
    pub(super) fn is_call(&mut self) {
        self.grpc = Some(None);
        self.note(|exchange| exchange.grpc = true);
    }

    /// The client reads a `grpc-status` behind the body.
    pub(super) fn tells_status(&self) -> bool {
        self.grpc.is_some() && self.http2
    }

    /// A try on this backend begins.
    pub(super) fn asking(&mut self, backend: usize) {
        self.backend = Some(backend);
    }

    /// A try on this backend was over then.
    pub(super) fn tried_at(&mut self, backend: usize, at: Instant) {
        self.backend = Some(backend);
        self.waited = Some(at.saturating_duration_since(self.began));
    }

    /// A try begins. If the client goes before it is over, it ends by that.
    pub(super) fn trying(&mut self, one: impl FnOnce() -> Try) {
        if self.exchange.is_some() {
            self.under_way.push(one());
        }
    }

    /// The try with this span is over.
    pub(super) fn tried(&mut self, span: u64, end: impl FnOnce(&mut Try)) {
        let place = self.under_way.iter().position(|one| one.span == span);
        if let Some(place) = place {
            let mut one = self.under_way.remove(place);
            one.waited = self.began.elapsed();
            end(&mut one);
            self.note(|exchange| exchange.tries.push(one));
        }
    }

    /// The head of the answer is on its way.
    pub(super) fn answered(&mut self, status: u16, headers: &HeaderMap) {
        self.status = status;
        let first_byte = Some(self.began.elapsed());
        self.first_byte = first_byte;
        if self.grpc.is_some() {
            self.grpc = Some(grpc_status(headers));
        }
        self.note(|exchange| {
            exchange.status = status;
            exchange.first_byte = first_byte;
            exchange.grpc_status = grpc_status(headers);
        });
    }

    /// A part of the answer's body goes to the client.
    pub(super) fn frame(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.sent += data.len() as u64;
        }
        let Some(code) = frame.trailers_ref().and_then(grpc_status) else {
            return;
        };
        if self.grpc.is_some() {
            self.grpc = Some(Some(code));
        }
        self.note(|exchange| exchange.grpc_status = Some(code));
    }

    /// All of the answer has passed.
    pub(super) fn passed(&mut self) {
        self.ended(Outcome::Answered);
    }

    /// How it ended; what is said first counts.
    pub(super) fn ended(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }
}

/// `grpc-status` among these.
pub(super) fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let finished = Finished {
            status: self.status,
            outcome: self.outcome.unwrap_or(Outcome::ClientGone),
            grpc: self.grpc,
            received: self.body.as_ref().map_or(0, |body| body.received()),
            sent: self.sent,
            total: self.began.elapsed(),
            first_byte: self.first_byte,
            overhead: self
                .first_byte
                .zip(self.waited)
                .zip(self.prepared)
                .map(|((first, waited), prepared)| prepared + first.saturating_sub(waited)),
        };
        self.tally.finish(self.backend, &finished);
        let Some((mut exchange, telemetry)) = self.exchange.take() else {
            return;
        };
        exchange.total = finished.total;
        exchange.prepared = self.prepared;
        for mut one in self.under_way.drain(..) {
            one.waited = finished.total;
            exchange.tries.push(one);
        }
        exchange.outcome = finished.outcome;
        exchange.received = finished.received;
        exchange.sent = finished.sent;
        telemetry.record(*exchange);
    }
}
