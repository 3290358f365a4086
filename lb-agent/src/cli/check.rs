//! `check`: whether a configuration is valid, without touching anything.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    failure::Failure,
    output::{Printer, counted},
};
use crate::{
    config::{
        ProxyConfig,
        proxy::{AccessLogConfig, AccessLogFormat, ListenerConfig, OtlpTransport, TracesConfig},
    },
    proxy::front::certificate_names,
};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file
    file: PathBuf,
}

#[derive(Serialize)]
struct Valid {
    file: PathBuf,
    valid: bool,
    interfaces: Vec<String>,
    services: Vec<String>,
    proxy: Proxy,
}

/// `[proxy]` in short.
#[derive(Debug, Serialize)]
struct Proxy {
    listeners: Vec<Listener>,
    access_log: Option<AccessLog>,
    traces: Option<Traces>,
}

#[derive(Debug, Serialize)]
struct Listener {
    address: String,
    proxy_protocol: bool,
    /// In its certificates; `None`: no TLS.
    tls_names: Option<Vec<String>>,
    /// What is wrong with these here and now: the agent would not start.
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct AccessLog {
    file: Option<PathBuf>,
    stderr: bool,
    format: &'static str,
}

#[derive(Debug, Serialize)]
struct Traces {
    endpoint: String,
    transport: &'static str,
    sample: f64,
}

pub(super) fn execute(args: Args, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let config = crate::config::load(&args.file).map_err(Failure::Configuration)?;
    let valid = Valid {
        file: args.file,
        valid: true,
        proxy: Proxy::new(&config.proxy),
        interfaces: config.node.interfaces,
        services: config
            .services
            .iter()
            .map(|spec| spec.name.clone())
            .collect(),
    };
    printer.print(&valid, |valid| {
        let first = format!(
            "{} is valid: {} on {}",
            valid.file.display(),
            counted(valid.services.len() as u64, "service"),
            valid.interfaces.join(", ")
        );
        let lines = std::iter::once(first).chain(valid.proxy.lines());
        lines.collect::<Vec<String>>().join("\n")
    })?;
    Ok(())
}

impl Proxy {
    fn new(config: &ProxyConfig) -> Self {
        Self {
            listeners: config.listeners.iter().map(Listener::new).collect(),
            access_log: config.access_log.as_ref().map(AccessLog::new),
            traces: config.traces.as_ref().map(Traces::new),
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for listener in &self.listeners {
            let mut line = format!("requests are taken on {}", listener.address);
            match &listener.tls_names {
                None => {}
                Some(names) if names.is_empty() => line.push_str(", over TLS"),
                Some(names) => {
                    line.push_str(&format!(", over TLS as {}", names.join(", ")));
                }
            }
            if listener.proxy_protocol {
                line.push_str(", behind a PROXY protocol header");
            }
            lines.push(line);
            lines.extend(
                listener
                    .problem
                    .iter()
                    .map(|problem| format!("! {problem}")),
            );
        }
        if let Some(log) = &self.access_log {
            let file = log.file.as_ref().map(|file| file.display().to_string());
            let stderr = log.stderr.then(|| "standard error".to_owned());
            let places: Vec<String> = file.into_iter().chain(stderr).collect();
            let places = places.join(" and ");
            lines.push(format!(
                "requests are logged to {places}, as {}",
                log.format
            ));
        }
        if let Some(traces) = &self.traces {
            let Traces {
                endpoint,
                transport,
                sample,
            } = traces;
            let percent = sample * 100.0;
            lines.push(format!(
                "spans go to {endpoint} by {transport}, of {percent} % of the traces that begin here"
            ));
        }
        lines
    }
}

impl Listener {
    fn new(config: &ListenerConfig) -> Self {
        let read = (!config.certificates.is_empty()).then(|| certificate_names(config));
        let (tls_names, problem) = match read {
            None => (None, None),
            Some(Ok(names)) => (Some(names), None),
            Some(Err(error)) => (Some(Vec::new()), Some(format!("{error:#}"))),
        };
        Self {
            address: config.address.to_string(),
            proxy_protocol: config.proxy_protocol,
            tls_names,
            problem,
        }
    }
}

impl AccessLog {
    fn new(config: &AccessLogConfig) -> Self {
        Self {
            file: config.file.clone(),
            stderr: config.stderr,
            format: match config.format {
                AccessLogFormat::Json => "json",
                AccessLogFormat::Combined => "combined",
            },
        }
    }
}

impl Traces {
    fn new(config: &TracesConfig) -> Self {
        Self {
            endpoint: config.endpoint.clone(),
            transport: match config.transport {
                OtlpTransport::Grpc => "grpc",
                OtlpTransport::Http => "http",
            },
            sample: config.sample,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let text = format!("[node]\ninterfaces = [\"eth0\"]\n{text}");
        let config = crate::config::parse(&text, Path::new("test.toml")).unwrap();
        Proxy::new(&config.proxy).lines()
    }

    #[test]
    fn the_proxy_in_short() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let hosts = ["b.example", "*.a.example"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        fs::write(path("cert"), made.cert.pem()).unwrap();
        fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
        let listener = |certificate: &str| {
            format!(
                "[proxy]\nlisten = [{{ address = \"127.0.0.1:443\", proxy_protocol = true, \
                 tls = [{{ cert = \"{certificate}\", key = \"{}\" }}] }}]\n",
                path("key")
            )
        };
        let rows: [(String, &[&str]); 4] = [
            (String::new(), &[]),
            (
                "[proxy]\nlisten = [\"127.0.0.1:80\"]\n\
                 access_log = { file = \"/l\", stderr = true, format = \"combined\" }\n\
                 traces = { endpoint = \"http://t\", transport = \"http\", sample = 0.25 }\n"
                    .into(),
                &[
                    "requests are taken on 127.0.0.1:80",
                    "requests are logged to /l and standard error, as combined",
                    "spans go to http://t by http, of 25 % of the traces that begin here",
                ],
            ),
            (
                listener(&path("cert")),
                &[
                    "requests are taken on 127.0.0.1:443, over TLS as *.a.example, b.example, behind a PROXY protocol header",
                ],
            ),
            (
                listener("/none"),
                &[
                    "requests are taken on 127.0.0.1:443, over TLS, behind a PROXY protocol header",
                    "! reading certificates of /none: I/O error: No such file or directory (os error 2)",
                ],
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(lines(&text), expected, "{text}");
        }
    }
}
