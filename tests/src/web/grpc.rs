//! Calls of gRPC, on messages of any kind ("gRPC over HTTP/2": five bytes of flag and length before
//! each).

use std::{io, time::Duration};

use bytes::{Buf as _, Bytes};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Frame, Incoming},
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use tokio_stream::StreamExt as _;

use super::{
    UnderWay,
    answer::{self, Body},
};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const PREFIX: usize = 5;

/// The messages as they come in, and the status in the trailers: this answers all four shapes.
pub(super) fn echo(request: Request<Incoming>) -> Response<Body> {
    let wanted = request.headers().get("x-grpc-status").cloned();
    let trailers = status(wanted.unwrap_or(HeaderValue::from_static("0")));
    // The last frame may be empty; before trailers that is a frame too many, and a connection of
    // h2 bears a hundred of them.
    let frames = request.into_body().into_data_stream();
    let frames = frames.filter(|data| !data.as_ref().is_ok_and(Bytes::is_empty));
    let frames = frames.map(|data| data.map(Frame::data).map_err(io::Error::other));
    let body = StreamBody::new(frames).with_trailers(std::future::ready(Some(Ok(trailers))));
    response(body.boxed_unsync())
}

/// How many messages came, in one.
pub(super) async fn count(request: Request<Incoming>) -> io::Result<Response<Body>> {
    let mut bytes = all(request).await?;
    let mut count = 0;
    while bytes.len() >= PREFIX {
        bytes.advance(1);
        let length = bytes.get_u32() as usize;
        bytes.advance(length.min(bytes.len()));
        count += 1;
    }
    let text = format!("{count}");
    let length = u32::try_from(text.len()).unwrap_or(0);
    let message = [&[0], &length.to_be_bytes()[..], text.as_bytes()].concat();
    let trailers = status(HeaderValue::from_static("0"));
    let body = answer::full(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    Ok(response(body.boxed_unsync()))
}

/// What came, `times` times.
pub(super) async fn repeat(
    mut under_way: UnderWay,
    request: Request<Incoming>,
    times: u64,
    pause: Duration,
) -> io::Result<Response<Body>> {
    let bytes = all(request).await?;
    let messages = tokio_stream::iter(0..times).then(move |number| {
        let bytes = bytes.clone();
        async move {
            if number > 0 {
                tokio::time::sleep(pause).await;
            }
            Frame::data(bytes)
        }
    });
    let end = tokio_stream::once(()).map(move |()| {
        under_way.end();
        Frame::trailers(status(HeaderValue::from_static("0")))
    });
    let frames = messages.chain(end).map(Ok::<_, io::Error>);
    Ok(response(StreamBody::new(frames).boxed_unsync()))
}

/// Nothing but a status, in the head.
pub(super) fn fail(code: u64) -> Response<Body> {
    let mut response = response(answer::full(""));
    response.headers_mut().insert(STATUS, code.into());
    response
}

async fn all(request: Request<Incoming>) -> io::Result<Bytes> {
    let body = request.into_body().collect().await;
    Ok(body.map_err(io::Error::other)?.to_bytes())
}

fn status(code: HeaderValue) -> HeaderMap {
    HeaderMap::from_iter([(STATUS, code)])
}

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
