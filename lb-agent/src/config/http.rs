//! What of a `[[service]]` is about its requests: `hosts`, `routes`, `timeouts`, `retry`, `hedge`,
//! `limits`, `rate_limit`, `balance` and `upstream`.

mod routes;
mod timeouts;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use http::HeaderName;
use toml::{Spanned, de::DeValue};

use super::{
    health::{host, tls},
    locate::Report,
    scalar,
    table::{Table, Value, elements},
};
use crate::domain::{
    http::policy::{
        Balance, By, Hedge, HttpPolicy, Limits, ProxyProtocol, RateKey, RateLimit, RetryPolicy,
        Said, Upstream, UpstreamVersion,
    },
    service::{Affinity, Forwarding, Protocol},
    tag_route::host_name,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Statuses of answers that may be an error.
const STATUS: std::ops::RangeInclusive<u16> = 400..=599;

/// What means something to services of the proxy only.
const KEYS: [&str; 9] = [
    "hosts",
    "routes",
    "timeouts",
    "retry",
    "hedge",
    "limits",
    "rate_limit",
    "balance",
    "upstream",
];

/// Reads what is about requests; reports all of it where there are none.
pub(super) fn policy(table: &mut Table, protocol: Protocol, report: &mut Report) -> HttpPolicy {
    if !protocol.is_proxied() {
        for key in KEYS {
            if let Some(value) = table.value(key) {
                let reason = format!(
                    "`{key}` is about requests, and of a service with protocol {protocol} the node \
                     sees connections only; set protocol = \"http\" or \"grpc\", or remove it"
                );
                report.add(&value.span(), reason);
            }
        }
        return HttpPolicy::default();
    }
    let mut said = Said::default();
    HttpPolicy {
        only_routed: false,
        hosts: hosts(table, report),
        routes: routes::routes(table, report),
        timeouts: table
            .table("timeouts", report)
            .map(|table| timeouts::of_service(table, &mut said, report))
            .unwrap_or_default(),
        retry: table
            .table("retry", report)
            .map(|table| retry(table, report))
            .unwrap_or_default(),
        hedge: table
            .table("hedge", report)
            .and_then(|table| hedge(table, report)),
        limits: table
            .table("limits", report)
            .map(|table| limits(table, report))
            .unwrap_or_default(),
        rates: rates(table, report),
        balance: table
            .value("balance")
            .and_then(|value| {
                said.balance = By::File;
                balance(value, report)
            })
            .unwrap_or_default(),
        upstream: table
            .table("upstream", report)
            .map(|table| upstream(table, report))
            .unwrap_or_default(),
        said,
    }
}

/// Reports what the proxy cannot do for a service: it answers clients itself.
pub(super) fn check_flows(
    protocol: Protocol,
    forwarding: Option<&Spanned<Forwarding>>,
    affinity: Option<&Spanned<Affinity>>,
    report: &mut Report,
) {
    if !protocol.is_proxied() {
        return;
    }
    if let Some(forwarding) = forwarding
        && forwarding.get_ref().keeps_port()
    {
        let reason = format!(
            "with `{}` backends answer clients themselves, but those of a service with protocol \
             {protocol} speak to the proxy; use `nat` or protocol = \"tcp\"",
            forwarding.get_ref().name()
        );
        report.add(&forwarding.span(), reason);
    }
    if let Some(affinity) = affinity
        && *affinity.get_ref() == Affinity::Client
    {
        let reason = format!(
            "`affinity` is about connections, but of a service with protocol {protocol} each request \
             is balanced; use balance = {{ cookie = \"NAME\" }} or {{ header = \"NAME\" }}"
        );
        report.add(&affinity.span(), reason);
    }
}

/// Backends that the proxy connects to need no VIP of their family.
pub(super) fn vips_of_backends(
    protocol: Protocol,
    vips: &[Spanned<SocketAddr>],
) -> &[Spanned<SocketAddr>] {
    if protocol.is_proxied() { &[] } else { vips }
}

fn hosts(table: &mut Table, report: &mut Report) -> BTreeSet<String> {
    let Some(value) = table.value("hosts") else {
        return BTreeSet::new();
    };
    let host = |value: &DeValue| {
        let text = scalar::string(value)?;
        let name = host_name(text.strip_suffix('.').unwrap_or(&text))?;
        match text.contains(':') {
            true => Err(format!(
                "`{text}` names a port, which requests for a host may carry or not; write `{name}`"
            )),
            false => Ok(name),
        }
    };
    let hosts = elements(value, report, host).unwrap_or_default();
    hosts.into_iter().map(Spanned::into_inner).collect()
}

fn time(max: Duration) -> impl Fn(&DeValue) -> Result<Duration, String> {
    move |value| scalar::duration(value, MILLISECOND..=max)
}

/// Numbers in a list, each once.
fn numbers<T>(
    table: &mut Table,
    key: &'static str,
    bounds: std::ops::RangeInclusive<T>,
    report: &mut Report,
) -> Option<BTreeSet<T>>
where
    T: TryFrom<i64> + Ord + std::fmt::Display + Clone,
{
    let value = table.value(key)?;
    let numbers = elements(value, report, |value| {
        scalar::integer(value, bounds.clone())
    })?;
    Some(numbers.into_iter().map(Spanned::into_inner).collect())
}

fn retry(mut table: Table, report: &mut Report) -> RetryPolicy {
    let defaults = RetryPolicy::default();
    let retries = table.get("retries", report, |value| scalar::integer(value, 0..=10));
    let on_status = numbers(&mut table, "on_status", STATUS, report);
    let on_grpc = numbers(&mut table, "on_grpc", 1..=16, report);
    let budget = table.get("budget", report, |value| scalar::integer(value, 0..=1000));
    let floor = table.get("floor", report, |value| {
        scalar::integer(value, 0..=1_000_000)
    });
    let backoff = table.get("backoff", report, |value| {
        scalar::duration(value, Duration::ZERO..=Duration::from_secs(60))
    });
    let replay = table.get("replay", report, |value| {
        scalar::integer(value, 0..=16_777_216)
    });
    table.close(report);
    RetryPolicy {
        retries: retries.unwrap_or(defaults.retries),
        on_status: on_status.unwrap_or(defaults.on_status),
        on_grpc: on_grpc.unwrap_or(defaults.on_grpc),
        budget: budget.unwrap_or(defaults.budget),
        floor: floor.unwrap_or(defaults.floor),
        backoff: backoff.unwrap_or(defaults.backoff),
        replay: replay.unwrap_or(defaults.replay),
    }
}

fn hedge(mut table: Table, report: &mut Report) -> Option<Hedge> {
    let after = table.require("after", "hedge = { after = \"100ms\" }", report, time(HOUR));
    table.close(report);
    let after = after?.into_inner();
    Some(Hedge { after })
}

fn limits(mut table: Table, report: &mut Report) -> Limits {
    let defaults = Limits::default();
    let mut count = |key, min| {
        table.get(key, report, |value| {
            scalar::integer(value, min..=10_000_000)
        })
    };
    let connections = count("connections", 1).unwrap_or(defaults.connections);
    let pending = count("pending", 0).unwrap_or(defaults.pending);
    let requests = count("requests", 1).unwrap_or(defaults.requests);
    let body = table.get("body", report, |value| {
        scalar::integer(value, 0..=i64::MAX as u64)
    });
    table.close(report);
    Limits {
        connections,
        pending,
        requests,
        body,
    }
}

fn rates(table: &mut Table, report: &mut Report) -> Vec<RateLimit> {
    let Some(value) = table.value("rate_limit") else {
        return Vec::new();
    };
    // One may stand alone.
    let values: &[Value] = match value.get_ref() {
        DeValue::Array(array) => array,
        _ => std::slice::from_ref(value),
    };
    let tables = values.iter();
    tables
        .filter_map(|value| {
            let table = Table::of(value, report)?;
            rate(table, report)
        })
        .collect()
}

fn rate(mut table: Table, report: &mut Report) -> Option<RateLimit> {
    let example = "rate_limit = [{ requests = 100, per = \"1m\" }]";
    let requests = table.require("requests", example, report, |value| {
        scalar::integer(value, 1..=1_000_000_000)
    });
    let per = table.get("per", report, |value| {
        scalar::duration(value, MILLISECOND..=DAY)
    });
    let burst = table.get("burst", report, |value| {
        scalar::integer(value, 1..=1_000_000_000)
    });
    let by = table.value("by").and_then(|value| rate_key(value, report));
    let except = table
        .value("except")
        .and_then(|value| elements(value, report, scalar::prefix))
        .unwrap_or_default();
    let path = table.get("path", report, routes::rooted);
    table.close(report);
    let requests = requests?.into_inner();
    Some(RateLimit {
        requests,
        per: per.unwrap_or(Duration::from_secs(1)),
        burst: burst.unwrap_or(requests),
        by: by.unwrap_or(RateKey::Client),
        except: except.into_iter().map(Spanned::into_inner).collect(),
        path,
    })
}

fn rate_key(value: &Value, report: &mut Report) -> Option<RateKey> {
    match value.get_ref().as_str() {
        Some("client") => return Some(RateKey::Client),
        Some("everybody") => return Some(RateKey::Everybody),
        Some(other) => {
            let reason = format!(
                "`{other}` tells no requests apart; use \"client\", \"everybody\" or {{ header = \"NAME\" }}"
            );
            report.add(&value.span(), reason);
            return None;
        }
        None => {}
    }
    let mut table = Table::of(value, report)?;
    let name = table.require("header", "by = { header = \"x-api-key\" }", report, header);
    table.close(report);
    Some(RateKey::Header(name?.into_inner()))
}

/// The name of a header, in small letters.
fn header(value: &DeValue) -> Result<String, String> {
    let text = scalar::string(value)?;
    match text.parse::<HeaderName>() {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err(format!("`{text}` is no name of a header")),
    }
}

fn balance(value: &Value, report: &mut Report) -> Option<Balance> {
    match value.get_ref().as_str() {
        Some("peak-ewma") => return Some(Balance::PeakEwma),
        Some(other) => {
            let reason = format!(
                "`{other}` is no way of balancing; use \"peak-ewma\", {{ header = \"NAME\" }} or \
                 {{ cookie = \"NAME\" }}"
            );
            report.add(&value.span(), reason);
            return None;
        }
        None => {}
    }
    let mut table = Table::of(value, report)?;
    let header = table.get("header", report, header);
    let cookie = table.get("cookie", report, |value| {
        let text = scalar::string(value)?;
        // A cookie's name is a token (RFC 6265, section 4.1.1), as that of a header is.
        match text.parse::<HeaderName>() {
            Ok(_) => Ok(text),
            Err(_) => Err(format!("`{text}` is no name of a cookie")),
        }
    });
    let span = table.span.clone();
    table.close(report);
    match (header, cookie) {
        (Some(header), None) => Some(Balance::Header(header)),
        (None, Some(cookie)) => Some(Balance::Cookie(cookie)),
        (Some(_), Some(_)) => {
            let reason = "requests go by `header` or by `cookie`, not by both; remove one";
            report.add(&span, reason);
            None
        }
        (None, None) => None,
    }
}

fn upstream(mut table: Table, report: &mut Report) -> Upstream {
    let version = table.get("version", report, |value| {
        match scalar::string(value)?.as_str() {
            "auto" => Ok(UpstreamVersion::Auto),
            "http1" => Ok(UpstreamVersion::Http1),
            "http2" => Ok(UpstreamVersion::Http2),
            other => Err(format!(
                "`{other}` is no version of HTTP here; use `auto`, `http1` or `http2`"
            )),
        }
    });
    let tls = tls(&mut table, report);
    let proxy_protocol = table.get("proxy_protocol", report, |value| {
        Ok(match scalar::integer(value, 1..=2)? {
            1 => ProxyProtocol::V1,
            _ => ProxyProtocol::V2,
        })
    });
    let idle = table.get("idle", report, |value| scalar::integer(value, 0..=100_000));
    let warm = table.get("warm", report, |value| scalar::integer(value, 0..=1000));
    let host = table.get("host", report, host);
    table.close(report);
    Upstream {
        version: version.unwrap_or_default(),
        tls,
        proxy_protocol,
        idle,
        warm: warm.unwrap_or(Upstream::default().warm),
        host,
    }
}
