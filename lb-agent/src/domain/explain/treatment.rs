//! How requests are treated, and who says so.

use std::time::Duration;

use super::file;
use crate::domain::{
    http::policy::{
        Balance, By, HttpPolicy, ProxyProtocol, RateKey, RateLimit, Upstream, UpstreamVersion,
    },
    route::Route,
    service::Protocol,
    snapshot::ServiceState,
};

/// A fact on how requests are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// As in `timeout` or `rate limit`.
    pub name: &'static str,
    /// In words.
    pub value: String,
    /// `default`, the configuration with its line, or `the route`.
    pub source: String,
}

/// How requests of a service are treated where this route fits.
pub fn treatment(state: &ServiceState, route: Option<&Route>) -> Vec<Treatment> {
    if !state.spec.protocol.is_proxied() {
        return Vec::new();
    }
    let policy = &*state.spec.http;
    let usual = HttpPolicy::default();
    let own = file(state).to_string();
    let said = |is_default: bool| match is_default {
        true => "default".to_owned(),
        false => own.clone(),
    };
    let mut facts = Vec::new();
    let mut tell = |name, value: String, source: String| {
        facts.push(Treatment {
            name,
            value,
            source,
        });
    };
    let to = route.map(|route| &route.to);
    let of_route = "the route".to_owned();
    let (of_service, usual_times) = (&policy.timeouts, &usual.timeouts);
    let times = to.map_or_else(|| of_service.clone(), |to| to.timeouts(of_service));
    let by = |who: By| match who {
        By::Resolver => "service-resolver in Consul".to_owned(),
        By::File | By::Nobody => said(who == By::Nobody),
    };
    let (connect, total) = (by(policy.said.connect), by(policy.said.total));
    let retries = to.and_then(|to| to.retries);
    let per_try = match times.per_try {
        Some(per_try) => time(per_try),
        None if retries.unwrap_or(policy.retry.retries) == 0 => "that of all".to_owned(),
        None => format!(
            "that of all; another is asked beside it after {}",
            time(times.alone())
        ),
    };
    for (name, value, own, of_service) in [
        (
            "timeout",
            time(times.total),
            to.and_then(|to| to.timeout),
            total,
        ),
        (
            "connect timeout",
            time(times.connect),
            to.and_then(|to| to.connect),
            connect,
        ),
        (
            "timeout of a try",
            per_try,
            to.and_then(|to| to.per_try),
            said(of_service.per_try.is_none()),
        ),
        (
            "idle timeout",
            time(times.idle),
            to.and_then(|to| to.idle),
            said(of_service.idle == usual_times.idle),
        ),
    ] {
        let source = own.map_or(of_service, |_| of_route.clone());
        tell(name, value, source);
    }
    let retry = &policy.retry;
    let budget = format!("within {} % of requests or {}/s", retry.budget, retry.floor);
    match to.and_then(|to| to.retries) {
        Some(retries) => tell("retries", format!("{retries}, {budget}"), of_route.clone()),
        None => tell(
            "retries",
            format!("{}, {budget}", retry.retries),
            said(*retry == usual.retry),
        ),
    }
    match to.filter(|to| !to.retry_on_status.is_empty()) {
        Some(to) => tell("retried on", list(&to.retry_on_status), of_route.clone()),
        None => tell(
            "retried on",
            list(&retry.on_status),
            said(retry.on_status == usual.retry.on_status),
        ),
    }
    if let Some(rewrite) = to.and_then(|to| to.prefix_rewrite.as_deref()) {
        tell("path rewritten to", format!("{rewrite}…"), of_route);
    }
    if let Some(hedge) = &policy.hedge {
        tell("hedged after", time(hedge.after), own.clone());
    }
    let limits = &policy.limits;
    let mut bounds = format!(
        "{} connections a backend, {} requests, {} waiting",
        limits.connections, limits.requests, limits.pending
    );
    if let Some(body) = limits.body {
        bounds.push_str(&format!(", bodies of {body} bytes"));
    }
    tell("limits", bounds, said(*limits == usual.limits));
    for limit in &policy.rates {
        tell("rate limit", rate(limit), own.clone());
    }
    let balance = match &policy.balance {
        Balance::PeakEwma => "by latency and load".to_owned(),
        Balance::Header(name) => format!("by header {name}"),
        Balance::Cookie(name) => format!("by cookie {name}"),
    };
    let source = by(policy.said.balance);
    tell("balanced", balance, source);
    let spoken = upstream(&policy.upstream, state.spec.protocol);
    let is_usual = policy.upstream == usual.upstream;
    tell("backends speak", spoken, said(is_usual));
    facts
}

/// `HTTP/2 over TLS, PROXY protocol v2, 8 idle connections, Host web.internal`.
fn upstream(upstream: &Upstream, protocol: Protocol) -> String {
    let http2 = match upstream.version {
        UpstreamVersion::Auto => protocol == Protocol::Grpc,
        UpstreamVersion::Http1 => false,
        UpstreamVersion::Http2 => true,
    };
    let mut text = if http2 { "HTTP/2" } else { "HTTP/1.1" }.to_owned();
    if upstream.tls.is_some() {
        text.push_str(" over TLS");
    }
    match upstream.proxy_protocol {
        None => {}
        Some(ProxyProtocol::V1) => text.push_str(", PROXY protocol v1"),
        Some(ProxyProtocol::V2) => text.push_str(", PROXY protocol v2"),
    }
    if let Some(idle) = upstream.idle {
        text.push_str(&format!(", {idle} idle connections"));
    }
    if upstream.warm != Upstream::default().warm {
        text.push_str(&format!(", {} ready beforehand", upstream.warm));
    }
    if let Some(host) = &upstream.host {
        text.push_str(&format!(", Host {host}"));
    }
    text
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

fn list<'a>(numbers: impl IntoIterator<Item = &'a u16>) -> String {
    let numbers = numbers.into_iter().map(u16::to_string);
    numbers.collect::<Vec<_>>().join(", ")
}

/// `100 in 1m, 20 at once, by client, below /api`.
fn rate(limit: &RateLimit) -> String {
    let by = match &limit.by {
        RateKey::Client => "each client".to_owned(),
        RateKey::Header(name) => format!("each value of header {name}"),
        RateKey::Everybody => "all together".to_owned(),
    };
    let per = time(limit.per);
    let mut text = format!("{} in {per}, {} at once, {by}", limit.requests, limit.burst);
    if let Some(path) = &limit.path {
        text.push_str(&format!(", for {path}*"));
    }
    if !limit.except.is_empty() {
        let nets: Vec<String> = limit.except.iter().map(ToString::to_string).collect();
        text.push_str(&format!(", but not for {}", nets.join(", ")));
    }
    text
}
