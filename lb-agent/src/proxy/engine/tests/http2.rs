//! HTTP/2 on either side, as gRPC uses it.

use std::{cell::Cell, convert::Infallible, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::{
    body::{Body, Frame, Incoming},
    rt::bounds::Http2ServerConnExec,
    service::{HttpService, service_fn},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::rig::{Backend, Local, Proxy, local, snapshot};
use crate::domain::{
    http::{exchange::Outcome, policy::HttpPolicy},
    service::Protocol,
};

pub(super) type Stream = StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>;

/// Answers what comes by a connection, until it ends, however that is.
async fn serve<S, B>(connection: TcpStream, service: S)
where
    S: HttpService<Incoming, ResBody = B, Error = Infallible>,
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static,
    Local: Http2ServerConnExec<S::Future, B>,
{
    let builder = hyper::server::conn::http2::Builder::new(Local);
    let served = builder.serve_connection(TokioIo::new(connection), service);
    let _ = served.await;
}

pub(super) fn stream() -> (mpsc::Sender<Result<Frame<Bytes>, Infallible>>, Stream) {
    let (sender, receiver) = mpsc::channel(4);
    (sender, StreamBody::new(ReceiverStream::new(receiver)))
}

/// Serves calls: `/echo` sends back what comes, piece by piece, with a status in the trailers;
/// anything else is answered with nothing but the `grpc-status` that `code` says.
pub(super) async fn calls(code: Rc<dyn Fn() -> &'static str>) -> Backend {
    Backend::start(move |connection, _| {
        let code = Rc::clone(&code);
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let code = Rc::clone(&code);
                async move {
                    let (sender, body) = stream();
                    let mut response = Response::new(body);
                    let kind = HeaderValue::from_static("application/grpc");
                    response.headers_mut().insert("content-type", kind);
                    if request.uri().path() != "/echo" {
                        let code = HeaderValue::from_static(code());
                        response.headers_mut().insert("grpc-status", code);
                        return Ok::<_, Infallible>(response);
                    }
                    assert_eq!(request.headers()["te"], "trailers");
                    assert_eq!(request.uri().authority().unwrap(), "web");
                    tokio::task::spawn_local(async move {
                        let mut body = request.into_body();
                        while let Some(Ok(frame)) = body.frame().await {
                            if sender.send(Ok(frame)).await.is_err() {
                                return;
                            }
                        }
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", HeaderValue::from_static("0"));
                        let _ = sender.send(Ok(Frame::trailers(trailers))).await;
                    });
                    Ok(response)
                }
            });
            serve(connection, service).await;
        }
    })
    .await
}

pub(super) async fn client<B>(proxy: &Proxy) -> hyper::client::conn::http2::SendRequest<B>
where
    B: http_body::Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connection = TcpStream::connect(proxy.address).await.unwrap();
    let made = hyper::client::conn::http2::handshake(Local, TokioIo::new(connection)).await;
    let (sender, connection) = made.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    sender
}

pub(super) fn call<B>(path: &str, body: B) -> Request<B> {
    Request::post(format!("http://web{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

#[test]
fn both_directions_stream_at_once() {
    local(async {
        let backend = calls(Rc::new(|| "0")).await;
        let policy = HttpPolicy::default();
        let proxy = Proxy::start(&snapshot(policy, Protocol::Grpc, &[backend.address])).await;
        let mut sender = client(&proxy).await;
        let (pieces, body) = stream();
        let answer = sender.send_request(call("/echo", body)).await.unwrap();
        let mut answer = answer.into_body();
        for piece in ["one", "two", "three"] {
            // Each comes back before the next is sent.
            pieces.send(Ok(Frame::data(piece.into()))).await.unwrap();
            let frame = answer.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }
        drop(pieces);
        let trailers = answer
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_trailers()
            .unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        let record = proxy.record().await;
        assert_eq!(record.outcome, Outcome::Answered);
        assert_eq!(
            (record.grpc_status, record.received, record.sent),
            (Some(0), 11, 11)
        );
    });
}

#[test]
fn calls_share_a_connection() {
    local(async {
        let backend = calls(Rc::new(|| "0")).await;
        let policy = HttpPolicy::default();
        let proxy = Proxy::start(&snapshot(policy, Protocol::Grpc, &[backend.address])).await;
        let sender = client(&proxy).await;
        let large = "x".repeat(100_000);
        let asks = (0..20).map(|_| {
            let mut sender = sender.clone();
            let body = Full::new(Bytes::from(large.clone()));
            async move {
                let answer = sender.send_request(call("/echo", body)).await.unwrap();
                answer.into_body().collect().await.unwrap().to_bytes().len()
            }
        });
        let found = futures_util::future::join_all(asks).await;
        assert_eq!(found, [100_000; 20]);
        assert_eq!(backend.connections(), 1);
    });
}

#[test]
fn calls_are_tried_elsewhere_by_the_codes_that_are_named() {
    local(async {
        // (codes that are tried again, that of the one backend) → what the client sees
        for (codes, code, seen) in [
            (&[14][..], "14", "0"),
            (&[14], "13", "13"),
            // Nobody has said that nothing was done then.
            (&[], "14", "14"),
        ] {
            let bad = calls(Rc::new(move || code)).await;
            let good = calls(Rc::new(|| "0")).await;
            let backends = [bad.address, good.address];
            let mut policy = HttpPolicy::default();
            policy.retry.on_grpc = codes.iter().copied().collect();
            let proxy = Proxy::start(&snapshot(policy, Protocol::Grpc, &backends)).await;
            let mut sender = client(&proxy).await;
            let mut met = 0;
            for _ in 0..10 {
                let body = Full::new(Bytes::from("abc"));
                let answer = sender.send_request(call("/x", body)).await.unwrap();
                let found = answer.headers()["grpc-status"].to_str().unwrap().to_owned();
                drop(answer);
                let record = proxy.record().await;
                if record.tries[0].backend == bad.address {
                    met += 1;
                    assert_eq!(found, seen);
                } else {
                    assert_eq!(found, "0");
                }
            }
            assert!(met > 0, "{code}");
        }
    });
}

#[test]
fn a_stream_that_the_client_resets_ends_at_the_backend() {
    local(async {
        let ended = Rc::new(Cell::new(false));
        let seen = Rc::clone(&ended);
        let backend = Backend::start(move |connection, _| {
            let seen = Rc::clone(&seen);
            async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let seen = Rc::clone(&seen);
                    async move {
                        let (sender, body) = stream();
                        tokio::task::spawn_local(async move {
                            let _ = request.into_body().collect().await;
                            sender.closed().await;
                            seen.set(true);
                        });
                        Ok::<_, Infallible>(Response::new(body))
                    }
                });
                serve(connection, service).await;
            }
        })
        .await;
        let backends = [backend.address];
        let proxy = Proxy::start(&snapshot(HttpPolicy::default(), Protocol::Grpc, &backends)).await;
        let mut sender = client(&proxy).await;
        let answer = sender
            .send_request(call("/x", Full::new(Bytes::from("abc"))))
            .await
            .unwrap();
        sleep(Duration::from_millis(20)).await;
        assert!(!ended.get());
        drop(answer);
        assert_eq!(proxy.record().await.outcome, Outcome::ClientGone);
        while !ended.get() {
            sleep(Duration::from_millis(5)).await;
        }
    });
}

/// Interim answers end at the proxy, and the answer behind them is the one.
#[test]
fn interim_answers_of_backends() {
    local(async {
        let backend = Backend::start(|connection, _| async move {
            let mut connection = h2::server::handshake(connection).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                for status in [100, 103, 103] {
                    let mut interim = Response::new(());
                    *interim.status_mut() = StatusCode::from_u16(status).unwrap();
                    let hint = HeaderValue::from_static("</a>; rel=preload");
                    interim.headers_mut().insert("link", hint);
                    respond.send_informational(interim).unwrap();
                }
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                body.send_data(Bytes::from_static(b"whole"), true).unwrap();
            }
        })
        .await;
        let policy = HttpPolicy::default();
        let proxy = Proxy::start(&snapshot(policy, Protocol::Grpc, &[backend.address])).await;
        let mut sender = client(&proxy).await;
        for _ in 0..2 {
            let got = proxy.ask("GET", "").await;
            let chunks = "5\r\nwhole\r\n0\r\n\r\n";
            assert_eq!((got.status, &*got.body), (200, chunks), "{got:?}");
            assert!(!got.head.contains("link"), "{got:?}");
            let request = Request::get("http://web/").body(Empty::new()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert!(!answer.headers().contains_key("link"));
            let body = answer.into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "whole");
        }
        assert_eq!(backend.connections(), 1);
    });
}

/// Heads of answers may be as long as over HTTP/1.
#[test]
fn a_long_head_of_an_answer() {
    local(async {
        let backend = Backend::start(|connection, _| async move {
            let service = service_fn(|_| async {
                let long = HeaderValue::from_str(&"x".repeat(4000)).unwrap();
                let mut response = Response::new(Empty::<Bytes>::new());
                for _ in 0..25 {
                    response.headers_mut().append("x-long", long.clone());
                }
                Ok::<_, Infallible>(response)
            });
            serve(connection, service).await;
        })
        .await;
        let policy = HttpPolicy::default();
        let proxy = Proxy::start(&snapshot(policy, Protocol::Grpc, &[backend.address])).await;
        let got = proxy.ask("GET", "").await;
        assert_eq!(got.status, 200, "{got:?}");
        assert_eq!(got.head.matches("x-long").count(), 25);
    });
}

/// What the proxy itself answers to HEAD has no body over HTTP/2 either, and tells its length.
#[test]
fn refused_heads_have_no_body() {
    local(async {
        let proxy = Proxy::start(&snapshot(HttpPolicy::default(), Protocol::Http, &[])).await;
        for (method, long) in [("GET", true), ("HEAD", false)] {
            let mut sender = client(&proxy).await;
            let request = Request::builder().method(method).uri("http://web/x");
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{method}");
            let length = answer.headers().get("content-length").cloned();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(!body.is_empty(), long, "{method}");
            assert!(
                long || length.is_some_and(|length| length != "0"),
                "{method}"
            );
        }
    });
}

/// A target without a path is for `/`.
#[test]
fn a_target_that_is_nothing_but_a_query() {
    local(async {
        let paths = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let seen = Rc::clone(&paths);
        let backend = Backend::start(move |connection, _| {
            let seen = Rc::clone(&seen);
            async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    seen.borrow_mut().push(request.uri().to_string());
                    async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
                });
                serve(connection, service).await;
            }
        })
        .await;
        let policy = HttpPolicy::default();
        let proxy = Proxy::start(&snapshot(policy, Protocol::Grpc, &[backend.address])).await;
        let request = "GET http://web?a=1 HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
        let answer = proxy.raw(request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(*paths.borrow(), ["http://web/?a=1"]);
    });
}
