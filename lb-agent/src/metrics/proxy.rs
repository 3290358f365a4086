//! Metrics of the proxy of requests.

use std::sync::atomic::Ordering::Relaxed;

use super::family::Family;
use crate::proxy::telemetry::counts::Counts;

/// All that the proxy counts.
pub(super) fn families(counts: &Counts) -> Vec<Family> {
    let mut families = of_services(counts);
    families.extend(of_listeners(counts));
    families.push(
        Family::counter(
            "lb_proxy_access_log_lost_total",
            "Lines of the access log that were not written.",
        )
        .with(counts.losses.lost_lines() as f64),
    );
    let mut spans = Family::counter(
        "lb_proxy_spans_total",
        "Spans that the receiver took (exported) or did not (failed), or that came too fast for it (lost).",
    );
    for (result, count) in counts.spans.all() {
        spans.add(&[("result", result)], count as f64);
    }
    families.push(spans);
    families
}

fn of_services(counts: &Counts) -> Vec<Family> {
    let mut requests = Family::counter(
        "lb_proxy_requests_total",
        "Requests that are over, by the backend that answered or was tried last; code 0: none.",
    );
    let mut calls = Family::counter(
        "lb_proxy_grpc_calls_total",
        "Calls of gRPC that are over, by the status that the client was sent.",
    );
    let mut duration = Family::histogram(
        "lb_proxy_request_duration_seconds",
        "Time of requests from their head to the end of the answer.",
    );
    let mut first_byte = Family::histogram(
        "lb_proxy_first_byte_seconds",
        "Time of requests until the head of the answer went to the client.",
    );
    let mut overhead = Family::histogram(
        "lb_proxy_overhead_seconds",
        "Time until a connection was looked for, and from the last try's end until the head of the answer went to the client.",
    );
    let counter = Family::counter;
    let mut bytes = counter(
        "lb_proxy_bytes_total",
        "Bytes of the bodies of requests (in) and of their answers (out).",
    );
    let mut retries = counter("lb_proxy_retries_total", "Tries after the first.");
    let mut refused = counter(
        "lb_proxy_retries_refused_total",
        "Retries that the budget did not allow.",
    );
    let mut hedges = counter("lb_proxy_hedges_total", "Second tries beside slow firsts.");
    let mut won = counter("lb_proxy_hedges_won_total", "Hedges that answered first.");
    let gauge = Family::gauge;
    let mut left = gauge(
        "lb_proxy_retry_budget_left",
        "Retries that the budget allows now.",
    );
    let mut active = gauge("lb_proxy_active_requests", "Requests under way.");
    let mut open = gauge(
        "lb_proxy_pool_connections",
        "Connections to a backend that are open.",
    );
    let mut pending = gauge(
        "lb_proxy_pool_pending",
        "Requests that wait for a connection to a backend.",
    );
    let mut opened = counter(
        "lb_proxy_pool_connects_total",
        "Connections to a backend that were tried, by whether they came about.",
    );
    for (service, of) in counts.services.all() {
        let label = [("service", &*service)];
        let mut under_way = 0;
        for (route, of) in of.routes.all() {
            let of = of.sum();
            under_way += of.active.load(Relaxed);
            for ((subset, backend), of) in of.backends.all() {
                let backend = backend.map(|backend| backend.to_string());
                for (code, outcome, count) in of.codes.all() {
                    let labels = [
                        ("service", &*service),
                        ("subset", &*subset),
                        ("backend", backend.as_deref().unwrap_or_default()),
                        ("route", &*route),
                        ("code", &*code.to_string()),
                        ("outcome", outcome.map_or("other", |outcome| outcome.name())),
                    ];
                    requests.add(&labels, count as f64);
                }
            }
            let labels = [("service", &*service), ("route", &*route)];
            for (code, count) in of.grpc.all() {
                let code = code.map_or_else(|| "none".into(), |code| code.to_string());
                let labels = [labels[0], labels[1], ("grpc_status", &*code)];
                calls.add(&labels, count as f64);
            }
            duration.add_histogram(&labels, of.total.read());
            first_byte.add_histogram(&labels, of.first_byte.read());
            overhead.add_histogram(&labels, of.overhead.read());
            for (direction, count) in [("in", &of.received), ("out", &of.sent)] {
                let labels = [labels[0], labels[1], ("direction", direction)];
                bytes.add(&labels, count.load(Relaxed) as f64);
            }
        }
        active.add(&label, under_way as f64);
        if service.is_empty() {
            continue;
        }
        retries.add(&label, of.retries.load(Relaxed) as f64);
        refused.add(&label, of.retries_refused.load(Relaxed) as f64);
        hedges.add(&label, of.hedges.load(Relaxed) as f64);
        won.add(&label, of.hedges_won.load(Relaxed) as f64);
        left.add(&label, of.budget_left.load(Relaxed) as f64);
        for (backend, of) in of.pools.all() {
            let backend = backend.to_string();
            let labels = [("service", &*service), ("backend", &*backend)];
            open.add(&labels, of.open.load(Relaxed).into());
            pending.add(&labels, of.pending.load(Relaxed).into());
            for (result, count) in [("opened", &of.opened), ("failed", &of.failed)] {
                let labels = [labels[0], labels[1], ("result", result)];
                opened.add(&labels, count.load(Relaxed) as f64);
            }
        }
    }
    vec![
        requests, calls, duration, first_byte, overhead, bytes, retries, refused, hedges, won,
        left, active, open, pending, opened,
    ]
}

fn of_listeners(counts: &Counts) -> Vec<Family> {
    let mut open = Family::gauge(
        "lb_proxy_connections",
        "Connections of clients that are open.",
    );
    let mut taken = Family::counter(
        "lb_proxy_connections_total",
        "Connections of clients, by whether they were taken or the client had too many.",
    );
    let mut handshakes = Family::counter(
        "lb_proxy_tls_handshakes_failed_total",
        "TLS handshakes of clients that failed or took too long.",
    );
    let mut unread = Family::counter(
        "lb_proxy_requests_unread_total",
        "Requests that were refused because of a head that is no HTTP, too large or too slow.",
    );
    for (listener, of) in counts.listeners.all() {
        let listener = listener.to_string();
        open.add(&[("listener", &*listener)], of.open.load(Relaxed) as f64);
        handshakes.add(
            &[("listener", &*listener)],
            of.handshakes_failed.load(Relaxed) as f64,
        );
        for (result, count) in [("accepted", &of.accepted), ("refused", &of.refused)] {
            let labels = [("listener", &*listener), ("result", result)];
            taken.add(&labels, count.load(Relaxed) as f64);
        }
        for (code, _, count) in of.unread.all() {
            let labels = [("listener", &*listener), ("code", &*code.to_string())];
            unread.add(&labels, count as f64);
        }
    }
    vec![open, taken, handshakes, unread]
}
