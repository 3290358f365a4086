//! The page as a client sees it, over a controller that answers from a script.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum::{
    body::{Body, to_bytes},
    extract::ConnectInfo,
    http::{Method, Request},
};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt as _;

use super::*;
use crate::{
    controller::{BlockEntry, Command},
    domain::{
        backend::InstanceId,
        block::{BlockRule, Origin},
        snapshot::{ServiceState, Snapshot},
    },
    metrics::tests::fixture,
};

/// A page over a controller that knows `snapshot`, and how often that was asked for counters.
struct Rig {
    router: Router,
    asked: Arc<AtomicUsize>,
}

impl Rig {
    fn over(snapshot: Snapshot) -> Self {
        let (commands, mut received) = mpsc::channel(4);
        let (publish, snapshots) = watch::channel(Arc::new(snapshot));
        let asked = Arc::<AtomicUsize>::default();
        let count = asked.clone();
        tokio::spawn(async move {
            while let Some(command) = received.recv().await {
                match command {
                    Command::Status(reply) => {
                        let mut status = fixture::status();
                        status.problems = vec!["p".repeat(100); 1000];
                        status.blocks = 1_000_000;
                        reply.send(Ok(status)).unwrap();
                    }
                    Command::Counters(reply) => {
                        count.fetch_add(1, Relaxed);
                        reply.send(Ok(fixture::all_counters())).unwrap();
                    }
                    Command::BlockList(after, most, reply) => {
                        let rules = rules().skip_while(|rule| after >= Some(rule.rule.prefix));
                        reply.send(Ok(rules.take(most).collect())).unwrap();
                    }
                    Command::History(None, reply) => reply.send(Ok(Vec::new())).unwrap(),
                    other => panic!("the page must not change anything: {other:?}"),
                }
            }
            drop(publish);
        });
        let handle = Handle::new(commands, snapshots);
        let listen = ([127, 0, 0, 1], 9180).into();
        Self {
            router: router(&PageConfig::default(), listen, handle),
            asked,
        }
    }

    async fn call(&self, method: Method, path: &str) -> (StatusCode, Vec<u8>) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost:9180")
            .extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))))
            .body(Body::empty())
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, body.to_vec())
    }

    /// What is answered with 200, and its length.
    async fn get(&self, path: &str) -> (Value, usize) {
        let (status, body) = self.call(Method::GET, path).await;
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        (serde_json::from_slice(&body).unwrap(), body.len())
    }
}

fn rules() -> impl Iterator<Item = BlockEntry> {
    (0..300_u32).map(|number| BlockEntry {
        rule: BlockRule {
            prefix: ipnet::Ipv4Net::new((0xcb00_7100 + number).into(), 32)
                .unwrap()
                .into(),
            reason: "r".repeat(256),
            added: std::time::UNIX_EPOCH,
            expires: None,
            origin: Origin::Operator,
        },
        dropped: Default::default(),
    })
}

/// So many copies of one service, each with as many copies of one backend.
fn crowd(services: usize, backends: usize) -> Snapshot {
    let Snapshot { services: of, .. } = fixture::snapshot();
    let model = &of["echo"];
    let service = |number: usize| {
        let name = format!("service-{number:04}");
        let mut spec = (*model.spec).clone();
        spec.name.clone_from(&name);
        let backend = |number: usize| {
            let mut backend = model.backends[0].clone();
            backend.instance.id = InstanceId(format!("node/{number:04}").into());
            let number = u32::try_from(number).unwrap();
            backend
                .instance
                .address
                .set_ip(std::net::Ipv4Addr::from(0x0a00_0000 + number).into());
            backend
        };
        let state = ServiceState {
            spec: spec.into(),
            backends: (0..backends).map(backend).collect(),
            ..(**model).clone()
        };
        (name, Arc::new(state))
    };
    Snapshot {
        version: 1,
        services: (0..services).map(service).collect(),
    }
}

#[tokio::test]
async fn a_large_node_fits_into_bounded_answers() {
    let rig = Rig::over(crowd(1000, 100));
    let begun = Instant::now();
    // Path, longest answer, and what tells how much there is beyond.
    type Row<'a> = (&'a str, usize, &'a [(&'a str, u64)]);
    let rows: &[Row<'_>] = &[
        (
            "/api/v1/overview",
            20_000,
            &[
                ("/left_out/problems", 950),
                ("/status/catalog/backends", 100_000),
                ("/troubled", 1000),
            ],
        ),
        (
            "/api/v1/services",
            300_000,
            &[("/total", 1000), ("/matched", 1000)],
        ),
        (
            "/api/v1/services?limit=100000&offset=950",
            150_000,
            &[("/offset", 950)],
        ),
        (
            "/api/v1/services?filter=SERVICE-099",
            40_000,
            &[("/matched", 10), ("/total", 1000)],
        ),
        (
            "/api/v1/service?name=service-0007",
            120_000,
            &[("/total", 100)],
        ),
        (
            "/api/v1/service?name=service-0007&filter=node/009&limit=3",
            6_000,
            &[("/matched", 10), ("/total", 100)],
        ),
        ("/api/v1/blocks", 60_000, &[("/total", 1_000_000)]),
        ("/api/v1/events?limit=99999999", 1_000, &[("/older", 0)]),
    ];
    for (path, longest, sums) in rows {
        let (body, length) = rig.get(path).await;
        assert!(length <= *longest, "{path}: {length} bytes");
        for (pointer, expected) in *sums {
            let found = body.pointer(pointer).and_then(Value::as_u64);
            assert_eq!(found, Some(*expected), "{pointer} of {path}");
        }
    }
    eprintln!(
        "a node of 100,000 backends, looked at in {:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn many_who_look_cost_the_controller_one_answer() {
    let rig = Rig::over(crowd(3, 3));
    for _ in 0..20 {
        rig.get("/api/v1/overview").await;
        rig.get("/api/v1/services").await;
        rig.get("/api/v1/service?name=service-0001").await;
    }
    assert_eq!(rig.asked.load(Relaxed), 1);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    rig.get("/api/v1/overview").await;
    assert_eq!(rig.asked.load(Relaxed), 2);
}

#[tokio::test]
async fn the_block_list_is_read_in_parts() {
    let rig = Rig::over(crowd(1, 1));
    let (mut after, mut seen) = (String::new(), 0);
    loop {
        let path = format!("/api/v1/blocks?limit=70{after}");
        let (body, _) = rig.get(&path).await;
        let blocks = body["blocks"].as_array().unwrap();
        seen += blocks.len();
        if body["more"] == false {
            break;
        }
        assert_eq!(blocks.len(), 70);
        let last = blocks[69]["rule"]["prefix"].as_str().unwrap();
        after = format!("&after={}", last.replace('/', "%2F"));
    }
    assert_eq!(seen, rules().count());
}

#[tokio::test]
async fn only_what_is_there_is_answered() {
    let rig = Rig::over(crowd(1, 1));
    let rows = [
        (Method::GET, "/", 200, "<!doctype html>"),
        (Method::GET, "/page/main.js", 200, "import"),
        (Method::GET, "/page/..%2fmod.rs", 404, "no such file"),
        (Method::GET, "/api/v1/nothing", 404, "nothing here"),
        (Method::GET, "/api/v1/service", 400, "name the service"),
        (Method::GET, "/api/v1/service?name=x", 404, "no service `x`"),
        (Method::GET, "/api/v1/services?limit=-1", 400, "limit"),
        (Method::GET, "/api/v1/services?sort=x", 400, "unknown field"),
        (Method::GET, "/api/v1/blocks?after=x", 400, "`x`"),
        (Method::PUT, "/api/v1/overview", 405, "can be read"),
        (Method::GET, "/api/v1/split/set", 405, "is posted"),
        (Method::POST, "/api/v1/split/set", 403, "token_file"),
    ];
    for (method, path, status, words) in rows {
        let (found, body) = rig.call(method, path).await;
        let body = String::from_utf8(body).unwrap();
        assert_eq!(found, status, "{path}: {body}");
        assert!(body.contains(words), "{path}: {body}");
    }
}

#[tokio::test]
async fn a_controller_that_has_gone_is_said_so() {
    let (commands, received) = mpsc::channel(1);
    drop(received);
    let (_publish, snapshots) = watch::channel(Arc::default());
    let listen = ([127, 0, 0, 1], 9180).into();
    let handle = Handle::new(commands, snapshots);
    let rig = Rig {
        router: router(&PageConfig::default(), listen, handle),
        asked: Arc::default(),
    };
    let (status, body) = rig.call(Method::GET, "/api/v1/overview").await;
    assert_eq!(status, 503);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["code"], "UNAVAILABLE");
    assert_eq!(body["error"]["message"], "the agent is shutting down");
}
