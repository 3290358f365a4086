//! The pages as a client sees them, over a controller that answers from a script.

pub(crate) mod fixture;

use std::{collections::BTreeSet, net::SocketAddr};

use ipnet::IpNet;
use lb_common::{entry::Counter, verdict::Verdict};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use self::fixture::{all_counters, blocked, counts, snapshot, status};
use super::*;
use crate::{
    controller::{Command, Status},
    domain::drain::NodeDrain,
};

/// A server over a controller that gives these answers until it is dropped.
struct Rig {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Rig {
    async fn start(status: Status, blocks: Vec<(IpNet, Counter)>) -> Self {
        let (commands, mut asked) = mpsc::channel(4);
        let (publish, snapshots) = watch::channel(Arc::new(snapshot()));
        tokio::spawn(async move {
            while let Some(command) = asked.recv().await {
                match command {
                    Command::Status(reply) => reply.send(Ok(status.clone())).unwrap(),
                    Command::NodeDrain(reply) => {
                        reply.send(Ok(status.node_drain.clone())).unwrap();
                    }
                    Command::Counters(reply) => reply.send(Ok(all_counters())).unwrap(),
                    Command::BlockTop(most, reply) => {
                        let top = blocks.iter().copied().take(most).collect();
                        reply.send(Ok(top)).unwrap();
                    }
                    other => panic!("metrics must not change anything: {other:?}"),
                }
            }
            drop(publish);
        });
        Self::over(Handle::new(commands, snapshots)).await
    }

    async fn over(handle: Handle) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let sources = Sources {
            handle,
            probes: Arc::default(),
            watch: Arc::default(),
            fragments: Arc::default(),
            proxy: counts(),
        };
        let server = tokio::spawn(serve(listener, sources, Router::new(), async {
            stopped.await.ok();
        }));
        Self {
            address,
            stop,
            server,
        }
    }

    /// Header and body.
    async fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (header, body) = answer.split_once("\r\n\r\n").unwrap();
        (header.to_ascii_lowercase(), body.to_owned())
    }
}

/// Every family with a value, labels and all.
#[tokio::test]
async fn metrics_page() {
    let blocks = vec![blocked("192.0.2.7", 3), blocked("2001:db8::/32", 4)];
    let rig = Rig::start(status(), blocks).await;
    let (header, body) = rig.get("/metrics").await;
    assert!(header.starts_with("http/1.1 200 "), "{header}");
    assert!(
        header.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{header}"
    );
    let one = r#"service="echo",backend="10.1.0.2:8080",instance="node-a/echo-1",subset="v1""#;
    let two = r#"service="echo",backend="10.1.0.3:8080",instance="node-a/\"odd\"\\id",subset="""#;
    let three = r#"service="echo",backend="[fd00::4]:80",instance="c",subset="""#;
    let four = r#"service="echo",backend="10.1.0.5:80",instance="d",subset="""#;
    let rows = [
        format!(
            r#"lb_build_info{{version="{}"}} 1"#,
            env!("CARGO_PKG_VERSION")
        ),
        "lb_start_time_seconds 1700000000".into(),
        "lb_problems 0".into(),
        "lb_snapshot_version 17".into(),
        "lb_apply_seconds 0.003".into(),
        r#"lb_interface_info{interface="eth0",mode="native"} 1"#.into(),
        r#"lb_local_clients_info{cgroup="/sys/fs/cgroup"} 1"#.into(),
        "lb_local_translated_total 12".into(),
        "lb_local_refused_total 3".into(),
        r#"lb_packets_total{action="drop",reason="blocked"} 7"#.into(),
        r#"lb_packet_bytes_total{action="drop",reason="blocked"} 700"#.into(),
        r#"lb_packets_total{action="forward",reason="request"} 1000000000000"#.into(),
        r#"lb_packets_total{action="pass",reason="foreign"} 0"#.into(),
        r#"lb_flow_slots{family="ipv4"} 1024"#.into(),
        r#"lb_flow_slots_used{family="ipv4",state="established"} 24"#.into(),
        r#"lb_flow_slots_used{family="ipv6",state="reset"} 0"#.into(),
        r#"lb_flow_evictions_total{state="half_open"} 7"#.into(),
        r#"lb_drift_repairs_total{what="backend"} 2"#.into(),
        r#"lb_drift_repairs_total{what="maglev"} 0"#.into(),
        "lb_maglev_rebuild_seconds 0.0015".into(),
        "lb_maglev_rebuild_seconds_total 2.5".into(),
        "lb_maglev_rebuilds_total 1234".into(),
        r#"lb_docker_up{peer="docker"} 1"#.into(),
        r#"lb_docker_up{peer="consul"} 0"#.into(),
        r#"lb_docker_errors_total{peer="docker"} 5"#.into(),
        r#"lb_docker_errors_total{peer="consul"} 6"#.into(),
        r#"lb_docker_changes_total{action="register"} 7"#.into(),
        r#"lb_docker_changes_total{action="deregister"} 8"#.into(),
        "lb_docker_containers 3".into(),
        "lb_docker_wanted 4".into(),
        "lb_docker_registered 2".into(),
        "lb_docker_warnings 2".into(),
        "lb_docker_refusals 1".into(),
        r#"lb_consul_up{watch="health/echo"} 1"#.into(),
        r#"lb_consul_up{watch="health/stale"} 0"#.into(),
        r#"lb_consul_up{watch="health/never"} 0"#.into(),
        r#"lb_consul_errors_total{watch="health/stale"} 5"#.into(),
        r#"lb_probes_total{result="success"} 0"#.into(),
        r#"lb_probes_total{result="timeout"} 0"#.into(),
        "lb_probes_late_total 0".into(),
        r#"lb_service_packets_total{service="echo",direction="in"} 50"#.into(),
        r#"lb_service_bytes_total{service="echo",direction="out"} 5100"#.into(),
        r#"lb_service_flows_total{service="echo"} 52"#.into(),
        r#"lb_service_panic{service="echo"} 1"#.into(),
        r#"lb_service_held_backends{service="echo"} 1"#.into(),
        r#"lb_service_split_share{service="echo",subset="v1",source="cli"} 0.25"#.into(),
        r#"lb_service_shift_phase{service="echo",subset="v2",phase="arrived"} 1"#.into(),
        r#"lb_service_shift_phase{service="echo",subset="v2",phase="returned"} 0"#.into(),
        r#"lb_service_split_returns_total{service="echo"} 2"#.into(),
        format!(r#"lb_backend_packets_total{{{one},direction="in"}} 40"#),
        format!(r#"lb_backend_bytes_total{{{one},direction="out"}} 4100"#),
        format!("lb_backend_flows_total{{{one}}} 42"),
        format!("lb_backend_active_flows{{{one}}} 43"),
        format!("lb_backend_active_flows{{{two}}} 0"),
        r#"lb_service_ejections_total{service="echo"} 3"#.into(),
        format!("lb_backend_enabled{{{one}}} 1"),
        format!("lb_backend_enabled{{{three}}} 0"),
        format!("lb_backend_ejected{{{one}}} 0"),
        format!(r#"lb_backend_failed_connections_total{{{one},reason="refused"}} 44"#),
        format!(r#"lb_backend_failed_connections_total{{{one},reason="unanswered"}} 45"#),
        format!("lb_backend_weight{{{one}}} 100"),
        format!("lb_backend_weight{{{two}}} 0"),
        // The probes' word counts more than the catalog's, in both directions.
        format!("lb_backend_healthy{{{one}}} 1"),
        format!("lb_backend_healthy{{{two}}} 0"),
        format!("lb_backend_healthy{{{three}}} 1"),
        format!("lb_backend_healthy{{{four}}} 0"),
        "lb_trace_watchers 0".into(),
        r#"lb_proxy_requests_total{service="web",subset="v1",backend="10.1.0.2:8080",route="/a",code="200",outcome="answered"} 1"#.into(),
        r#"lb_proxy_requests_total{service="web",subset="v1",backend="",route="/a",code="503",outcome="no_backend"} 1"#.into(),
        r#"lb_proxy_grpc_calls_total{service="web",route="/a",grpc_status="14"} 2"#.into(),
        r#"lb_proxy_request_duration_seconds_bucket{service="web",route="/a",le="0.0025"} 0"#.into(),
        r#"lb_proxy_request_duration_seconds_bucket{service="web",route="/a",le="0.005"} 2"#.into(),
        r#"lb_proxy_request_duration_seconds_sum{service="web",route="/a"} 0.006"#.into(),
        r#"lb_proxy_overhead_seconds_count{service="web",route="/a"} 2"#.into(),
        r#"lb_proxy_bytes_total{service="web",route="/a",direction="in"} 2"#.into(),
        r#"lb_proxy_bytes_total{service="web",route="/a",direction="out"} 4"#.into(),
        r#"lb_proxy_connections{listener="[::]:80"} 0"#.into(),
        r#"lb_proxy_tls_handshakes_failed_total{listener="[::]:80"} 1"#.into(),
        r#"lb_proxy_requests_unread_total{listener="[::]:80",code="400"} 2"#.into(),
        r#"lb_proxy_requests_unread_total{listener="[::]:80",code="408"} 1"#.into(),
        r#"lb_proxy_spans_total{result="exported"} 0"#.into(),
        r#"lb_proxy_spans_total{result="failed"} 0"#.into(),
        r#"lb_proxy_spans_total{result="lost"} 0"#.into(),
        "lb_proxy_access_log_lost_total 0".into(),
        "lb_trace_events_total 0".into(),
        "lb_trace_lost_total 0".into(),
        "lb_block_rules 2".into(),
        r#"lb_block_packets_total{prefix="192.0.2.7/32"} 3"#.into(),
        r#"lb_block_bytes_total{prefix="2001:db8::/32"} 400"#.into(),
    ];
    let lines: BTreeSet<&str> = body.lines().collect();
    for row in &rows {
        assert!(lines.contains(&**row), "{row} is missing in\n{body}");
    }
    // Years have passed since the last answer, or, if there never was one, since the start.
    for watch in ["echo", "never"] {
        let start = format!(r#"lb_consul_sync_age_seconds{{watch="health/{watch}"}} "#);
        let line = lines.iter().find(|line| line.starts_with(&start)).unwrap();
        let age: f64 = line[start.len()..].parse().unwrap();
        assert!(age > 86_400.0, "{line}");
    }
    assert!(!body.contains("vanished"), "series of what is gone");
    assert!(!body.contains(r#"state="free""#), "free slots are not used");
    let verdicts = body
        .lines()
        .filter(|line| line.starts_with("lb_packets_total{"));
    assert_eq!(verdicts.count(), Verdict::ALL.len());
}

/// The rules of the format and of naming: help and type before the samples of each family, a
/// family in one piece, counters and nothing else called `_total`, no series twice.
#[tokio::test]
async fn metrics_page_is_well_formed() {
    let rig = Rig::start(status(), vec![blocked("192.0.2.7", 3)]).await;
    let (_, body) = rig.get("/metrics").await;
    let mut series = BTreeSet::new();
    let mut families = BTreeSet::new();
    let mut lines = body.lines().peekable();
    while let Some(help) = lines.next() {
        let (name, text) = help
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
            .unwrap_or_else(|| panic!("no help: {help}"));
        assert!(text.ends_with('.'), "{help}");
        assert!(families.insert(name), "{name} comes twice");
        let own = ["lb_", "process_"].iter().any(|own| name.starts_with(own));
        assert!(own, "{name}");
        let kind = if name.ends_with("_total") {
            "counter"
        } else if name.starts_with("lb_proxy_") && name.ends_with("_seconds") {
            "histogram"
        } else {
            "gauge"
        };
        assert_eq!(lines.next().unwrap(), format!("# TYPE {name} {kind}"));
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            let (id, value) = sample.rsplit_once(' ').unwrap();
            assert!(series.insert(id), "{id} comes twice");
            let of = id.split('{').next().unwrap();
            let part = ["_bucket", "_count", "_sum"].into_iter();
            let mut part = part.filter(|_| kind == "histogram");
            assert!(
                of == name || part.any(|part| of.strip_suffix(part) == Some(name)),
                "{id}"
            );
            value.parse::<f64>().unwrap();
        }
    }
    assert_eq!(families.len(), 84, "{families:?}");
}

/// A page with every family, for the reference.
pub(crate) async fn full_page() -> String {
    let rig = Rig::start(status(), vec![blocked("192.0.2.7", 3)]).await;
    rig.get("/metrics").await.1
}

/// A long block list shows the rules that dropped most, and says how many there are.
#[tokio::test]
async fn long_block_list() {
    let blocks = (0..3000u32)
        .rev()
        .map(|n| {
            let prefix = format!("10.0.{}.{}", n >> 8, n & 0xff);
            blocked(&prefix, u64::from(n))
        })
        .collect();
    let status = Status {
        blocks: 3000,
        ..status()
    };
    let rig = Rig::start(status, blocks).await;
    let (_, body) = rig.get("/metrics").await;
    let shown: Vec<&str> = body
        .lines()
        .filter(|line| line.starts_with("lb_block_packets_total{"))
        .collect();
    assert_eq!(shown.len(), 1000);
    assert!(shown[0].ends_with(" 2999"), "{}", shown[0]);
    assert!(shown[999].ends_with(" 2000"), "{}", shown[999]);
    assert!(body.contains("\nlb_block_rules 3000\n"));
}

/// Healthy, unhealthy, and elsewhere.
#[tokio::test]
async fn health_page_and_others() {
    let rig = Rig::start(status(), Vec::new()).await;
    let (header, body) = rig.get("/healthz").await;
    assert!(header.starts_with("http/1.1 200 "), "{header}");
    assert_eq!(body, "ok\n");
    let (header, body) = rig.get("/readyz").await;
    assert!(header.starts_with("http/1.1 200 "), "{header}");
    assert_eq!(body, "ready\n");
    let (header, body) = rig.get("/").await;
    assert!(header.starts_with("http/1.1 404 "), "{header}");
    assert_eq!(
        body,
        "nothing here; ask for /metrics, /healthz or /readyz\n"
    );

    let ill = Status {
        problems: vec!["Consul is gone".into(), "eth0 is down".into()],
        ..status()
    };
    let rig = Rig::start(ill, Vec::new()).await;
    let (header, body) = rig.get("/healthz").await;
    assert!(header.starts_with("http/1.1 503 "), "{header}");
    assert_eq!(body, "Consul is gone\neth0 is down\n");
    let (_, body) = rig.get("/metrics").await;
    assert!(body.contains("\nlb_problems 2\n"));
    let (header, _) = rig.get("/readyz").await;
    assert!(header.starts_with("http/1.1 200 "), "{header}");
}

/// A drained node is well, but not ready.
#[tokio::test]
async fn a_drained_node_is_not_ready() {
    let drained = Status {
        node_drain: Some(NodeDrain {
            since: SystemTime::UNIX_EPOCH,
            grace: Duration::ZERO,
            deadline: None,
            by: None,
        }),
        ..status()
    };
    let rig = Rig::start(drained, Vec::new()).await;
    let (header, body) = rig.get("/readyz").await;
    assert!(header.starts_with("http/1.1 503 "), "{header}");
    assert_eq!(body, "the node is drained since 1970-01-01T00:00:00Z\n");
    let (header, _) = rig.get("/healthz").await;
    assert!(header.starts_with("http/1.1 200 "), "{header}");
    let (_, body) = rig.get("/metrics").await;
    assert!(body.contains("\nlb_node_drained 1\n"));
}

/// A controller that is gone is reported as such.
#[tokio::test]
async fn controller_is_gone() {
    let (commands, _) = mpsc::channel(4);
    let (_publish, snapshots) = watch::channel(Arc::default());
    let rig = Rig::over(Handle::new(commands, snapshots)).await;
    for path in ["/metrics", "/healthz", "/readyz"] {
        let (header, body) = rig.get(path).await;
        assert!(header.starts_with("http/1.1 503 "), "{header}");
        assert_eq!(body, "the agent is shutting down\n");
    }
}

/// One that says nothing is not waited for without end.
#[tokio::test(start_paused = true)]
async fn controller_is_silent() {
    let (commands, _asked) = mpsc::channel(4);
    let (_publish, snapshots) = watch::channel(Arc::default());
    let handle = Handle::new(commands, snapshots);
    let silence = in_time(handle.status()).await.unwrap_err();
    assert_eq!(
        silence.to_string(),
        "the agent's controller has not answered within 5s; see the agent's log"
    );
    assert_eq!(
        silence.into_response().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
}

/// Shutdown ends the server, even while a client holds a connection on which it asks nothing.
#[tokio::test]
async fn shutdown_does_not_wait_for_idle_clients() {
    let rig = Rig::start(status(), Vec::new()).await;
    let _idle = TcpStream::connect(rig.address).await.unwrap();
    rig.get("/healthz").await;
    rig.stop.send(()).unwrap();
    time::timeout(Duration::from_secs(30), rig.server)
        .await
        .unwrap()
        .unwrap();
}
