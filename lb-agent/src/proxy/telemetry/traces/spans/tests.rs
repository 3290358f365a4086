//! Rows of an exchange and what its spans say.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::*;
use crate::{domain::http::exchange::NoAnswer, proxy::telemetry::sample::exchange};

fn spans(exchange: &Exchange) -> Vec<Span> {
    let mut spans = Vec::new();
    of(exchange, &mut spans);
    spans
}

/// Attributes as text.
fn facts(span: &Span) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(yes) => yes.to_string(),
        Value::ArrayValue(list) => format!("{} values", list.values.len()),
        other => panic!("{other:?}"),
    };
    let all = span.attributes.iter();
    let facts: BTreeMap<&str, String> = all
        .map(|one| {
            let value = one.value.as_ref().and_then(|any| any.value.as_ref());
            (&*one.key, text(value.unwrap()))
        })
        .collect();
    assert_eq!(facts.len(), span.attributes.len(), "an attribute twice");
    facts
}

fn table(rows: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
    rows.iter()
        .map(|(key, value)| (*key, (*value).into()))
        .collect()
}

/// An HTTP request that one backend answered.
fn plain() -> Exchange {
    let mut exchange = exchange();
    exchange.grpc = false;
    exchange.grpc_status = None;
    exchange.tries.remove(0);
    exchange
}

#[test]
fn of_everything() {
    let exchange = exchange();
    let [server, first, second] = &spans(&exchange)[..] else {
        panic!("a span for the request and one for each try");
    };
    let began = 1_767_323_045_006_007_000;
    for (span, id, parent, after, end, flags) in [
        (server, 1, 0xf_u64, 0, 4000, 0x301),
        (first, 2, 1, 100, 200, 0x101),
        (second, 3, 1, 1000, 4000, 0x101),
    ] {
        assert_eq!(span.trace_id, 0xabcd_u128.to_be_bytes(), "{}", span.name);
        assert_eq!(span.span_id, u64::to_be_bytes(id));
        assert_eq!(span.parent_span_id, parent.to_be_bytes());
        assert_eq!(span.start_time_unix_nano, began + after * 1000);
        assert_eq!(span.end_time_unix_nano, began + end * 1000);
        assert_eq!(span.trace_state, "a=1");
        assert_eq!(span.flags, flags, "{}", span.name);
    }
    assert_eq!(server.kind, i32::from(SpanKind::Server));
    assert_eq!(first.kind, i32::from(SpanKind::Client));
    assert_eq!(
        facts(server),
        table(&[
            ("client.address", "192.0.2.1"),
            ("http.request.body.size", "3"),
            ("http.request.method", "GET"),
            ("http.response.body.size", "1024"),
            ("http.response.header.x-request-id", "1 values"),
            ("http.response.status_code", "200"),
            ("http.route", "/a"),
            ("lb.outcome", "answered"),
            ("lb.route", "/a"),
            ("lb.service", "echo"),
            ("network.peer.address", "192.0.2.2"),
            ("network.peer.port", "998"),
            ("network.protocol.version", "1.1"),
            ("rpc.grpc.status_code", "0"),
            ("rpc.system", "grpc"),
            ("server.address", "echo.consul.localhost"),
            ("server.port", "80"),
            ("url.path", "/a"),
            ("url.query", "b=1"),
            ("url.scheme", "http"),
            ("user_agent.original", "curl \"8\"\n"),
        ])
    );
    let of_all_tries = [
        ("http.request.header.x-request-id", "1 values"),
        ("http.request.method", "GET"),
        ("rpc.system", "grpc"),
        ("url.scheme", "http"),
    ];
    let mut expected = table(&of_all_tries);
    expected.extend(table(&[
        ("error.type", "connection_refused"),
        ("network.peer.address", "10.0.0.1"),
        ("network.peer.port", "80"),
        ("network.protocol.version", "1.1"),
        ("server.address", "10.0.0.1"),
        ("server.port", "80"),
        ("url.full", "http://10.0.0.1:80/a?b=1"),
    ]));
    assert_eq!(facts(first), expected);
    let mut expected = table(&of_all_tries);
    expected.extend(table(&[
        ("http.request.resend_count", "1"),
        ("http.response.status_code", "200"),
        ("lb.hedge", "true"),
        ("lb.subset", "v2"),
        ("network.peer.address", "10.0.0.2"),
        ("network.peer.port", "80"),
        ("network.protocol.version", "2"),
        ("rpc.grpc.status_code", "0"),
        ("server.address", "10.0.0.2"),
        ("server.port", "80"),
        ("url.full", "http://10.0.0.2:80/a?b=1"),
    ]));
    assert_eq!(facts(second), expected);
    let statuses = [server, first, second].map(|span| span.status.clone().unwrap());
    assert_eq!(statuses[0], status(false, ""));
    assert_eq!(statuses[1], status(true, "connection refused"));
    assert_eq!(statuses[2], status(false, ""));
}

/// What the span of a request, and that of its only try, have for `error.type`.
#[test]
fn failures() {
    use Outcome::{
        Answered, BackendBrokeOff, BackendFailed, ClientGone, Forbidden, Idle, NoBackend, NoRoute,
        Overloaded, RateLimited, TimedOut, Upgraded,
    };
    let ok = Some(Ok(200));
    let refused = Some(Err("connection_refused"));
    let gone = Some(Err("client_gone"));
    let rows = [
        (Answered, 200, None, ok, None, None),
        (Answered, 304, None, Some(Ok(304)), None, None),
        (Upgraded, 101, None, Some(Ok(101)), None, None),
        // What a client asks for and does not get is its failure alone.
        (Answered, 404, None, Some(Ok(404)), None, Some("404")),
        (Answered, 500, None, Some(Ok(500)), Some("500"), Some("500")),
        (NoRoute, 404, None, None, None, None),
        (Forbidden, 403, None, None, None, None),
        (RateLimited, 429, None, None, None, None),
        (NoBackend, 503, None, None, Some("no_backend"), None),
        (Overloaded, 503, None, None, Some("overloaded"), None),
        (
            BackendFailed,
            502,
            None,
            refused,
            Some("backend_failed"),
            Some("connection_refused"),
        ),
        (
            TimedOut,
            504,
            None,
            Some(Err("timeout")),
            Some("timed_out"),
            Some("timeout"),
        ),
        (
            BackendBrokeOff,
            200,
            None,
            ok,
            Some("backend_broke_off"),
            Some("backend_broke_off"),
        ),
        (Idle, 200, None, ok, Some("idle"), Some("idle")),
        (Idle, 408, None, Some(Err("idle")), None, Some("idle")),
        (
            ClientGone,
            0,
            None,
            gone,
            Some("client_gone"),
            Some("client_gone"),
        ),
        // gRPC: NOT_FOUND is no fault of a server, UNAVAILABLE is.
        (Answered, 200, Some(0), ok, None, None),
        (Answered, 200, Some(5), ok, None, Some("5")),
        (Answered, 200, Some(14), ok, Some("14"), Some("14")),
        (NoBackend, 200, Some(14), None, Some("no_backend"), None),
        (RateLimited, 200, Some(8), None, None, None),
    ];
    for (outcome, status, code, tried, of_request, of_try) in rows {
        let mut exchange = plain();
        exchange.outcome = outcome;
        exchange.status = status;
        exchange.grpc = code.is_some();
        exchange.grpc_status = code;
        match tried {
            None => exchange.tries.clear(),
            Some(result) => {
                exchange.tries[0].result = result.map_err(|kind: &'static str| NoAnswer {
                    kind,
                    text: "in words".into(),
                });
            }
        }
        let expected = [Some(of_request), tried.map(|_| of_try)];
        let expected: Vec<_> = expected.into_iter().flatten().collect();
        let all = spans(&exchange);
        let found: Vec<_> = all
            .iter()
            .map(|span| facts(span).remove("error.type"))
            .collect();
        assert_eq!(
            found.iter().map(Option::as_deref).collect::<Vec<_>>(),
            expected,
            "{outcome:?} {status} {code:?}"
        );
        for (span, error) in all.iter().zip(expected) {
            let code = span.status.as_ref().unwrap().code;
            assert_eq!(code == i32::from(Error), error.is_some(), "{outcome:?}");
        }
    }
}

/// A change of the request, an attribute of its span or of its try's, and the name of either.
#[test]
fn names_and_words() {
    type Change = fn(&mut Exchange);
    let rows: [(Change, usize, &str, Option<&str>, &str); 14] = [
        (|_| {}, 0, "http.route", Some("/a"), "GET /a"),
        (
            |_| {},
            1,
            "url.full",
            Some("http://10.0.0.2:80/a?b=1"),
            "GET",
        ),
        (
            |e| e.route = Some("GET /x* with header v = 1 to web.v2".into()),
            0,
            "http.route",
            Some("/x*"),
            "GET /x*",
        ),
        (
            |e| e.route = Some("default".into()),
            0,
            "http.route",
            None,
            "GET",
        ),
        (
            |e| e.method = "get".into(),
            0,
            "http.request.method",
            Some("_OTHER"),
            "HTTP /a",
        ),
        (
            |e| e.method = "get".into(),
            1,
            "http.request.method_original",
            Some("get"),
            "HTTP",
        ),
        (
            |e| e.target = "/?sig=s&x=1&sign=2&Signature".into(),
            0,
            "url.query",
            Some("sig=REDACTED&x=1&sign=2&Signature"),
            "GET /a",
        ),
        (|e| e.target = "/a".into(), 0, "url.query", None, "GET /a"),
        (
            |e| {
                e.rewritten = Some("/b?sig=s".into());
                e.tries[0].tls = true;
            },
            1,
            "url.full",
            Some("https://10.0.0.2:80/b?sig=REDACTED"),
            "GET",
        ),
        (
            |e| (e.host, e.tls) = ("[::1]".into(), true),
            0,
            "server.port",
            Some("443"),
            "GET /a",
        ),
        (
            |e| e.host = "[fd00::1]:8080".into(),
            0,
            "server.address",
            Some("fd00::1"),
            "GET /a",
        ),
        (
            |e| e.host = String::new(),
            0,
            "server.address",
            Some("::1"),
            "GET /a",
        ),
        (
            |e| (e.target, e.grpc) = ("/p.Echo/Say".into(), true),
            0,
            "rpc.method",
            Some("Say"),
            "p.Echo/Say",
        ),
        (
            |e| (e.target, e.grpc) = ("/p.Echo/Say".into(), true),
            1,
            "rpc.service",
            Some("p.Echo"),
            "p.Echo/Say",
        ),
    ];
    for (change, place, key, value, name) in rows {
        let mut exchange = plain();
        change(&mut exchange);
        let all = spans(&exchange);
        let found = facts(&all[place]).remove(key);
        assert_eq!(found.as_deref(), value, "{key} of {exchange:?}");
        assert_eq!(all[place].name, name, "{exchange:?}");
    }
}

/// What was tried again had its own answer, and ended with it.
#[test]
fn an_answer_that_was_not_good_enough() {
    let mut exchange = exchange();
    exchange.tries[0].result = Ok(200);
    exchange.tries[0].grpc_status = Some(14);
    let all = spans(&exchange);
    let facts = [&all[1], &all[2]].map(facts);
    let codes = facts
        .each_ref()
        .map(|facts| &*facts["rpc.grpc.status_code"]);
    assert_eq!(codes, ["14", "0"]);
    assert_eq!(facts[0].get("error.type").map(String::as_str), Some("14"));
    let length = all[1].end_time_unix_nano - all[1].start_time_unix_nano;
    assert_eq!(length, 100_000);
    exchange.parent = None;
    let all = spans(&exchange);
    assert!(all[0].parent_span_id.is_empty());
    assert_eq!(all[0].flags, 0x101);
}
