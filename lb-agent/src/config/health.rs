//! The key `health` of a service.

use std::time::Duration;

use toml::{Spanned, de::DeValue};

use super::{locate::Report, scalar, table::Table};
use crate::domain::service::{ProbeKind, ProbeSpec};

const MIN_TIME: Duration = Duration::from_millis(50);
const MAX_TIME: Duration = Duration::from_secs(3600);
const MAX_ROUNDS: u32 = 100;
const DEFAULT_STATUS: (u16, u16) = (200, 399);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Http,
}

/// Reads a health table. What it returns counts only if nothing was found.
pub(super) fn health(mut table: Table, report: &mut Report) -> ProbeSpec {
    let defaults = ProbeSpec::default();
    let kind = table
        .require("kind", "kind = \"tcp\"", report, kind)
        .map(Spanned::into_inner);
    let http = http(&mut table, kind, report);

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
    let spec = ProbeSpec {
        kind: match kind {
            Some(Kind::Http) => http,
            _ => ProbeKind::Tcp,
        },
        interval,
        // A short interval alone is no mistake.
        timeout: timeout.map_or(defaults.timeout.min(interval), Spanned::into_inner),
        rise: table.get("rise", report, rounds).unwrap_or(defaults.rise),
        fall: table.get("fall", report, rounds).unwrap_or(defaults.fall),
        port: table.get("port", report, |value| scalar::integer(value, 1..=u16::MAX)),
    };
    table.close(report);
    spec
}

fn kind(value: &DeValue) -> Result<Kind, String> {
    match scalar::string(value)?.as_str() {
        "tcp" => Ok(Kind::Tcp),
        "http" => Ok(Kind::Http),
        other => Err(format!(
            "`{other}` is no kind of probe; use `tcp` or `http`"
        )),
    }
}

/// The keys that mean something to HTTP probes only.
fn http(table: &mut Table, kind: Option<Kind>, report: &mut Report) -> ProbeKind {
    for key in ["path", "host", "status"] {
        if let Some(value) = table.value(key)
            && kind == Some(Kind::Tcp)
        {
            report.add(
                &value.span(),
                format!("`{key}` belongs to probes of kind \"http\"; remove it or change `kind`"),
            );
        }
    }
    let path = match kind {
        Some(Kind::Http) => table
            .require("path", "path = \"/health\"", report, path)
            .map(Spanned::into_inner),
        _ => table.get("path", report, path),
    };
    ProbeKind::Http {
        path: path.unwrap_or_default(),
        host: table.get("host", report, host),
        status: table
            .get("status", report, status)
            .unwrap_or(DEFAULT_STATUS),
    }
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

fn host(value: &DeValue) -> Result<String, String> {
    let host = scalar::string(value)?;
    if host.parse::<hyper::http::uri::Authority>().is_ok() && !host.contains('@') {
        Ok(host)
    } else {
        Err(format!(
            "`{host}` is no host; write a name or address, with a port if need be"
        ))
    }
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
