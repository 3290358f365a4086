//! Answers, and the headers and JSON that go with tables.

use std::net::IpAddr;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::JSON;
use crate::{
    controller::OperatorError,
    domain::dtab::{self, Dentry, PREFIX},
};

/// Why a request is not carried out: a sentence for people.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
        }
    }
}

impl From<OperatorError> for Refusal {
    fn from(error: OperatorError) -> Self {
        let status = match &error {
            OperatorError::UnknownService { .. } | OperatorError::UnknownSubset { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            OperatorError::Changed(_) => StatusCode::PRECONDITION_FAILED,
            OperatorError::Refused(_) => StatusCode::CONFLICT,
            OperatorError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, format!("{}\n", self.reason)).into_response()
    }
}

pub(super) fn text(status: StatusCode, media: &'static str, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, media)], body).into_response()
}

pub(super) fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_string(value) {
        Ok(body) => text(status, JSON, body + "\n"),
        Err(error) => {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

/// One entry as JSON, as namerd writes it.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry {
    prefix: String,
    dst: String,
}

pub(super) fn entries(table: &[Dentry]) -> Vec<Entry> {
    let entry = |dentry: &Dentry| Entry {
        prefix: format!("{PREFIX}{}", dentry.service),
        dst: dtab::destination(dentry),
    };
    table.iter().map(entry).collect()
}

/// A table out of a list of entries.
pub(super) fn read_entries(text: &str) -> Result<Vec<Dentry>, Refusal> {
    let refuse = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    let entries: Vec<Entry> = serde_json::from_str(text).map_err(|error| {
        refuse(format!(
            "{error}; a table is a list such as [{{\"prefix\": \"/svc/echo\", \"dst\": \"/#/echo/v1\"}}]"
        ))
    })?;
    let mut table: Vec<Dentry> = Vec::new();
    for (number, entry) in (1..).zip(&entries) {
        let dentry = dtab::parse_halves(&entry.prefix, &entry.dst).map_err(|(second, error)| {
            let half = if second { "dst" } else { "prefix" };
            refuse(format!("entry {number}, `{half}`, {error}"))
        })?;
        if table.iter().any(|other| other.service == dentry.service) {
            let reason = format!(
                "entry {number}: `{PREFIX}{}` is given twice",
                dentry.service
            );
            return Err(refuse(reason));
        }
        table.push(dentry);
    }
    Ok(table)
}

/// The `ETag` of a table.
pub(super) fn entity_tag(table: &[Dentry]) -> Result<HeaderValue, Refusal> {
    HeaderValue::try_from(format!("\"{}\"", dtab::version(table)))
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// Whether one of the tags of an `If-Match` is this version. namerd's tags have no quotes, so
/// they are not insisted on; weak ones never match (RFC 9110, section 13.1.1).
pub(super) fn is_match(value: &HeaderValue, version: &str) -> bool {
    let Ok(value) = value.to_str() else {
        return false;
    };
    let mut tags = value.split(',').map(|tag| tag.trim().trim_matches('"'));
    tags.any(|tag| tag == version)
}

/// Whether a `Host` is a loopback address or `localhost`, with or without a port.
pub(super) fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
