//! The HTTP probe: a GET whose answer has a status in the range, and the body that is wanted.
//!
//! HTTP/1.1. The header is read, the body only where it has to contain something; redirects are an
//! answer like any other.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::failure::ProbeFailure;

/// As sent to backends.
pub(super) const USER_AGENT: &str = concat!("lb-agent/", env!("CARGO_PKG_VERSION"));
/// Longest header of an answer that is read, in bytes.
const MAX_HEADER: usize = 16 * 1024;
/// How much of a body is searched, in bytes.
const MAX_BODY: usize = 64 * 1024;

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

/// Sends the request over a new connection and answers with the status, and whether the beginning
/// of the body contains `wanted` (so it does where nothing is). The connection is closed in any
/// case.
pub(super) async fn ask<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
    wanted: Option<&str>,
    timeout: Duration,
) -> Result<(u16, bool), ProbeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error: hyper::Error| ProbeFailure::from_hyper(&error, timeout);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEADER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let mut answer = pin!(async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let found = match wanted {
            None => true,
            Some(wanted) => contains(response.into_body(), wanted).await?,
        };
        Ok::<_, hyper::Error>((status, found))
    });
    let answered = tokio::select! {
        biased;
        answered = &mut answer => answered,
        // The connection has ended, and has told the request how.
        _ = connection => answer.await,
    };
    answered.map_err(failed)
}

async fn contains(mut body: Incoming, wanted: &str) -> Result<bool, hyper::Error> {
    let (mut read, mut searched) = (Vec::new(), 0);
    while read.len() < MAX_BODY {
        let Some(frame) = body.frame().await else {
            return Ok(false);
        };
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        read.extend_from_slice(&data[..data.len().min(MAX_BODY - read.len())]);
        // It may begin in what was searched already. A body need not end for it to be found.
        let mut places = read[searched..].windows(wanted.len());
        if places.any(|place| place == wanted.as_bytes()) {
            return Ok(true);
        }
        searched = read.len().saturating_sub(wanted.len() - 1);
    }
    Ok(false)
}
