//! gRPC through the proxy: a real client, calls of all four shapes, by the VIP and by the listener
//! that all share.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lb_tests::{
    calls::{Calls, run},
    pace::at_this_pace,
    process::wait_for,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, metadata::MetadataValue};

use crate::{
    proxy_stage::{SHARED, Stage},
    scene::{PATIENCE, VIP, address},
};

fn stage(backends: u8, more: &str) -> Stage {
    let stage = Stage::new(backends, &format!("protocol = \"grpc\"\n{more}"), "");
    wait_for("a call to be answered", PATIENCE, || {
        stage.agent.process().ensure_running()?;
        let answered = run(stage.client(), async || {
            let mut calls = Calls::connect(address(VIP)).await.ok()?;
            calls.unary("/grpc.Echo/x", message("x")).await.ok()
        });
        Ok(answered.map(drop))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.agent.process().tail()));
    stage
}

fn ways() -> [SocketAddr; 2] {
    [address(VIP), address(SHARED)]
}

fn message(text: &'static str) -> Request<Bytes> {
    Request::new(Bytes::from_static(text.as_bytes()))
}

fn with(mut request: Request<Bytes>, name: &'static str, value: &str) -> Request<Bytes> {
    let value = MetadataValue::try_from(value).unwrap();
    request.metadata_mut().insert(name, value);
    request
}

#[test]
fn calls_of_all_shapes() {
    let stage = stage(2, "");
    for to in ways() {
        run(stage.client(), async || {
            let mut calls = Calls::connect(to).await.unwrap();
            let answer = calls.unary("/grpc.Echo/x", message("one")).await.unwrap();
            assert_eq!(answer.into_inner(), "one");

            let large = Bytes::from(vec![b'x'; 3_000_000]);
            let answer = calls
                .unary("/grpc.Echo/x", Request::new(large.clone()))
                .await;
            assert!(answer.unwrap().into_inner() == large);

            let messages = tokio_stream::iter((0..5).map(|_| Bytes::from_static(b"up")));
            let answer = calls.up("/grpc.Count/x", messages).await.unwrap();
            assert_eq!(answer.into_inner(), "5");

            let begun = Instant::now();
            let answer = calls.down("/grpc.Repeat/5/100", message("down")).await;
            let mut answer = answer.unwrap().into_inner();
            let mut came = Vec::new();
            while let Some(message) = answer.message().await.unwrap() {
                assert_eq!(message, "down");
                came.push(begun.elapsed());
            }
            assert_eq!(came.len(), 5);
            // They come as they are sent.
            assert!(
                came[0] < at_this_pace(Duration::from_millis(300)),
                "{came:?}"
            );
            assert!(came[4] - came[0] > Duration::from_millis(300), "{came:?}");

            let (sender, messages) = mpsc::channel(1);
            let answer = calls
                .both("/grpc.Echo/x", ReceiverStream::new(messages))
                .await;
            let mut answer = answer.unwrap().into_inner();
            for text in ["one", "two", "three"] {
                // Each comes back before the next is sent.
                sender.send(Bytes::from(text)).await.unwrap();
                assert_eq!(answer.message().await.unwrap().unwrap(), text);
            }
            drop(sender);
            assert_eq!(answer.message().await.unwrap(), None);
        });
    }
}

/// A status comes as the backend gave it, in the head or behind the messages.
#[test]
fn statuses_pass() {
    let stage = stage(1, "retry = { retries = 0 }\n");
    for to in ways() {
        run(stage.client(), async || {
            let mut calls = Calls::connect(to).await.unwrap();
            for code in [1, 5, 13, 14, 16] {
                let only = calls
                    .unary(&format!("/grpc.Fail/{code}"), message("x"))
                    .await;
                assert_eq!(only.unwrap_err().code(), Code::from(code));
                let request = with(message("x"), "x-grpc-status", &code.to_string());
                let after = calls.unary("/grpc.Echo/x", request).await;
                assert_eq!(after.unwrap_err().code(), Code::from(code));
            }
        });
    }
    // (code, at least): both kinds by both ways, but for the first call of all.
    for code in [1, 5, 13, 14, 16] {
        let label = format!("grpc_status=\"{code}\"");
        let labels = ["service=\"web\"", &label];
        let count = stage.metric("lb_proxy_grpc_calls_total", &labels);
        assert_eq!(count, 4.0, "{code}");
    }
}

/// curl's words for a call without a message, and what it printed.
fn curl(stage: &Stage, to: SocketAddr, path: &str, more: &[&str]) -> (String, Duration) {
    let begun = Instant::now();
    let url = format!("http://{to}{path}");
    let words = [
        "-sS",
        "-i",
        "--max-time",
        "10",
        "--http2-prior-knowledge",
        "-X",
        "POST",
        "-H",
        "Host: web",
        "-H",
        "Content-Type: application/grpc",
        "-H",
        "TE: trailers",
    ];
    let printed = stage
        .client()
        .tool("curl", &[&words[..], more, &[&url]].concat());
    (printed.unwrap(), begun.elapsed())
}

/// The time that a client gives counts at the proxy too: it waits no longer, tries no longer, and
/// has the backend stop.
#[test]
fn deadlines_hold() {
    let stage = stage(2, "");
    for (number, to) in (1..).zip(ways()) {
        let words = ["-H", "grpc-timeout: 300m"];
        let (answer, took) = curl(&stage, to, "/hang", &words);
        assert!(answer.starts_with("HTTP/2 200"), "{answer}");
        assert!(answer.contains("grpc-status: 4"), "{answer}");
        let (least, most) = (Duration::from_millis(300), Duration::from_millis(1500));
        assert!(took >= least && took < at_this_pace(most), "{took:?}");
        wait_for("the backend to stop", PATIENCE, || {
            let abandoned: u64 = [1, 2].map(|one| stage.seen(one).abandoned).iter().sum();
            Ok((abandoned == number).then_some(()))
        })
        .unwrap();
    }
    let total: u64 = [1, 2].map(|one| stage.seen(one).total).iter().sum();
    run(stage.client(), async || {
        let mut calls = Calls::connect(address(VIP)).await.unwrap();
        let mut request = message("x");
        request.set_timeout(Duration::from_millis(300));
        let status = calls.unary("/hang", request).await.unwrap_err();
        let told = [Code::DeadlineExceeded, Code::Cancelled];
        assert!(told.contains(&status.code()), "{status}");
    });
    let now: u64 = [1, 2].map(|one| stage.seen(one).total).iter().sum();
    assert_eq!(now, total + 1, "tries of one call");
}

#[test]
fn calls_of_one_connection_are_spread() {
    let stage = stage(3, "");
    for to in ways() {
        let spread = run(stage.client(), async || {
            let calls = Calls::connect(to).await.unwrap();
            let mut spread = BTreeMap::<String, u32>::new();
            for _ in 0..15 {
                let asking = (0..20).map(|_| {
                    let mut calls = calls.clone();
                    tokio::spawn(async move { calls.unary("/grpc.Echo/x", message("x")).await })
                });
                for asked in asking.collect::<Vec<_>>() {
                    let answer = asked.await.unwrap().unwrap();
                    let backend = answer.metadata().get("x-backend").unwrap();
                    *spread.entry(backend.to_str().unwrap().into()).or_default() += 1;
                }
            }
            spread
        });
        assert_eq!(spread.len(), 3, "{spread:?}");
        assert!(spread.values().all(|count| *count >= 30), "{spread:?}");
    }
}

/// Who is told that there is no backend is told in the way of gRPC.
#[test]
fn no_backend_is_unavailable() {
    let stage = stage(2, "");
    stage.webs.iter().for_each(|web| web.kill().unwrap());
    for to in ways() {
        let (answer, took) = curl(&stage, to, "/grpc.Echo/x", &[]);
        assert!(answer.starts_with("HTTP/2 200"), "{answer}");
        assert!(
            answer.contains("content-type: application/grpc"),
            "{answer}"
        );
        assert!(answer.contains("grpc-status: 14"), "{answer}");
        assert!(took < at_this_pace(Duration::from_secs(1)), "{took:?}");
        run(stage.client(), async || {
            let mut calls = Calls::connect(to).await.unwrap();
            let status = calls.unary("/grpc.Echo/x", message("x")).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            let status = calls
                .down("/grpc.Repeat/5/1", message("x"))
                .await
                .unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{status}");
        });
    }
}

/// Where the configuration says that a backend that says UNAVAILABLE has not served the call, another
/// does, and it is left alone after a while. Other codes are the answer.
#[test]
fn unavailable_is_tried_elsewhere() {
    let stage = stage(3, "retry = { on_grpc = [14] }");
    stage.always(1, "/grpc.Fail/14");
    run(stage.client(), async || {
        let mut calls = Calls::connect(address(SHARED)).await.unwrap();
        for _ in 0..60 {
            calls.unary("/grpc.Echo/x", message("x")).await.unwrap();
        }
    });
    let refused = stage.seen(1).total;
    assert!(refused > 0, "the backend in trouble was never asked");
    stage.always(1, "");
    for (code, served) in [(14, false), (8, false)] {
        for number in 1..=3 {
            stage.always(number, &format!("/grpc.Fail/{code}"));
        }
        let before: u64 = (1..=3).map(|number| stage.seen(number).total).sum();
        run(stage.client(), async || {
            let mut calls = Calls::connect(address(VIP)).await.unwrap();
            let status = calls.unary("/grpc.Echo/x", message("x")).await;
            assert_eq!(status.is_ok(), served);
            assert_eq!(status.unwrap_err().code(), Code::from(code));
        });
        let tries: u64 = (1..=3).map(|number| stage.seen(number).total).sum();
        let tries = tries - before;
        assert_eq!(tries > 1, code == 14, "{tries} tries after {code}");
    }
}

/// Nobody has said that nothing was done then: a call is sent once.
#[test]
fn unavailable_is_the_answer() {
    let stage = stage(2, "");
    for number in 1..=2 {
        stage.always(number, "/grpc.Fail/14");
    }
    let asked = || stage.seen(1).total + stage.seen(2).total;
    let before = asked();
    run(stage.client(), async || {
        let mut calls = Calls::connect(address(SHARED)).await.unwrap();
        let status = calls.unary("/grpc.Echo/x", message("x")).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    });
    assert_eq!(asked() - before, 1);
}

/// A backend dies under calls: those that it had are told so, all others are served.
#[test]
fn a_backend_dies_under_calls() {
    let stage = stage(3, "");
    run(stage.client(), async || {
        let calls = Calls::connect(address(VIP)).await.unwrap();
        let began = Instant::now();
        let asking = (0..20).map(|_| {
            let mut calls = calls.clone();
            tokio::spawn(async move {
                let mut failed = Vec::new();
                let mut served = 0;
                while began.elapsed() < Duration::from_secs(4) {
                    match calls.unary("/grpc.Echo/x", message("x")).await {
                        Ok(_) => served += 1,
                        Err(status) => failed.push((began.elapsed(), status)),
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                (served, failed)
            })
        });
        let asking: Vec<_> = asking.collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        stage.webs[0].kill().unwrap();
        let killed = began.elapsed();
        let mut all = 0;
        for asked in asking {
            let (served, failed) = asked.await.unwrap();
            all += served;
            for (when, status) in failed {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                let near = at_this_pace(Duration::from_millis(500));
                assert!(
                    when + near > killed && when < killed + near,
                    "{when:?} {status}"
                );
            }
        }
        assert!(all > 200, "hardly any call: {all}");
    });
}

/// A client that loses interest has the backend stop.
#[test]
fn cancellation_reaches_the_backend() {
    let stage = stage(1, "");
    for (number, to) in [1, 3].into_iter().zip(ways()) {
        run(stage.client(), async || {
            let mut calls = Calls::connect(to).await.unwrap();
            let answer = calls.down("/grpc.Repeat/100000/20", message("x")).await;
            let mut answer = answer.unwrap().into_inner();
            for _ in 0..3 {
                answer.message().await.unwrap().unwrap();
            }
            assert_eq!(stage.seen(1).abandoned, number - 1);
            drop(answer);
            let call = calls.unary("/hang", message("x"));
            let call = tokio::time::timeout(Duration::from_millis(300), call);
            assert!(call.await.is_err());
            // The connection is as good as before.
            calls.unary("/grpc.Echo/x", message("x")).await.unwrap();
        });
        wait_for("the backend to stop", PATIENCE, || {
            let abandoned = stage.seen(1).abandoned;
            Ok((abandoned == number + 1).then_some(()))
        })
        .unwrap();
    }
    sleep(Duration::from_millis(100));
    assert_eq!(
        stage.metric("lb_proxy_active_requests", &["service=\"web\""]),
        0.0
    );
}
