//! The section `[consul]`, and the environment variables of Consul's own tools behind it.
//!
//! A key of the file wins over the environment. The variables mean what they mean to the
//! `consul` command (`api/api.go` of hashicorp/consul).

use std::{fmt, path::PathBuf, time::Duration};

use hyper::http::uri::Authority;
use ipnet::IpNet;
use toml::{Spanned, de::DeValue};

use super::{
    locate::{Report, Span},
    scalar,
    table::{Table, Value, elements, read_at},
};
use crate::domain::block::parse_prefix;

const DEFAULT_AUTHORITY: &str = "127.0.0.1:8500";
const MIN_WAIT: Duration = Duration::from_secs(1);
/// After a restored snapshot Consul lets a call sleep its whole wait on an index that no longer
/// exists, so a longer wait means a longer blindness.
const MAX_WAIT: Duration = Duration::from_secs(30);
const DEFAULT_HOLD: Duration = Duration::from_secs(600);
const MIN_DEADLINE: Duration = Duration::from_secs(1);
const MAX_DEADLINE: Duration = Duration::from_secs(7 * 24 * 3600);
const MAX_HOLD: Duration = Duration::from_secs(24 * 3600);

/// The process environment, or a test's.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Section `[consul]`, completed from the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulConfig {
    /// `http://HOST:PORT` or `https://HOST:PORT`, without a path.
    pub address: String,
    /// The ACL token, if any.
    pub token: Token,
    /// Certificates (PEM) that the server's must be signed by; absent: the system's.
    pub ca_cert: Option<PathBuf>,
    /// How we prove who we are.
    pub client_identity: Option<ClientIdentity>,
    /// Name that the server's certificate must carry instead of the address's host.
    pub tls_server_name: Option<String>,
    /// Datacenter to ask for; absent: the one of the Consul agent.
    pub datacenter: Option<String>,
    /// How long a blocking query may wait for a change.
    pub wait: Duration,
    /// Which services publish themselves, by `lb-vip` in the meta of their instances.
    pub auto_publish: Publish,
    /// How long a removal that is not believed is held back; zero: everything is believed.
    pub hold: Duration,
    /// From the beginning of a maintenance to when the connections that are left are cut; absent:
    /// they end by themselves.
    pub maintenance_deadline: Option<Duration>,
}

/// Where the ACL token comes from. Never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Token {
    /// Requests carry none.
    #[default]
    None,
    /// Given as it is.
    Inline(String),
    /// In a file, to be read again whenever it changes.
    File(PathBuf),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::None => f.write_str("None"),
            Token::Inline(_) => f.write_str("Inline(…)"),
            Token::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Whose word counts on what this node balances, besides the file's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Publish {
    /// Nobody's.
    #[default]
    Nobody,
    /// That of everybody who may register a service, for any address.
    Anywhere,
    /// The same, for addresses in these prefixes.
    Within(Vec<IpNet>),
}

/// Certificate and key for TLS towards Consul, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Path of the certificate.
    pub cert: PathBuf,
    /// Path of its private key.
    pub key: PathBuf,
}

/// Reads `[consul]`.
pub(super) fn consul(
    mut table: Table,
    environment: &Environment,
    report: &mut Report,
) -> ConsulConfig {
    // Consul's tools take an empty variable for an absent one.
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let config = ConsulConfig {
        address: address(&mut table, &variable, report),
        token: token(&mut table, &variable, report),
        ca_cert: table
            .get("ca_cert", report, scalar::path)
            .or_else(|| variable("CONSUL_CACERT").map(PathBuf::from)),
        client_identity: client_identity(&mut table, &variable, report),
        tls_server_name: table
            .get("tls_server_name", report, scalar::word)
            .or_else(|| variable("CONSUL_TLS_SERVER_NAME")),
        datacenter: table.get("datacenter", report, scalar::word),
        wait: table
            .get("wait", report, |value| {
                scalar::duration(value, MIN_WAIT..=MAX_WAIT)
            })
            .unwrap_or(MAX_WAIT),
        auto_publish: table
            .value("auto_publish")
            .map(|value| publish(value, report))
            .unwrap_or_default(),
        hold: table
            .get("hold", report, |value| {
                scalar::duration(value, Duration::ZERO..=MAX_HOLD)
            })
            .unwrap_or(DEFAULT_HOLD),
        maintenance_deadline: table.get("maintenance_deadline", report, |value| {
            scalar::duration(value, MIN_DEADLINE..=MAX_DEADLINE)
        }),
    };
    table.close(report);
    config
}

/// `https` if CONSUL_HTTP_SSL asks for it and nothing in the file says otherwise.
fn address(table: &mut Table, variable: &Environment, report: &mut Report) -> String {
    let ssl = match variable("CONSUL_HTTP_SSL").map(|text| (parse_bool(&text), text)) {
        None => false,
        Some((Some(ssl), _)) => ssl,
        Some((None, text)) => {
            report.add_environment(
                "CONSUL_HTTP_SSL",
                format!("`{text}` is neither true nor false; set it to one of them"),
            );
            false
        }
    };
    let default_scheme = if ssl { Scheme::Https } else { Scheme::Http };
    if let Some(value) = table.value("address") {
        let read = |value: &DeValue| parse_address(&scalar::word(value)?);
        return read_at(value, report, read)
            .map(Spanned::into_inner)
            .map(|(scheme, authority)| url(scheme.unwrap_or(default_scheme), &authority))
            .unwrap_or_default();
    }
    let Some(text) = variable("CONSUL_HTTP_ADDR") else {
        return url(default_scheme, DEFAULT_AUTHORITY);
    };
    match parse_address(&text) {
        // Where TLS was asked for, an `http` beside it does not take it back.
        Ok((Some(Scheme::Http) | None, authority)) => url(default_scheme, &authority),
        Ok((Some(Scheme::Https), authority)) => url(Scheme::Https, &authority),
        Err(reason) => {
            report.add_environment("CONSUL_HTTP_ADDR", reason);
            String::new()
        }
    }
}

/// `true`, `false`, or a list of prefixes.
fn publish(value: &Value, report: &mut Report) -> Publish {
    let DeValue::Array(array) = value.get_ref() else {
        return match read_at(value, report, scalar::boolean).map(Spanned::into_inner) {
            Some(true) => Publish::Anywhere,
            Some(false) | None => Publish::Nobody,
        };
    };
    let prefix =
        |value: &DeValue| parse_prefix(&scalar::string(value)?).map_err(|error| error.to_string());
    let prefixes = elements(value, report, prefix).unwrap_or_default();
    if array.is_empty() {
        let text = "must be true, false, or a list of prefixes such as [\"198.51.100.0/24\"]";
        report.add(&value.span(), text);
    }
    Publish::Within(prefixes.into_iter().map(Spanned::into_inner).collect())
}

#[derive(Clone, Copy)]
enum Scheme {
    Http,
    Https,
}

fn url(scheme: Scheme, authority: &str) -> String {
    match scheme {
        Scheme::Http => format!("http://{authority}"),
        Scheme::Https => format!("https://{authority}"),
    }
}

fn parse_address(text: &str) -> Result<(Option<Scheme>, String), String> {
    let (scheme, rest) = match text.split_once("://") {
        None => (None, text),
        Some(("http", rest)) => (Some(Scheme::Http), rest),
        Some(("https", rest)) => (Some(Scheme::Https), rest),
        Some(("unix", _)) => {
            return Err(
                "Unix sockets are not supported; use the address of Consul's HTTP or HTTPS port"
                    .into(),
            );
        }
        Some((other, _)) => {
            return Err(format!(
                "`{other}` is no way to reach Consul; use http or https"
            ));
        }
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    // Nothing may follow the host but a port that exists, and nothing may precede it.
    let authority = rest.parse().ok().filter(|authority: &Authority| {
        let host = authority.host();
        let port_fits = match rest.strip_prefix(host) {
            Some("") => true,
            Some(port) => port
                .strip_prefix(':')
                .and_then(|port| port.parse::<u16>().ok())
                .is_some_and(|port| port > 0),
            None => false,
        };
        !host.is_empty() && port_fits
    });
    match authority {
        Some(_) => Ok((scheme, rest.into())),
        None => Err(
            "this is no address of Consul; write http://HOST:PORT or https://HOST:PORT, without \
             user or path"
                .into(),
        ),
    }
}

/// The words that Go's `strconv.ParseBool` takes.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn token(table: &mut Table, variable: &Environment, report: &mut Report) -> Token {
    let inline = table.locate("token", report, scalar::word);
    let file = table.locate("token_file", report, scalar::path);
    match (inline, file) {
        (Some(_), Some(file)) => {
            report.add(
                &file.span(),
                "`token` and `token_file` are both given; remove one",
            );
            Token::None
        }
        (Some(token), None) => Token::Inline(token.into_inner()),
        (None, Some(file)) => Token::File(file.into_inner()),
        // As for Consul's tools, the file wins.
        (None, None) => match variable("CONSUL_HTTP_TOKEN_FILE") {
            Some(file) => Token::File(file.into()),
            None => variable("CONSUL_HTTP_TOKEN").map_or(Token::None, Token::Inline),
        },
    }
}

fn client_identity(
    table: &mut Table,
    variable: &Environment,
    report: &mut Report,
) -> Option<ClientIdentity> {
    /// Says where the half that is there was found.
    enum From {
        File(Span),
        Variable(&'static str),
    }
    let mut half = |key, name: &'static str, report: &mut Report| {
        let value = table
            .locate(key, report, scalar::path)
            .map(|path| (From::File(path.span()), path.into_inner()));
        value.or_else(|| variable(name).map(|path| (From::Variable(name), path.into())))
    };
    let cert = half("client_cert", "CONSUL_CLIENT_CERT", report);
    let key = half("client_key", "CONSUL_CLIENT_KEY", report);
    let (alone, reason) = match (cert, key) {
        (None, None) => return None,
        (Some((_, cert)), Some((_, key))) => return Some(ClientIdentity { cert, key }),
        (Some((from, _)), None) => (
            from,
            "a client certificate needs its key; add `client_key` or CONSUL_CLIENT_KEY",
        ),
        (None, Some((from, _))) => (
            from,
            "a client key needs its certificate; add `client_cert` or CONSUL_CLIENT_CERT",
        ),
    };
    match alone {
        From::File(span) => report.add(&span, reason),
        From::Variable(name) => report.add_environment(name, reason),
    }
    None
}
