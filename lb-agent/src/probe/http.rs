//! The HTTP probe: a GET whose answer has a status in the range.
//!
//! HTTP/1.1 in the clear. The header is read, the body is not; redirects are an answer like any
//! other.

use std::pin::pin;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::failure::ProbeFailure;

/// As sent to backends.
const USER_AGENT: &str = concat!("lb-agent/", env!("CARGO_PKG_VERSION"));
/// Longest header of an answer that is read, in bytes.
const MAX_HEADER: usize = 16 * 1024;

/// Builds the request. `host` is the header's value.
///
/// # Errors
///
/// [`ProbeFailure::Request`] where path or host may not stand in one.
pub(super) fn request(path: &str, host: &str) -> Result<Request<Empty<Bytes>>, ProbeFailure> {
    Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(ProbeFailure::Request)
}

/// Sends the request over a new connection and answers with the status. The connection is closed
/// in any case.
pub(super) async fn status(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
    timeout: std::time::Duration,
) -> Result<u16, ProbeFailure> {
    let failed = |error: hyper::Error| ProbeFailure::from_hyper(&error, timeout);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEADER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let mut answer = pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        // The connection has ended, and has told the request how.
        _ = connection => answer.await,
    };
    Ok(response.map_err(failed)?.status().as_u16())
}
