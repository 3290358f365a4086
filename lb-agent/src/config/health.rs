//! The key `health` of a service.

use std::time::Duration;

use toml::{Spanned, de::DeValue};

use super::{
    locate::Report,
    scalar,
    table::{Table, Value, elements, read_at},
};
use crate::domain::{
    passive::PassiveSpec,
    service::{HealthPolicy, ProbeKind, ProbeSpec, TlsSpec},
};

const MIN_TIME: Duration = Duration::from_millis(50);
const MAX_TIME: Duration = Duration::from_secs(3600);
const MAX_ROUNDS: u32 = 100;
const DEFAULT_STATUS: (u16, u16) = (200, 399);

const MAX_SLOW_START: Duration = Duration::from_secs(3600);
const MAX_EJECTION: Duration = Duration::from_secs(24 * 3600);
/// Longest text that a body is searched for, in bytes.
const MAX_BODY: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Http,
    Grpc,
    None,
}

impl Kind {
    /// Which keys mean something to this kind and not to every one.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Kind::Tcp | Kind::None => &[],
            Kind::Http => &["path", "host", "status", "body", "tls"],
            Kind::Grpc => &["host", "service", "tls"],
        }
    }
}

/// Keys that belong to some kinds of probes only, and to which.
const OWN_KEYS: [(&str, &str); 6] = [
    ("path", "\"http\""),
    ("host", "\"http\" or \"grpc\""),
    ("status", "\"http\""),
    ("body", "\"http\""),
    ("service", "\"grpc\""),
    ("tls", "\"http\" or \"grpc\""),
];

/// Reads a health table: the probe, if any, and what else decides on health.
pub(super) fn health(mut table: Table, report: &mut Report) -> (Option<ProbeSpec>, HealthPolicy) {
    let defaults = ProbeSpec::default();
    let kind = table
        .require("kind", "kind = \"tcp\"", report, kind)
        .map(Spanned::into_inner);
    let asked = asked(&mut table, kind, report);

    let time = |value: &DeValue| scalar::duration(value, MIN_TIME..=MAX_TIME);
    let interval = table
        .get("interval", report, time)
        .unwrap_or(defaults.interval);
    let timeout = table.locate("timeout", report, time);
    if let Some(timeout) = &timeout
        && *timeout.get_ref() > interval
    {
        report.add(
            &timeout.span(),
            format!(
                "a probe may not take longer than the interval of {}, or the next one would \
                 begin before it ends; lower `timeout` or raise `interval`",
                humantime::format_duration(interval)
            ),
        );
    }
    let rounds = |value: &DeValue| scalar::integer(value, 1..=MAX_ROUNDS);
    let probe = ProbeSpec {
        kind: asked,
        interval,
        // A short interval alone is no mistake.
        timeout: timeout.map_or(defaults.timeout.min(interval), Spanned::into_inner),
        rise: table.get("rise", report, rounds).unwrap_or(defaults.rise),
        fall: table.get("fall", report, rounds).unwrap_or(defaults.fall),
        port: table.get("port", report, |value| scalar::integer(value, 1..=u16::MAX)),
    };
    let policy = policy(&mut table, report);
    table.close(report);
    ((kind != Some(Kind::None)).then_some(probe), policy)
}

fn kind(value: &DeValue) -> Result<Kind, String> {
    match scalar::string(value)?.as_str() {
        "tcp" => Ok(Kind::Tcp),
        "http" => Ok(Kind::Http),
        "grpc" => Ok(Kind::Grpc),
        "none" => Ok(Kind::None),
        "https" => Err("`https` is kind = \"http\" with tls = true".into()),
        other => Err(format!(
            "`{other}` is no kind of probe; use `tcp`, `http`, `grpc` or `none`"
        )),
    }
}

/// What is asked: the keys that mean something to some kinds only.
fn asked(table: &mut Table, kind: Option<Kind>, report: &mut Report) -> ProbeKind {
    for (key, kinds) in OWN_KEYS {
        if let Some(value) = table.value(key)
            && let Some(kind) = kind
            && !kind.keys().contains(&key)
        {
            report.add(
                &value.span(),
                format!("`{key}` belongs to probes of kind {kinds}; remove it or change `kind`"),
            );
        }
    }
    let host = table.get("host", report, host);
    let tls = tls(table, report);
    let path = match kind {
        Some(Kind::Http) => table
            .require("path", "path = \"/health\"", report, path)
            .map(Spanned::into_inner),
        _ => table.get("path", report, path),
    };
    let status = table
        .value("status")
        .and_then(|value| statuses(value, report));
    let body = table.get("body", report, body);
    let service = table.get("service", report, grpc_service);
    match kind {
        Some(Kind::Http) => ProbeKind::Http {
            path: path.unwrap_or_default(),
            host,
            status: status.unwrap_or_else(|| vec![DEFAULT_STATUS]),
            body,
            tls,
        },
        Some(Kind::Grpc) => ProbeKind::Grpc {
            service: service.unwrap_or_default(),
            host,
            tls,
        },
        _ => ProbeKind::Tcp,
    }
}

/// `true`, `false` or a table.
pub(super) fn tls(table: &mut Table, report: &mut Report) -> Option<TlsSpec> {
    let value = table.value("tls")?;
    if let DeValue::Boolean(on) = value.get_ref() {
        return on.then(TlsSpec::default);
    }
    let mut table = Table::of(value, report)?;
    let spec = TlsSpec {
        server_name: table.get("server_name", report, server_name),
        ca_cert: table.get("ca_cert", report, scalar::path),
        identity: None,
        insecure: table
            .get("insecure", report, scalar::boolean)
            .unwrap_or(false),
    };
    let cert = table.get("client_cert", report, scalar::path);
    let key = table.get("client_key", report, scalar::path);
    if cert.is_some() != key.is_some() {
        report.add(
            &table.span,
            "`client_cert` and `client_key` belong together; add the other one",
        );
    }
    if spec.insecure && spec.ca_cert.is_some() {
        report.add(
            &table.span,
            "`insecure` takes any certificate, so `ca_cert` would count for nothing; remove one",
        );
    }
    table.close(report);
    Some(TlsSpec {
        identity: cert.zip(key),
        ..spec
    })
}

/// Panic threshold, slow start and ejection.
fn policy(table: &mut Table, report: &mut Report) -> HealthPolicy {
    let defaults = HealthPolicy::default();
    let panic = |value: &DeValue| scalar::integer(value, 0..=100);
    let slow_start = |value: &DeValue| scalar::duration(value, Duration::ZERO..=MAX_SLOW_START);
    HealthPolicy {
        panic: table.get("panic", report, panic).unwrap_or(defaults.panic),
        slow_start: table
            .get("slow_start", report, slow_start)
            .unwrap_or(defaults.slow_start),
        passive: passive(table, report),
    }
}

/// `true`, `false` or a table.
fn passive(table: &mut Table, report: &mut Report) -> Option<PassiveSpec> {
    let defaults = PassiveSpec::default();
    let Some(value) = table.value("passive") else {
        return Some(defaults);
    };
    if let DeValue::Boolean(on) = value.get_ref() {
        return on.then_some(defaults);
    }
    let mut table = Table::of(value, report)?;
    let time = |value: &DeValue| scalar::duration(value, Duration::from_secs(1)..=MAX_EJECTION);
    let rounds = |value: &DeValue| scalar::integer(value, 1..=MAX_ROUNDS);
    let base = table.get("eject", report, time).unwrap_or(defaults.base);
    let longest = table.locate("eject_max", report, time);
    if let Some(longest) = &longest
        && *longest.get_ref() < base
    {
        report.add(
            &longest.span(),
            format!(
                "the longest ejection may not be shorter than the first, which is {}",
                humantime::format_duration(base)
            ),
        );
    }
    let failures = table.get("failures", report, rounds);
    table.close(report);
    Some(PassiveSpec {
        failures: failures.unwrap_or(defaults.failures),
        base,
        longest: longest.map_or(defaults.longest.max(base), Spanned::into_inner),
    })
}

/// What may stand in a request line as it is: printable ASCII without blanks or `#`.
fn path(value: &DeValue) -> Result<String, String> {
    let path = scalar::string(value)?;
    let fits = |c: char| c.is_ascii_graphic() && c != '#';
    if path.starts_with('/') && path.chars().all(fits) {
        Ok(path)
    } else {
        Err(format!(
            "`{path}` is no path of a request; it must begin with / and have no blanks, `#` or \
             letters outside ASCII"
        ))
    }
}

pub(super) fn host(value: &DeValue) -> Result<String, String> {
    let host = scalar::string(value)?;
    if host.parse::<hyper::http::uri::Authority>().is_ok() && !host.contains('@') {
        Ok(host)
    } else {
        Err(format!(
            "`{host}` is no host; write a name or address, with a port if need be"
        ))
    }
}

/// What a certificate can be for: a DNS name or an address.
fn server_name(value: &DeValue) -> Result<String, String> {
    let name = scalar::string(value)?;
    match rustls::pki_types::ServerName::try_from(name.as_str()) {
        Ok(_) => Ok(name),
        Err(_) => Err(format!("`{name}` is no DNS name and no address")),
    }
}

/// `package.Service`, or nothing for the server as a whole.
fn grpc_service(value: &DeValue) -> Result<String, String> {
    let name = scalar::string(value)?;
    let fits = |c: char| c.is_ascii_graphic();
    if name.len() <= 255 && name.chars().all(fits) {
        Ok(name)
    } else {
        Err(format!(
            "`{name}` is no name of a gRPC service, as in \"shop.v1.Cart\""
        ))
    }
}

fn body(value: &DeValue) -> Result<String, String> {
    let body = scalar::string(value)?;
    match body.len() {
        1..=MAX_BODY => Ok(body),
        _ => Err(format!(
            "must be a text of 1 to {MAX_BODY} bytes, which the answer has to contain"
        )),
    }
}

/// A status, a range of them, or a list of both.
fn statuses(value: &Value, report: &mut Report) -> Option<Vec<(u16, u16)>> {
    if value.get_ref().as_array().is_none() {
        return Some(vec![read_at(value, report, status)?.into_inner()]);
    }
    let ranges = elements(value, report, status)?;
    if ranges.is_empty() {
        report.add(
            &value.span(),
            "an empty list lets no answer pass; name a status or a range of them",
        );
    }
    Some(ranges.into_iter().map(Spanned::into_inner).collect())
}

/// `200`, `"200"` or `"200-399"`.
fn status(value: &DeValue) -> Result<(u16, u16), String> {
    let wrong = || {
        "must be a status or a range of them from 100 to 599, as in 200 or \"200-399\"".to_owned()
    };
    let range = match value {
        DeValue::Integer(_) => scalar::integer(value, 100..=599).ok().map(|one| (one, one)),
        DeValue::String(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            first.trim().parse().ok().zip(last.trim().parse().ok())
        }
        _ => None,
    };
    range
        .filter(|(first, last)| 100 <= *first && first <= last && *last <= 599)
        .ok_or_else(wrong)
}
