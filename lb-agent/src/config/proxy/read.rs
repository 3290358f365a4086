//! Reads `[proxy]`.

use std::{
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use http::Uri;
use toml::{Spanned, de::DeValue};

use super::{
    super::{
        locate::Report,
        scalar,
        table::{Table, Value, elements, read_at},
    },
    AccessLogConfig, AccessLogFormat, Bounds, ListenerConfig, OtlpTransport, ProxyConfig,
    TracesConfig,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// More threads than any node has CPUs.
const MAX_THREADS: usize = 1024;

/// The section as far as it could be read, with the places of its listeners.
pub(in crate::config) struct Read {
    /// Counts only if nothing was found.
    pub(in crate::config) config: ProxyConfig,
    /// Addresses of listeners that could be read.
    pub(in crate::config) listeners: Vec<Spanned<SocketAddr>>,
}

/// Reads the section.
pub(in crate::config) fn proxy(mut table: Table, report: &mut Report) -> Read {
    let defaults = ProxyConfig::default();
    let (listeners, places) = listeners(&mut table, report);
    let config = ProxyConfig {
        listeners,
        threads: table
            .get("threads", report, |value| {
                scalar::integer(value, 1..=MAX_THREADS)
            })
            .unwrap_or(defaults.threads),
        pin: table.get("pin", report, scalar::boolean),
        trusted: table
            .value("trusted")
            .and_then(|value| elements(value, report, scalar::prefix))
            .unwrap_or_default()
            .into_iter()
            .map(Spanned::into_inner)
            .collect(),
        bounds: table
            .table("bounds", report)
            .map(|table| bounds(table, report))
            .unwrap_or_default(),
        shutdown: table
            .get("shutdown", report, |value| {
                scalar::duration(value, Duration::ZERO..=HOUR)
            })
            .unwrap_or(defaults.shutdown),
        access_log: table
            .table("access_log", report)
            .map(|table| access_log(table, report)),
        traces: table
            .table("traces", report)
            .and_then(|table| traces(table, report)),
    };
    table.close(report);
    Read {
        config,
        listeners: places,
    }
}

fn listeners(
    table: &mut Table,
    report: &mut Report,
) -> (Vec<ListenerConfig>, Vec<Spanned<SocketAddr>>) {
    let (mut listeners, mut places) = (Vec::new(), Vec::new());
    let Some(value) = table.value("listen") else {
        return (listeners, places);
    };
    let DeValue::Array(array) = value.get_ref() else {
        let reason = "must be a list in [ ], as in [\"0.0.0.0:80\", \":4140\"]";
        report.add(&value.span(), reason);
        return (listeners, places);
    };
    for value in array.iter() {
        if let Some((address, listener)) = listener(value, report) {
            listeners.push(listener);
            places.push(address);
        }
    }
    (listeners, places)
}

/// An address, or a table with one.
fn listener(value: &Value, report: &mut Report) -> Option<(Spanned<SocketAddr>, ListenerConfig)> {
    if value.get_ref().as_str().is_some() {
        let place = read_at(value, report, address)?;
        let listener = ListenerConfig {
            address: *place.get_ref(),
            certificates: Vec::new(),
            proxy_protocol: false,
        };
        return Some((place, listener));
    }
    let mut table = Table::of(value, report)?;
    let place = table.require("address", "address = \":443\"", report, address);
    let certificates = certificates(&mut table, report);
    let proxy_protocol = table.get("proxy_protocol", report, scalar::boolean);
    table.close(report);
    let place = place?;
    let listener = ListenerConfig {
        address: *place.get_ref(),
        certificates,
        proxy_protocol: proxy_protocol.unwrap_or_default(),
    };
    Some((place, listener))
}

/// `IP:PORT`, or `:PORT` for every address of the node.
fn address(value: &DeValue) -> Result<SocketAddr, String> {
    let text = scalar::string(value)?;
    let address = match text.strip_prefix(':').map(str::parse::<u16>) {
        Some(Ok(port)) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        Some(Err(_)) => return Err(format!("`{text}` is no port; write :PORT, as in :4140")),
        None => scalar::listen(value)?,
    };
    match address.port() {
        0 => Err("port 0 is none; name the port that clients connect to".into()),
        _ => Ok(address),
    }
}

fn certificates(table: &mut Table, report: &mut Report) -> Vec<(PathBuf, PathBuf)> {
    let Some(value) = table.value("tls") else {
        return Vec::new();
    };
    let example = "tls = [{ cert = \"/etc/lb-agent/web.pem\", key = \"/etc/lb-agent/web.key\" }]";
    let array = match value.get_ref().as_array() {
        Some(array) if !array.is_empty() => array,
        _ => {
            let reason = format!("must be a list of certificates with their keys, as in {example}");
            report.add(&value.span(), reason);
            return Vec::new();
        }
    };
    let mut certificates = Vec::new();
    for value in array.iter() {
        let Some(mut table) = Table::of(value, report) else {
            continue;
        };
        let cert = table.require("cert", example, report, scalar::path);
        let key = table.require("key", example, report, scalar::path);
        table.close(report);
        if let (Some(cert), Some(key)) = (cert, key) {
            certificates.push((cert.into_inner(), key.into_inner()));
        }
    }
    certificates
}

fn bounds(mut table: Table, report: &mut Report) -> Bounds {
    let defaults = Bounds::default();
    let mut number = |key, default, min, max| {
        table
            .get(key, report, |value| scalar::integer(value, min..=max))
            .unwrap_or(default)
    };
    let connections = number("connections", defaults.connections, 1, 10_000_000);
    let per_client = number("per_client", defaults.per_client, 1, 10_000_000);
    // What hyper can read at the least, and what nobody needs.
    let head = number("head", defaults.head, 8192, 1 << 20);
    let headers = number("headers", defaults.headers, 16, 4096);
    let streams = table.get("streams", report, |value| {
        scalar::integer(value, 1..=65_536_u32)
    });
    let mut time = |key, default, max| {
        table
            .get(key, report, |value| scalar::duration(value, SECOND..=max))
            .unwrap_or(default)
    };
    let head_timeout = time("head_timeout", defaults.head_timeout, HOUR);
    let keep_alive = time("keep_alive", defaults.keep_alive, 24 * HOUR);
    table.close(report);
    Bounds {
        connections,
        per_client,
        head,
        headers,
        streams: streams.unwrap_or(defaults.streams),
        head_timeout,
        keep_alive,
    }
}

fn access_log(mut table: Table, report: &mut Report) -> AccessLogConfig {
    let file = table.get("file", report, scalar::path);
    let stderr = table.get("stderr", report, scalar::boolean);
    let format = table.get("format", report, |value| {
        match scalar::string(value)?.as_str() {
            "json" => Ok(AccessLogFormat::Json),
            "combined" => Ok(AccessLogFormat::Combined),
            other => Err(format!(
                "`{other}` is no format of an access log; use `json` or `combined`"
            )),
        }
    });
    if file.is_none() && stderr == Some(false) {
        let reason = "this log goes nowhere; name a `file`, or remove `stderr = false`";
        report.add(&table.span, reason);
    }
    table.close(report);
    AccessLogConfig {
        stderr: stderr.unwrap_or(file.is_none()),
        file,
        format: format.unwrap_or_default(),
    }
}

fn traces(mut table: Table, report: &mut Report) -> Option<TracesConfig> {
    let example = "endpoint = \"http://127.0.0.1:4317\"";
    let endpoint = table.require("endpoint", example, report, |value| {
        let text = scalar::word(value)?;
        let fits = |uri: &Uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        };
        match text.parse::<Uri>().ok().filter(fits) {
            Some(_) => Ok(text),
            None => Err(format!(
                "`{text}` is no receiver of traces; write http://HOST:PORT or https://HOST:PORT"
            )),
        }
    });
    let transport = table.get("transport", report, |value| {
        match scalar::string(value)?.as_str() {
            "grpc" => Ok(OtlpTransport::Grpc),
            "http" => Ok(OtlpTransport::Http),
            other => Err(format!(
                "`{other}` does not carry traces; use `grpc` (port 4317) or `http` (port 4318)"
            )),
        }
    });
    let sample = table.get("sample", report, part);
    table.close(report);
    Some(TracesConfig {
        endpoint: endpoint?.into_inner(),
        transport: transport.unwrap_or_default(),
        sample: sample.unwrap_or(1.0),
    })
}

/// A number from 0 to 1.
fn part(value: &DeValue) -> Result<f64, String> {
    let number = match value {
        DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
        DeValue::Integer(_) => scalar::integer(value, 0..=1_u8).ok().map(f64::from),
        _ => None,
    };
    number
        .filter(|number| (0.0..=1.0).contains(number))
        .ok_or_else(|| "must be a number from 0 to 1, as in 0.1 for one of ten".into())
}
