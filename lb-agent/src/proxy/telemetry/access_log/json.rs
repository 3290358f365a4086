//! A request as a JSON object. Times are seconds, what is not known is absent.

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;

use crate::domain::http::exchange::{Exchange, SpanContext, Try};

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    sampled: bool,
    client: SocketAddr,
    listener: SocketAddr,
    tls: bool,
    version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'a str,
    host: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<&'a str>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u32>,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    /// Of the try that answered, else the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    subset: Option<&'a str>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<SocketAddr>,
    tries: Vec<Tried<'a>>,
    received_bytes: u64,
    sent_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte: Option<f64>,
    total: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    overhead: Option<f64>,
}

#[derive(Serialize)]
struct Tried<'a> {
    backend: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    subset: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    after: f64,
    waited: f64,
    hedge: bool,
}

impl<'a> Tried<'a> {
    /// `traced`: its span is known to others.
    fn new(one: &'a Try, traced: bool) -> Self {
        Self {
            backend: one.backend,
            subset: one.subset.as_deref(),
            span_id: traced.then(|| span(one.span)),
            status: one.result.as_ref().ok().copied(),
            error: one.result.as_ref().err().map(|none| &*none.text),
            after: seconds(one.after),
            waited: seconds(one.waited),
            hedge: one.hedge,
        }
    }
}

/// Appends the object.
pub(super) fn write(line: &mut Vec<u8>, exchange: &Exchange) {
    let (path, query) = match exchange.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (exchange.target.as_str(), None),
    };
    let last = exchange.answering();
    let SpanContext {
        trace, span: own, ..
    } = exchange.trace;
    let object = Line {
        time: humantime::format_rfc3339_micros(exchange.began).to_string(),
        request_id: &exchange.request_id,
        trace_id: (trace != 0).then(|| format!("{trace:032x}")),
        span_id: (own != 0).then(|| span(own)),
        parent_span_id: exchange.parent.map(span),
        sampled: exchange.trace.sampled,
        client: exchange.client,
        listener: exchange.listener,
        tls: exchange.tls,
        version: exchange.version,
        method: &exchange.method,
        host: &exchange.host,
        path,
        query,
        user_agent: exchange.user_agent.as_deref(),
        referer: exchange.referer.as_deref(),
        status: exchange.status,
        grpc_status: exchange.grpc_status,
        outcome: exchange.outcome.name(),
        service: exchange.service.as_deref(),
        route: exchange.route.as_deref(),
        subset: last.and_then(|one| one.subset.as_deref()),
        backend: last.map(|one| one.backend),
        tries: exchange
            .tries
            .iter()
            .map(|one| Tried::new(one, own != 0))
            .collect(),
        received_bytes: exchange.received,
        sent_bytes: exchange.sent,
        first_byte: exchange.first_byte.map(seconds),
        total: seconds(exchange.total),
        overhead: exchange.overhead().map(seconds),
    };
    serde_json::to_writer(line, &object).expect("text and numbers into a vector");
}

fn span(id: u64) -> String {
    format!("{id:016x}")
}

/// To the microsecond.
fn seconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}
