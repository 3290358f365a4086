//! Requests that never become any: the HTTP library refuses their head, or it comes too slowly. What
//! serves requests does not hear of them, so they are counted and written down here, with as much
//! as is known.

use std::time::{Duration, SystemTime};

use hyper::StatusCode;

use super::{visit::Visit, worker::Facts};
use crate::domain::http::exchange::{Exchange, Outcome, SpanContext};

/// What the library has answered by itself before it ended with this error; `None`: nothing.
/// `long_target`: a target was longer than it takes.
pub(super) fn status(error: &hyper::Error, long_target: bool) -> Option<StatusCode> {
    if error.is_parse_too_large() {
        return Some(match long_target {
            true => StatusCode::URI_TOO_LONG,
            false => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        });
    }
    // That of HTTP/2 has no answer in HTTP/1.
    (error.is_parse() && !error.is_parse_version_h2()).then_some(StatusCode::BAD_REQUEST)
}

/// Tells of a request that was answered so.
pub(super) fn tell(facts: &Facts, visit: &Visit, status: StatusCode, outcome: Outcome) {
    let status = status.as_u16();
    let counts = visit.life.present().counts();
    counts.unread.add(status, outcome);
    let telemetry = facts.shared.telemetry();
    let trace = SpanContext::NONE;
    if !telemetry.wants_record_of(trace) {
        return;
    }
    let arrival = &visit.arrival;
    telemetry.record(Exchange {
        began: SystemTime::now(),
        client: arrival.client,
        peer: arrival.peer,
        listener: arrival.listener,
        tls: arrival.tls,
        version: "HTTP/1.1",
        method: String::new(),
        host: String::new(),
        target: String::new(),
        rewritten: None,
        user_agent: None,
        referer: None,
        request_id: String::new(),
        trace,
        parent: None,
        tracestate: None,
        service: None,
        route: None,
        tries: Vec::new(),
        status,
        grpc: false,
        grpc_status: None,
        received: 0,
        sent: 0,
        outcome,
        prepared: None,
        first_byte: None,
        total: Duration::ZERO,
    });
}
