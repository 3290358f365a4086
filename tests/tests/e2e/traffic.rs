//! What goes to a VIP comes out right at a backend and back: TCP and UDP, IPv4 and IPv6, small and
//! large; and is counted, neither more nor less.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use lb_tests::{process::wait_for, stats::bounds};

use crate::scene::{PATIENCE, Scene, VIP, VIP6, address, sample, udp_service};

#[test]
fn curl_is_answered_on_both_families() {
    let scene = Scene::listed(&["v1", "v2"], "", "");
    for vip in [VIP, VIP6] {
        let url = format!("http://{vip}/");
        #[rustfmt::skip]
        let printed = scene.topology.client().tool("curl", &[
            "--silent", "--show-error", "--fail", "--max-time", "5", "--globoff",
            "--write-out", "\n%{http_code}", &url,
        ]).unwrap();
        let (body, status) = printed.rsplit_once('\n').unwrap();
        assert_eq!(status, "200");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(["b1", "b2"].contains(&body["hostname"].as_str().unwrap()));
        assert_eq!(body["text"], "hello");
    }
}

/// 1 GB down, compared byte by byte with the pattern, and 1 GB up, compared by its digest.
fn gigabyte(vip: &str) {
    const BYTES: u64 = 1_000_000_000;
    let scene = Scene::listed(&["v1"], "", "");
    let client = scene.client().patience(PATIENCE);
    let begun = Instant::now();
    client
        .download(address(vip), BYTES, None, &AtomicU64::new(0))
        .unwrap();
    let down = begun.elapsed();
    client.upload(address(vip), BYTES).unwrap();
    let up = begun.elapsed() - down;
    let rate = |took: Duration| BYTES as f64 / 1e6 / took.as_secs_f64();
    eprintln!(
        "1 GB through {vip}: down at {:.0} MB/s, up at {:.0} MB/s",
        rate(down),
        rate(up)
    );
}

#[test]
fn a_gigabyte_each_way_is_not_altered_on_ipv4() {
    gigabyte(VIP);
}

#[test]
fn a_gigabyte_each_way_is_not_altered_on_ipv6() {
    gigabyte(VIP6);
}

#[test]
fn datagrams_come_back_whole_and_spread() {
    let scene = Scene::listed(&["v1", "v1", "v1"], "", &udp_service(3));
    let client = scene.client();
    // The answer is three bytes longer, and just fits into 1500 with its headers.
    for (vip, longest) in [(VIP, 1500 - 20 - 8 - 3), (VIP6, 1500 - 40 - 8 - 3)] {
        for length in [0, 1, 2, 511, 1024, longest - 1, longest] {
            let mut payload = vec![0; length];
            lb_tests::pattern::fill(length as u64, &mut payload);
            let answer = client.udp(address(vip), &payload).unwrap();
            let (mark, echoed) = answer.split_at(3);
            assert!([b"b1:", b"b2:", b"b3:"].contains(&mark.try_into().unwrap()));
            assert!(echoed == payload, "{length} bytes through {vip}");
        }

        let spread = client.spread_udp(address(vip), 300, 4);
        assert_eq!(spread.answered(), 300, "{:?}", spread.failures);
        let (low, high) = bounds(300, 1.0 / 3.0, 5.0);
        for backend in ["b1", "b2", "b3"] {
            let count = spread.of(backend);
            assert!((low..=high).contains(&count), "{:?}", spread.backends);
        }

        let from_one_socket = scene
            .topology
            .client()
            .run(|| marks_of_one_socket(address(vip)));
        assert_eq!(
            from_one_socket.len(),
            1,
            "one socket is one flow, and one flow has one backend: {from_one_socket:?}"
        );
    }
}

/// Sends 50 datagrams from one socket; who answered how many.
fn marks_of_one_socket(to: SocketAddr) -> BTreeMap<Vec<u8>, usize> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut marks = BTreeMap::new();
    let mut buffer = [0; 100];
    for _ in 0..50 {
        socket.send(b"once more").unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        let mark = buffer[..length].strip_suffix(b":once more").unwrap();
        *marks.entry(mark.to_vec()).or_default() += 1;
    }
    marks
}

/// What the counters of the kernel have come to, by metric and labels.
struct Counted(String);

impl Counted {
    /// Once nothing moves any more: the last packets of a connection follow its answer.
    fn of(scene: &Scene) -> Self {
        let traffic = |scrape: &str| -> Vec<String> {
            scrape
                .lines()
                .filter(|line| line.starts_with("lb_service_") || line.starts_with("lb_backend_"))
                .map(str::to_owned)
                .collect()
        };
        let mut last = scene.scrape();
        wait_for("the counters to stand still", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(50));
            let scrape = scene.scrape();
            let still = traffic(&scrape) == traffic(&last);
            last = scrape;
            Ok(still.then_some(()))
        })
        .unwrap();
        Self(last)
    }

    /// How much a metric has grown since `before`.
    fn since(&self, before: &Self, metric: &str, labels: &[&str]) -> f64 {
        let value = |scrape: &str| {
            sample(scrape, metric, labels).unwrap_or_else(|| panic!("no {metric} with {labels:?}"))
        };
        value(&self.0) - value(&before.0)
    }
}

#[test]
fn counters_equal_what_was_sent() {
    let scene = Scene::listed(&["v1", "v1", "v1"], "", &udp_service(3));
    let client = scene.client();
    let before = Counted::of(&scene);
    let tcp4 = client.spread(address(VIP), 300, 4);
    let tcp6 = client.spread(address(VIP6), 100, 4);
    let udp4 = client.spread_udp(address(VIP), 200, 4);
    let udp6 = client.spread_udp(address(VIP6), 50, 4);
    let after = Counted::of(&scene);
    for spread in [&tcp4, &tcp6, &udp4, &udp6] {
        assert_eq!(spread.failed(), 0, "{:?}", spread.failures);
    }

    let flows = |labels: &[&str]| after.since(&before, "lb_service_flows_total", labels);
    assert_eq!(flows(&["service=\"echo\""]), 400.0);
    assert_eq!(flows(&["service=\"echo-udp\""]), 250.0);
    for number in 1..=3 {
        let name = format!("b{number}");
        for (service, v4, v6) in [("echo", &tcp4, &tcp6), ("echo-udp", &udp4, &udp6)] {
            let answered = [
                (scene.topology.backend_address(number), v4.of(&name)),
                (scene.topology.backend_address6(number), v6.of(&name)),
            ];
            for (backend, count) in answered {
                let labels = [
                    &*format!("service=\"{service}\""),
                    &*format!("backend=\"{backend}\""),
                ];
                let flows = after.since(&before, "lb_backend_flows_total", &labels);
                assert_eq!(flows, count as f64, "{labels:?}");
            }
        }
    }

    // One datagram each way; with Ethernet, IP and UDP headers in front of `ping` and `b1:ping`.
    let udp = |metric: &str, direction: &str| {
        let direction = format!("direction=\"{direction}\"");
        after.since(&before, metric, &["service=\"echo-udp\"", &direction])
    };
    let frame =
        |payload: usize| (200 * (14 + 20 + 8 + payload) + 50 * (14 + 40 + 8 + payload)) as f64;
    assert_eq!(udp("lb_service_packets_total", "in"), 250.0);
    assert_eq!(udp("lb_service_packets_total", "out"), 250.0);
    assert_eq!(udp("lb_service_bytes_total", "in"), frame(4));
    assert_eq!(udp("lb_service_bytes_total", "out"), frame(7));

    // What the services count is what was forwarded, and nothing was dropped on the way.
    for (reason, direction) in [("request", "in"), ("reply", "out")] {
        let direction = format!("direction=\"{direction}\"");
        let counted = after.since(&before, "lb_service_packets_total", &[&direction]);
        let reason = format!("reason=\"{reason}\"");
        let forwarded = after.since(&before, "lb_packets_total", &[&reason]);
        assert_eq!(forwarded, counted, "{reason}");
        let spare = 400.0 * 3.0 + 250.0;
        assert!(counted >= spare, "{counted} packets for 400 connections");
    }
    let dropped = after.since(&before, "lb_packets_total", &["action=\"drop\""]);
    assert_eq!(dropped, 0.0, "{}", after.0);
}
