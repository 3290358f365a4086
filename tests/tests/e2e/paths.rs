//! Paths with something on them: echo requests, hops, a narrow place, fragments.

use std::{net::SocketAddr, sync::atomic::AtomicU64};

use lb_tests::{
    agent::{Agent, Setup},
    backend::Backend,
    client::Client,
    link::{self, End},
    namespace::Namespace,
    process::wait_for,
    topology::Topology,
};

use crate::scene::{
    METRICS, PATIENCE, Scene, VIP, VIP6, address, config, entry, sample, udp_service,
};

/// What was counted under a reason so far.
fn counted(agent: &Agent, reason: &str) -> f64 {
    let scrape = agent.metrics(address(METRICS)).unwrap();
    let label = format!("reason=\"{reason}\"");
    sample(&scrape, "lb_packets_total", &[&label]).unwrap_or(0.0)
}

/// Settings of the node's for each way of attaching: XDP, and tc alone.
const MODES: [&str; 2] = ["", "xdp_mode = \"off\""];

#[test]
fn vips_answer_ping() {
    for mode in MODES {
        let scene = Scene::listed_on(mode, &["v1"], "", "");
        for vip in [VIP, VIP6] {
            let ip = address(vip).ip().to_string();
            for size in ["56", "1400", "8000"] {
                #[rustfmt::skip]
                let printed = scene.topology.client().tool("ping", &[
                    "-c", "5", "-i", "0.1", "-W", "5", "-s", size, &ip,
                ]).unwrap();
                let all = printed.contains(" 5 received");
                assert!(all, "{mode} {size} bytes to {ip}: {printed}");
            }
        }
        assert!(counted(&scene.agent, "echo") >= 2.0 * 5.0 * (1.0 + 1.0 + 6.0));
    }
}

#[test]
fn traceroute_finds_the_node() {
    for mode in MODES {
        let scene = Scene::listed_on(mode, &["v1"], "", "");
        find_the_node(&scene);
    }
}

fn find_the_node(scene: &Scene) {
    for (vip, node) in [(VIP, "10.77.0.1"), (VIP6, "fd77::1")] {
        let ip = address(vip).ip().to_string();
        let printed = scene
            .topology
            .client()
            .tool(
                "traceroute",
                &["-n", "-T", "-p", "80", "-q", "1", "-m", "5", &ip],
            )
            .unwrap();
        let hops: Vec<&str> = printed
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        assert_eq!(hops, [node, &ip], "{printed}");
    }
}

#[test]
fn large_datagrams_pass_in_fragments() {
    for mode in MODES {
        let scene = Scene::listed_on(mode, &["v1"], "", &udp_service(1));
        pass_in_fragments(&scene);
    }
}

fn pass_in_fragments(scene: &Scene) {
    let client = scene.client();
    for vip in [VIP, VIP6] {
        for length in [1500, 3000, 8192, 30_000] {
            let mut payload = vec![0; length];
            lb_tests::pattern::fill(length as u64, &mut payload);
            let answer = client.udp(address(vip), &payload).unwrap();
            assert!(
                answer.strip_prefix(b"b1:") == Some(&payload[..]),
                "{length} through {vip}"
            );
        }
    }
}

/// A network between the usual one and a host behind it, whose traffic a router passes on.
fn behind(router: &Namespace, label: &str, link: u8, host_routes: &[&str]) -> Namespace {
    let host = Namespace::new(label).unwrap();
    let net = |number: u8| {
        [
            format!("10.{link}.0.{number}/24"),
            format!("fd{link}::{number}/64"),
        ]
        .map(|text| text.parse().unwrap())
    };
    link::connect(
        End {
            namespace: router,
            interface: "beyond",
            addresses: &net(1),
        },
        End {
            namespace: &host,
            interface: "eth0",
            addresses: &net(2),
        },
    )
    .unwrap();
    router.sysctl("ipv4.ip_forward", "1").unwrap();
    router.sysctl("ipv6.conf.all.forwarding", "1").unwrap();
    for route in host_routes {
        let via = if route.contains(':') {
            format!("fd{link}::1")
        } else {
            format!("10.{link}.0.1")
        };
        link::route(&host, route.parse().unwrap(), via.parse().unwrap()).unwrap();
    }
    host
}

/// Narrows what a namespace sends to `destination` by `route`, at a router, to 1,300 bytes.
fn narrow(namespace: &Namespace, destination: &str, route: &[&str]) {
    // Ahead of the interface's own route, which IPv6 keeps beside it.
    let metric: &[&str] = if destination.contains(':') {
        &["metric", "100"]
    } else {
        &[]
    };
    let size: &[&str] = &["mtu", "lock", "1300"];
    let args = [&["route", "replace", destination], route, metric, size].concat();
    namespace.tool("ip", &args).unwrap();
}

/// Routers on both sides of the node have links that are narrower than those of client and
/// backend, who must be told.
#[test]
fn both_ends_learn_of_a_narrow_path() {
    for mode in MODES {
        learn_of_a_narrow_path(mode);
    }
}

fn learn_of_a_narrow_path(mode: &str) {
    let topology = Topology::new(1).unwrap();
    let router = &topology.backends()[0];
    let far = behind(
        topology.client(),
        "far",
        78,
        &["198.51.100.0/24", "2001:db8:100::/64"],
    );
    let deep = behind(router, "deep", 79, &["10.77.1.0/24", "fd77:1::/64"]);
    narrow(topology.client(), "10.78.0.0/24", &["dev", "beyond"]);
    narrow(topology.client(), "fd78::/64", &["dev", "beyond"]);
    narrow(router, "10.79.0.0/24", &["dev", "beyond"]);
    narrow(router, "fd79::/64", &["dev", "beyond"]);
    for (destination, via) in [("10.79.0.0/24", "10.77.1.2"), ("fd79::/64", "fd77:1::2")] {
        let (destination, via) = (destination.parse().unwrap(), via.parse().unwrap());
        link::route(topology.node(), destination, via).unwrap();
    }
    let addresses: [SocketAddr; 2] = ["10.79.0.2:8080", "[fd79::2]:8080"].map(address);
    let _backend = Backend::start(&deep, "b1", &addresses, topology.directory()).unwrap();
    let agent = agent(&topology, mode, &addresses);
    let client = Client::new(&far).patience(PATIENCE);
    served(&agent, &client);
    for vip in [VIP, VIP6] {
        for up in [false, true] {
            // What one end has learned shows in the segment size that it asks the other for.
            for host in [&far, &deep] {
                host.tool("ip", &["route", "flush", "cache"]).unwrap();
                host.tool("ip", &["-6", "route", "flush", "cache"]).unwrap();
            }
            let before = counted(&agent, "icmp_error");
            if up {
                client.upload(address(vip), 20_000_000).unwrap();
            } else {
                let progress = AtomicU64::new(0);
                client
                    .download(address(vip), 20_000_000, None, &progress)
                    .unwrap();
            }
            let told = counted(&agent, "icmp_error") - before;
            assert!(told >= 1.0, "{vip}, up {up}: {told} errors");
        }
    }
}

/// The route from the node to the backend is narrower than the client's.
#[test]
fn clients_learn_of_a_narrow_way_out() {
    for mode in MODES {
        learn_of_a_narrow_way_out(mode);
    }
}

fn learn_of_a_narrow_way_out(mode: &str) {
    let topology = Topology::new(1).unwrap();
    let _backend = topology.start_echo(1).unwrap();
    narrow(topology.node(), "10.77.1.2/32", &["dev", "to-b1"]);
    narrow(topology.node(), "fd77:1::2/128", &["dev", "to-b1"]);
    let addresses = [topology.backend_address(1), topology.backend_address6(1)];
    let agent = agent(&topology, mode, &addresses);
    let client = Client::new(topology.client()).patience(PATIENCE);
    served(&agent, &client);
    transfer(&client);
    assert!(counted(&agent, "too_big") >= 2.0);
}

/// The service with these backends.
fn agent(topology: &Topology, mode: &str, backends: &[SocketAddr]) -> Agent {
    let rows: String = backends
        .iter()
        .map(|address| entry(*address, "v1"))
        .collect();
    let config = config(&format!("backends = [\n{rows}]"), "");
    Setup::new(topology)
        .node(mode)
        .config(&config)
        .start()
        .unwrap()
}

fn served(agent: &Agent, client: &Client) {
    for vip in [VIP, VIP6] {
        wait_for(&format!("an answer from {vip}"), PATIENCE, || {
            agent.process().ensure_running()?;
            Ok(client.get(address(vip), "/").ok())
        })
        .unwrap();
    }
}

/// 20 MB each way, on both families.
fn transfer(client: &Client) {
    for vip in [VIP, VIP6] {
        let begun = std::time::Instant::now();
        client
            .download(address(vip), 20_000_000, None, &AtomicU64::new(0))
            .unwrap_or_else(|error| panic!("down from {vip}: {error:?}"));
        client
            .upload(address(vip), 20_000_000)
            .unwrap_or_else(|error| panic!("up to {vip}: {error:?}"));
        eprintln!("20 MB each way through {vip} in {:.1?}", begun.elapsed());
    }
}
