//! Splits over HTTP as namerd's users know them: read and replace a delegation table.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /api/1/dtabs` | the names of the namespaces: one |
//! | `GET /api/1/dtabs/NAMESPACE` | the table, with its `ETag`; JSON, or text for `Accept: application/dtab` |
//! | `PUT /api/1/dtabs/NAMESPACE` | 204: it is in force. With `If-Match` only while nobody else has changed it: else 412 |
//!
//! What is wrong is answered by 400 with line and column, an unknown service or subset by 422, a
//! service whose traffic was taken back and not acknowledged by 409. Listens on loopback only, and
//! refuses names in `Host` that a web page could have made point here.

mod answer;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use self::answer::{Refusal, entity_tag, is_match, json, text};
use crate::{
    controller::Handle,
    domain::dtab::{self, Dentry},
};

/// Largest table, in bytes.
const MAX_TABLE: usize = 256 * 1024;
/// Media type of a table as text.
const DTAB: &str = "application/dtab";
/// Media type of a table as a list of entries.
const JSON: &str = "application/json";

/// Whom the interface asks, and the name of its namespace.
#[derive(Clone)]
struct Tables {
    handle: Handle,
    namespace: String,
}

/// Serves the interface until `shutdown` completes.
pub async fn serve(
    listener: TcpListener,
    handle: Handle,
    namespace: String,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let tables = Tables { handle, namespace };
    let router = Router::new()
        .route("/api/1/dtabs", get(list).fallback(read_only))
        .route(
            "/api/1/dtabs/{namespace}",
            get(read).put(replace).fallback(read_or_replace),
        )
        .fallback(nowhere)
        .layer(DefaultBodyLimit::max(MAX_TABLE))
        .layer(axum::middleware::map_request(known_host))
        .with_state(tables);
    // Requests are short, and a client that holds its connection must not hold the agent.
    tokio::select! {
        ended = axum::serve(listener, router).into_future() => {
            if let Err(error) = ended {
                tracing::error!("delegation tables are no longer served: {error}");
            }
        }
        () = shutdown => {}
    }
}

/// A page in a browser can make its own name point to this host, but not call it by another.
async fn known_host(request: axum::extract::Request) -> Result<axum::extract::Request, Refusal> {
    let host = request.headers().get(header::HOST);
    let known = host.is_none_or(|host| host.to_str().is_ok_and(answer::is_local));
    match known {
        true => Ok(request),
        false => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "ask for this host by a loopback address or as localhost",
        )),
    }
}

async fn list(State(tables): State<Tables>) -> Response {
    json(StatusCode::OK, &[tables.namespace])
}

async fn read(
    State(tables): State<Tables>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    tables.check(&namespace)?;
    let table = dtab::table(&tables.handle.snapshot());
    let tag = entity_tag(&table)?;
    let wants_text = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains(DTAB));
    let mut response = match wants_text {
        true => text(StatusCode::OK, DTAB, dtab::render(&table)),
        false => json(StatusCode::OK, &answer::entries(&table)),
    };
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

async fn replace(
    State(tables): State<Tables>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    tables.check(&namespace)?;
    let body = body.map_err(|error| Refusal::new(error.status(), error.body_text()))?;
    let table = table_in(&headers, &body)?;
    // The controller compares once more, so that of two who come at a time one is refused.
    let present = dtab::version(&dtab::table(&tables.handle.snapshot()));
    let expected = match headers.get(header::IF_MATCH) {
        None => None,
        Some(value) if value == "*" => None,
        Some(value) if is_match(value, &present) => Some(present),
        Some(_) => {
            return Err(Refusal::new(
                StatusCode::PRECONDITION_FAILED,
                format!(
                    "the table has changed meanwhile: its version is {present} now; read it again"
                ),
            ));
        }
    };
    tables.handle.put_dtab(table, expected).await?;
    let table = dtab::table(&tables.handle.snapshot());
    Ok((
        StatusCode::NO_CONTENT,
        [(header::ETAG, entity_tag(&table)?)],
    )
        .into_response())
}

/// The table that a body holds.
fn table_in(headers: &HeaderMap, body: &[u8]) -> Result<Vec<Dentry>, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim();
    if media != DTAB && media != JSON {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "`{media}` is no media type of a table; send `Content-Type: {DTAB}` or `{JSON}`"
            ),
        ));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        let reason = format!("byte {}: this is no UTF-8", error.valid_up_to() + 1);
        Refusal::new(StatusCode::BAD_REQUEST, reason)
    })?;
    if media == JSON {
        return answer::read_entries(text);
    }
    dtab::parse(text).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))
}

impl Tables {
    fn check(&self, namespace: &str) -> Result<(), Refusal> {
        match namespace == self.namespace {
            true => Ok(()),
            false => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!(
                    "there is no namespace `{namespace}`; there is `{}`",
                    self.namespace
                ),
            )),
        }
    }
}

async fn read_only() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "the list of namespaces can be read, no more; which there is stands in the configuration",
    )
}

async fn read_or_replace() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "a table can be read (GET) or replaced (PUT), no more",
    )
}

async fn nowhere() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "nothing here; ask for /api/1/dtabs")
}

#[cfg(test)]
mod tests;
