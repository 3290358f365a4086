//! What comes of a request.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Version,
    body::{Frame, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, HeaderValue, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::StreamExt as _;

use super::{Backend, UnderWay, grpc};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The bytes that bodies are made of.
static BYTES: [u8; 1 << 20] = [b'x'; 1 << 20];

pub(super) async fn answer(
    backend: &Arc<Backend>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let path = request.uri().path();
    if path == "/counts" {
        return Ok(Response::new(full(backend.counts().text())));
    }
    if let Some(path) = path.strip_prefix("/always") {
        let path = Some(path).filter(|path| !path.is_empty());
        *backend.always() = path.map(str::to_owned);
        return Ok(Response::new(full("")));
    }
    let before = {
        let id = header(&request, "x-id").unwrap_or("none");
        if backend.tell {
            println!("{id}");
        }
        backend.counts().add(id)
    };
    let failing = header(&request, "x-fail").and_then(|count| count.parse::<u64>().ok());
    let mut response = if failing.is_some_and(|count| before < count) {
        match header(&request, "content-type") {
            Some(kind) if kind.starts_with("application/grpc") => grpc::fail(14),
            _ => with_status(StatusCode::SERVICE_UNAVAILABLE),
        }
    } else {
        by_path(backend, request).await?
    };
    let headers = response.headers_mut();
    if let Ok(name) = HeaderValue::from_str(&backend.name) {
        headers.insert("x-backend", name);
    }
    Ok(response)
}

fn header<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

async fn by_path(
    backend: &Arc<Backend>,
    mut request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let always = backend.always().clone();
    let path = always.unwrap_or_else(|| request.uri().path().to_owned());
    let mut parts = path.trim_start_matches('/').split('/');
    let (what, argument) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let number = argument.parse::<u64>().unwrap_or(0);
    Ok(match what {
        "size" => {
            let length = usize::try_from(number).unwrap_or(0);
            if length <= BYTES.len() {
                Response::new(full(Bytes::from_static(&BYTES[..length])))
            } else {
                large(length)
            }
        }
        "status" => {
            let code = u16::try_from(number).unwrap_or(0);
            with_status(StatusCode::from_u16(code).unwrap_or(StatusCode::IM_A_TEAPOT))
        }
        "delay" => {
            tokio::time::sleep(Duration::from_millis(number)).await;
            Response::new(full("late"))
        }
        "hang" => {
            let _under_way = UnderWay::new(backend);
            std::future::pending().await
        }
        "reset" => return Err(io::ErrorKind::ConnectionReset.into()),
        "cut" => cut(),
        "early" => with_status(StatusCode::PAYLOAD_TOO_LARGE),
        "trailers" => trailers(),
        "head" => Response::new(full(head(&request))),
        "echo" => Response::new(echo(request)),
        "upgrade" => upgrade(&mut request),
        "grpc.Count" => grpc::count(request).await?,
        "grpc.Repeat" => {
            let pause = parts.next().and_then(|pause| pause.parse().ok());
            let pause = Duration::from_millis(pause.unwrap_or(0));
            grpc::repeat(UnderWay::new(backend), request, number, pause).await?
        }
        "grpc.Fail" => grpc::fail(number),
        _ if what.starts_with("grpc.") => grpc::echo(request),
        _ => Response::new(full("hello")),
    })
}

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

fn with_status(status: StatusCode) -> Response<Body> {
    let text = match status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => String::new(),
        _ => format!("{status}\n"),
    };
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}

/// More than is kept: made of the same bytes again and again.
fn large(length: usize) -> Response<Body> {
    let frames = (0..length).step_by(BYTES.len()).map(move |start| {
        let part = BYTES.len().min(length - start);
        Ok(Frame::data(Bytes::from_static(&BYTES[..part])))
    });
    let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn cut() -> Response<Body> {
    let parts = tokio_stream::iter([Some(Bytes::from_static(b"the beginning")), None]);
    let frames = parts.then(|part| async move {
        if let Some(bytes) = part {
            return Ok(Frame::data(bytes));
        }
        // What has not been written by then would never be.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("100"));
    response
}

fn trailers() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"body"))),
        Ok(Frame::trailers(trailers)),
    ];
    let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert("trailer", HeaderValue::from_static("x-sum"));
    response
}

fn head(request: &Request<Incoming>) -> String {
    let (method, uri) = (request.method(), request.uri());
    let mut text = format!("{method} {uri} {:?}\n", request.version());
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

fn echo(request: Request<Incoming>) -> Body {
    request.into_body().map_err(io::Error::other).boxed_unsync()
}

/// Every byte of the tunnel comes back.
fn upgrade(request: &mut Request<Incoming>) -> Response<Body> {
    let wanted = request.headers().get(UPGRADE).cloned();
    let Some(wanted) = wanted.filter(|_| request.version() == Version::HTTP_11) else {
        return with_status(StatusCode::UPGRADE_REQUIRED);
    };
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else {
            return;
        };
        let mut stream = TokioIo::new(upgraded);
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut bytes).await {
            if stream.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
        let _ = stream.shutdown().await;
    });
    let mut response = with_status(StatusCode::SWITCHING_PROTOCOLS);
    *response.body_mut() = full("");
    let headers = response.headers_mut();
    headers.insert(UPGRADE, wanted);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
}
