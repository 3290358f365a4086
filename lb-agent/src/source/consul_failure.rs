//! Why a question to Consul has no answer, and what a person can do about it.

use std::{io, sync::Arc, time::Duration};

use reqwest::{Method, StatusCode};
use thiserror::Error;

use super::{
    consul_options::{CONNECT_TIMEOUT, Unresolved, chain, innermost},
    consul_token::TokenError,
};

/// A question without a trusted answer.
#[derive(Debug, Error)]
#[error("{method} {path} from {server}: {cause}")]
pub(super) struct RequestError {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) server: Arc<str>,
    #[source]
    pub(super) cause: Cause,
}

/// Why. Each text says what to do, where there is something to do.
#[derive(Debug, Error)]
pub(super) enum Cause {
    #[error("{0}")]
    Token(#[from] TokenError),
    #[error("{0}")]
    Unresolved(String),
    #[error("connection refused; check that Consul runs and listens there")]
    Refused,
    #[error("no connection ({0}); check the address and the network between")]
    Unreachable(String),
    #[error("no TLS ({0}); check scheme, CA certificate, server name and client certificate")]
    Tls(String),
    #[error("no connection within {} s; check the address and firewalls", CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout,
    #[error("no answer within {:.0} s", .0.as_secs_f64())]
    Timeout(Duration),
    #[error(
        "the connection broke ({0}); Consul's log and its limit http_max_conns_per_client may say why"
    )]
    Broken(String),
    #[error("permission denied{}; the token lacks a right (service:read, node:read, or key:read for keys)", in_brackets(.0))]
    Denied(String),
    #[error("there is nothing at this path; check that the address is that of Consul's HTTP API")]
    NotFound,
    #[error("status {status}{}", in_brackets(.text))]
    Status { status: StatusCode, text: String },
    #[error(
        "the answer has no X-Consul-Index; check that the address is that of Consul's HTTP API"
    )]
    NoIndex,
    #[error("the Consul servers have no leader, so the answer is not believed")]
    NoLeader,
    #[error("the server has not heard of its leader for {} ms, so the answer is not believed", .0.as_millis())]
    Stale(Duration),
    #[error("the answer is not the JSON that Consul documents ({0})")]
    Body(#[from] serde_json::Error),
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({text})")
    }
}

/// What kind of failure it is, by the types of the errors in its chain.
pub(super) fn explain(error: &reqwest::Error, timeout: Duration) -> Cause {
    if error.is_timeout() {
        return if error.is_connect() {
            Cause::ConnectTimeout
        } else {
            Cause::Timeout(timeout)
        };
    }
    if let Some(unresolved) = chain(error).find_map(|cause| cause.downcast_ref::<Unresolved>()) {
        return Cause::Unresolved(unresolved.to_string());
    }
    let is = |kind| {
        chain(error)
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == kind)
    };
    if is(io::ErrorKind::ConnectionRefused) {
        Cause::Refused
    } else if is(io::ErrorKind::InvalidData) {
        // The TLS library says so of everything but the connection below it.
        Cause::Tls(innermost(error))
    } else if error.is_connect() {
        Cause::Unreachable(innermost(error))
    } else {
        Cause::Broken(innermost(error))
    }
}

/// What a server wrote about its refusal, fit for one line.
pub(super) fn excerpt(body: &[u8]) -> String {
    const LONGEST: usize = 160;
    let text = String::from_utf8_lossy(body);
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars()
        .filter(|letter| !letter.is_control())
        .take(LONGEST)
        .collect()
}
