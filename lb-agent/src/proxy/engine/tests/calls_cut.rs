//! A call whose backend goes away within its answer.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Frame, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{
    http2::{call, client, stream},
    rig::{Backend, Local, Proxy, local, snapshot},
};
use crate::domain::{
    http::{exchange::Outcome, policy::HttpPolicy},
    service::Protocol,
};

#[test]
fn a_call_that_is_cut_ends_with_a_status() {
    local(async {
        let backend = Backend::start(|connection, _| async move {
            let service = service_fn(|_| async {
                let (sender, body) = stream();
                let _ = sender.send(Ok(Frame::data("x".into()))).await;
                tokio::task::spawn_local(async move { sender.closed().await });
                Ok::<_, Infallible>(Response::new(body))
            });
            let served = hyper::server::conn::http2::Builder::new(Local)
                .serve_connection(TokioIo::new(connection), service);
            let _ = timeout(Duration::from_millis(200), served).await;
        })
        .await;
        let policy = HttpPolicy::default();
        let proxy = Proxy::start(&snapshot(policy, Protocol::Grpc, &[backend.address])).await;
        let mut sender = client(&proxy).await;
        let body = Full::new(Bytes::from("abc"));
        let answer = sender.send_request(call("/x", body)).await.unwrap();
        let body = answer.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "14");
        let record = proxy.record().await;
        assert_eq!(record.outcome, Outcome::BackendBrokeOff);
        assert_eq!(record.grpc_status, Some(14));
    });
}
