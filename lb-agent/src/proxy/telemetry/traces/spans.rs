//! A request as spans: one of the kind SERVER for itself, and as its children one of the kind CLIENT
//! for each try. Names and values are those of OpenTelemetry's semantic conventions for HTTP and
//! gRPC (`opentelemetry.io/docs/specs/semconv`); what they have no word for begins with `lb.`.

use std::{
    borrow::Cow,
    time::{Duration, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::trace::v1::{
    Span, SpanFlags, Status,
    span::SpanKind,
    status::StatusCode::{Error, Unset},
};

use super::attributes::{Attributes, cut};
use crate::domain::http::exchange::{Exchange, Outcome, Try};

/// Methods that stand in spans as they are; others could be anything.
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];
/// Parameters of a query that are signatures: whoever reads them could use them.
const SECRET: [&str; 4] = ["AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"];
/// Codes of gRPC that are a server's fault: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL,
/// UNAVAILABLE, DATA_LOSS.
const SERVERS_FAULT: [u32; 6] = [2, 4, 12, 13, 14, 15];

/// Appends the spans of a request.
pub(super) fn of(exchange: &Exchange, spans: &mut Vec<Span>) {
    spans.push(server(exchange));
    let mut tries: Vec<&Try> = exchange.tries.iter().collect();
    tries.sort_by_key(|one| one.after);
    let tries = tries.into_iter().enumerate();
    spans.extend(tries.map(|(before, one)| client(exchange, one, before)));
}

fn server(exchange: &Exchange) -> Span {
    let mut attributes = Attributes::default();
    method(exchange, &mut attributes);
    let (path, query) = parts(&exchange.target);
    attributes.text("url.path", path);
    if let Some(query) = query {
        attributes.text("url.query", redacted(query));
    }
    let scheme = if exchange.tls { "https" } else { "http" };
    attributes.text("url.scheme", scheme);
    let (host, port) = authority(exchange);
    attributes.text("server.address", host);
    attributes.number("server.port", port);
    attributes.text("client.address", exchange.client.ip().to_string());
    attributes.text("network.peer.address", exchange.peer.ip().to_string());
    attributes.number("network.peer.port", exchange.peer.port());
    let version = exchange.version.trim_start_matches("HTTP/");
    let version = if version == "2.0" { "2" } else { version };
    attributes.text("network.protocol.version", version);
    if let Some(agent) = &exchange.user_agent {
        attributes.text("user_agent.original", agent);
    }
    let route = exchange.route.as_deref().and_then(path_of);
    if let Some(route) = route {
        attributes.text("http.route", route);
    }
    if exchange.status != 0 {
        attributes.number("http.response.status_code", exchange.status);
    }
    attributes.size("http.request.body.size", exchange.received);
    attributes.size("http.response.body.size", exchange.sent);
    let id = &*exchange.request_id;
    attributes.header("http.response.header.x-request-id", id);
    rpc(exchange, exchange.grpc_status, &mut attributes);
    for (key, value) in [
        ("lb.service", &exchange.service),
        ("lb.route", &exchange.route),
    ] {
        if let Some(value) = value {
            attributes.text(key, &**value);
        }
    }
    attributes.text("lb.outcome", exchange.outcome.name());
    let failed = failed(exchange);
    if let Some(kind) = &failed {
        attributes.text("error.type", &**kind);
    }
    Span {
        parent_span_id: exchange.parent.map_or(Vec::new(), id_of),
        flags: flags(exchange) | remote(exchange.parent),
        name: name(exchange, route),
        kind: SpanKind::Server.into(),
        end_time_unix_nano: nanoseconds(exchange, exchange.total),
        status: Some(status(failed.is_some(), "")),
        ..span(exchange, exchange.trace.span, Duration::ZERO, attributes)
    }
}

/// `before`: tries that began before.
fn client(exchange: &Exchange, one: &Try, before: usize) -> Span {
    let mut attributes = Attributes::default();
    method(exchange, &mut attributes);
    let target = exchange.rewritten.as_ref().unwrap_or(&exchange.target);
    let (path, query) = parts(target);
    let scheme = if one.tls { "https" } else { "http" };
    let mut url = format!("{scheme}://{}{path}", one.backend);
    if let Some(query) = query {
        url.push('?');
        url.push_str(&redacted(query));
    }
    attributes.text("url.full", url);
    attributes.text("url.scheme", scheme);
    let address = one.backend.ip().to_string();
    attributes.text("server.address", &*address);
    attributes.number("server.port", one.backend.port());
    attributes.text("network.peer.address", address);
    attributes.number("network.peer.port", one.backend.port());
    let version = if one.http2 { "2" } else { "1.1" };
    attributes.text("network.protocol.version", version);
    if before > 0 {
        attributes.size("http.request.resend_count", before as u64);
    }
    let id = &*exchange.request_id;
    attributes.header("http.request.header.x-request-id", id);
    if let Ok(status) = one.result {
        attributes.number("http.response.status_code", status);
    }
    // Its answer is the one that went to the client.
    let answers = exchange.tries.last().is_some_and(|last| {
        let is_it = last.span == one.span;
        is_it && last.result.is_ok()
    });
    let code = match answers {
        true => exchange.grpc_status,
        false => one.grpc_status,
    };
    rpc(exchange, code, &mut attributes);
    if let Some(subset) = &one.subset {
        attributes.text("lb.subset", &**subset);
    }
    if one.hedge {
        attributes.yes("lb.hedge");
    }
    let failed: Option<Cow<'_, str>> = match &one.result {
        Err(none) => Some(none.kind.into()),
        Ok(_) if answers && broke_within(exchange) => Some(exchange.outcome.name().into()),
        Ok(status) if *status >= 400 => Some(status.to_string().into()),
        Ok(_) => code
            .filter(|code| exchange.grpc && *code != 0)
            .map(|code| code.to_string().into()),
    };
    if let Some(kind) = &failed {
        attributes.text("error.type", &**kind);
    }
    let message = one.result.as_ref().err().map_or("", |none| &*none.text);
    let end = if answers { exchange.total } else { one.waited };
    Span {
        parent_span_id: id_of(exchange.trace.span),
        flags: flags(exchange) | remote(None),
        name: name(exchange, None),
        kind: SpanKind::Client.into(),
        end_time_unix_nano: nanoseconds(exchange, end),
        status: Some(status(failed.is_some(), message)),
        ..span(exchange, one.span, one.after, attributes)
    }
}

/// What all spans have.
fn span(exchange: &Exchange, id: u64, after: Duration, attributes: Attributes) -> Span {
    Span {
        trace_id: exchange.trace.trace.to_be_bytes().to_vec(),
        span_id: id_of(id),
        trace_state: exchange.tracestate.clone().unwrap_or_default(),
        start_time_unix_nano: nanoseconds(exchange, after),
        attributes: attributes.0,
        ..Span::default()
    }
}

/// Why a request failed, in one of few words; `None`: it did not, for a client that asks for what
/// there is not has been served.
fn failed(exchange: &Exchange) -> Option<Cow<'static, str>> {
    let by_code = exchange
        .grpc_status
        .filter(|code| exchange.grpc && SERVERS_FAULT.contains(code));
    let by_status = (exchange.status >= 500).then_some(u32::from(exchange.status));
    let fault = by_status.or(by_code);
    let own = exchange.outcome != Outcome::Answered;
    match fault {
        Some(number) if !own => Some(number.to_string().into()),
        Some(_) => Some(exchange.outcome.name().into()),
        None if exchange.status == 0 || broke_within(exchange) => {
            Some(exchange.outcome.name().into())
        }
        None => None,
    }
}

/// The answer began well and did not come to its end.
fn broke_within(exchange: &Exchange) -> bool {
    use Outcome::{BackendBrokeOff, ClientGone, Idle, TimedOut};
    exchange.status < 400
        && matches!(
            exchange.outcome,
            ClientGone | BackendBrokeOff | Idle | TimedOut
        )
}

fn status(failed: bool, message: &str) -> Status {
    Status {
        code: if failed { Error } else { Unset }.into(),
        message: cut(message),
    }
}

fn method(exchange: &Exchange, attributes: &mut Attributes) {
    let method = &*exchange.method;
    if METHODS.contains(&method) {
        attributes.text("http.request.method", method);
    } else {
        attributes.text("http.request.method", "_OTHER");
        attributes.text("http.request.method_original", method);
    }
}

/// Never with a part of the path that the client chose, but for gRPC, where it is a method.
fn name(exchange: &Exchange, route: Option<&str>) -> String {
    if let Some((service, method)) = procedure(exchange) {
        return cut(format!("{service}/{method}"));
    }
    let method = Some(&*exchange.method).filter(|method| METHODS.contains(method));
    let method = method.unwrap_or("HTTP");
    match route {
        Some(route) => format!("{method} {route}"),
        None => method.into(),
    }
}

fn rpc(exchange: &Exchange, code: Option<u32>, attributes: &mut Attributes) {
    if !exchange.grpc {
        return;
    }
    attributes.text("rpc.system", "grpc");
    if let Some((service, method)) = procedure(exchange) {
        attributes.text("rpc.service", service);
        attributes.text("rpc.method", method);
    }
    if let Some(code) = code {
        attributes.number("rpc.grpc.status_code", code);
    }
}

/// Service and method of a call of gRPC.
fn procedure(exchange: &Exchange) -> Option<(&str, &str)> {
    let (path, _) = parts(&exchange.target);
    let called = path.strip_prefix('/').filter(|_| exchange.grpc)?;
    called.split_once('/')
}

/// The path of a route, as `/a*` of `GET /a* to v2`; `None`: it names none.
fn path_of(route: &str) -> Option<&str> {
    route.split(' ').find(|word| word.starts_with('/'))
}

fn parts(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

fn redacted(query: &str) -> Cow<'_, str> {
    let is_secret = |pair: &str| {
        let key = pair.split('=').next().unwrap_or(pair);
        SECRET.contains(&key)
    };
    if !query.split('&').any(is_secret) {
        return query.into();
    }
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) if is_secret(pair) => format!("{key}=REDACTED"),
        _ => pair.to_owned(),
    });
    pairs.collect::<Vec<String>>().join("&").into()
}

/// Host and port that the client asked for; without a host the listener.
fn authority(exchange: &Exchange) -> (String, u16) {
    let default = if exchange.tls { 443 } else { 80 };
    match exchange.host.parse::<http::uri::Authority>() {
        Ok(authority) => {
            let host = authority.host();
            let bare = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'));
            let port = authority.port_u16().unwrap_or(default);
            (bare.unwrap_or(host).to_owned(), port)
        }
        Err(_) => (exchange.listener.ip().to_string(), exchange.listener.port()),
    }
}

fn id_of(span: u64) -> Vec<u8> {
    span.to_be_bytes().to_vec()
}

fn flags(exchange: &Exchange) -> u32 {
    u32::from(exchange.trace.sampled)
}

/// Whether the parent is of another process, which the format has as two bits.
fn remote(parent: Option<u64>) -> u32 {
    let known = SpanFlags::ContextHasIsRemoteMask as u32;
    let is = SpanFlags::ContextIsRemoteMask as u32;
    known | parent.map_or(0, |_| is)
}

fn nanoseconds(exchange: &Exchange, after: Duration) -> u64 {
    let since = exchange
        .began
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        + after;
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
