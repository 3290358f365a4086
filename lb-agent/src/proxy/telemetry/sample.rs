//! A request with all there can be, for tests.

use std::time::{Duration, UNIX_EPOCH};

use crate::domain::http::exchange::{Exchange, NoAnswer, Outcome, SpanContext, Try};

pub(super) fn exchange() -> Exchange {
    let micros = Duration::from_micros;
    Exchange {
        began: UNIX_EPOCH + micros(1_767_323_045_006_007),
        client: "192.0.2.1:999".parse().unwrap(),
        peer: "192.0.2.2:998".parse().unwrap(),
        listener: "[::1]:80".parse().unwrap(),
        tls: false,
        version: "HTTP/1.1",
        method: "GET".into(),
        host: "echo.consul.localhost:80".into(),
        target: "/a?b=1".into(),
        rewritten: None,
        user_agent: Some("curl \"8\"\n".into()),
        referer: Some("http://r/".into()),
        request_id: "r-1".into(),
        trace: SpanContext {
            trace: 0xabcd,
            span: 1,
            sampled: true,
        },
        parent: Some(0xf),
        tracestate: Some("a=1".into()),
        service: Some("echo".into()),
        route: Some("/a".into()),
        tries: vec![
            Try {
                backend: "10.0.0.1:80".parse().unwrap(),
                subset: None,
                span: 2,
                after: micros(100),
                waited: micros(200),
                result: Err(NoAnswer {
                    kind: "connection_refused",
                    text: "connection refused".into(),
                }),
                grpc_status: None,
                hedge: false,
                tls: false,
                http2: false,
            },
            Try {
                backend: "10.0.0.2:80".parse().unwrap(),
                subset: Some("v2".into()),
                span: 3,
                after: micros(1000),
                waited: micros(3000),
                result: Ok(200),
                grpc_status: None,
                hedge: true,
                tls: false,
                http2: true,
            },
        ],
        status: 200,
        grpc: true,
        grpc_status: Some(0),
        received: 3,
        sent: 1024,
        outcome: Outcome::Answered,
        prepared: Some(micros(40)),
        first_byte: Some(micros(3500)),
        total: micros(4000),
    }
}
