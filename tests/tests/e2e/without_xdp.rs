//! `xdp_mode = "off"`: tc alone, with checksums and segmentation left to the devices, as on hosts
//! in service; and generic XDP, which looks at the same buffers.

use std::{sync::atomic::AtomicU64, time::Duration};

use lb_tests::{client::Client, link, topology::Topology};

use crate::scene::{PATIENCE, Scene, VIP, VIP6, address, sample, udp_service};

/// All ends of all links with their offloads on.
fn offload(topology: &Topology) {
    link::offload(topology.client(), "eth0").unwrap();
    for interface in topology.node_interfaces() {
        link::offload(topology.node(), &interface).unwrap();
    }
    for backend in topology.backends() {
        link::offload(backend, "eth0").unwrap();
    }
}

/// Segments larger than the MTU and checksums that are yet to be computed, both ways.
#[test]
fn large_transfers_are_not_altered() {
    transfers("off", "to-client (tc)");
}

/// Buffers of the kernel's taken for frames: those that are not frames are left to tc.
#[test]
fn large_transfers_are_not_altered_in_generic_mode() {
    transfers("generic", "to-client (generic)");
}

/// As many bytes each way over TCP, many connections, and datagrams of all sizes, byte for byte.
pub(crate) fn nothing_is_altered(client: &Client, vip: &str, bytes: u64) {
    client
        .download(address(vip), bytes, None, &AtomicU64::new(0))
        .unwrap();
    client.upload(address(vip), bytes).unwrap();
    assert_eq!(client.spread(address(vip), 200, 4).failed(), 0);
    for length in [0, 1, 511, 1400] {
        let mut payload = vec![0; length];
        lb_tests::pattern::fill(length as u64, &mut payload);
        let answer = client.udp(address(vip), &payload).unwrap();
        assert!(answer[3..] == payload, "{length} bytes through {vip}");
    }
}

fn transfers(mode: &str, shown: &str) {
    const BYTES: u64 = 200_000_000;
    let mode = format!("xdp_mode = {mode:?}");
    let scene = Scene::listed_on(&mode, &["v1", "v2"], "", &udp_service(2));
    offload(&scene.topology);
    let status = scene.agent.command(&["status"]).unwrap();
    assert!(status.contains(shown), "{status}");
    let client = scene.client().patience(PATIENCE);
    for vip in [VIP, VIP6] {
        nothing_is_altered(&client, vip, BYTES);
        assert_eq!(client.spread_udp(address(vip), 200, 4).failed(), 0);
    }
    // Merged segments count as one: far fewer than a packet for every 1,400 bytes.
    let scrape = scene.scrape();
    let packets = sample(&scrape, "lb_packets_total", &["action=\"forward\""]).unwrap();
    assert!(packets < 4.0 * BYTES as f64 / 1400.0, "{packets} packets");
    assert_eq!(
        sample(&scrape, "lb_packets_total", &["action=\"drop\""]),
        Some(0.0)
    );
}

/// A reply counts once, a request counts once, and nothing that is forwarded counts as passed.
#[test]
fn every_packet_counts_once() {
    let scene = Scene::listed_on("xdp_mode = \"off\"", &["v1", "v1"], "", &udp_service(2));
    offload(&scene.topology);
    let client = scene.client();
    let value = |scrape: &str, labels: &[&str]| sample(scrape, "lb_packets_total", labels).unwrap();
    let before = scene.scrape();
    for vip in [VIP, VIP6] {
        assert_eq!(client.spread_udp(address(vip), 300, 4).failed(), 0);
    }
    let after = scene.scrape();
    for reason in ["reason=\"request\"", "reason=\"reply\""] {
        let grown = value(&after, &[reason]) - value(&before, &[reason]);
        assert_eq!(grown, 600.0, "{reason}");
    }
    for reason in ["reason=\"foreign\"", "reason=\"unknown_reply\""] {
        let grown = value(&after, &[reason]) - value(&before, &[reason]);
        assert!(grown < 50.0, "{grown} {reason}");
    }
}

/// The programs stay without the agent, the next one takes them over, `detach` removes them.
#[test]
fn restart_and_detach() {
    let mut scene = Scene::listed_on("xdp_mode = \"off\"", &["v1", "v2"], "", "");
    let load = scene.load(200.0);
    for round in 0..4 {
        if round % 2 == 0 {
            scene.agent.kill9().unwrap();
        } else {
            scene.agent.stop().unwrap();
        }
        assert_eq!(scene.client().spread(address(VIP), 20, 2).failed(), 0);
        scene.agent.restart().unwrap();
        let status = scene.agent.command(&["status"]).unwrap();
        assert!(status.contains("to-client (tc, adopted)"), "{status}");
    }
    let record = load.stop();
    let failures: Vec<_> = record.failures().collect();
    assert!(failures.is_empty(), "{failures:?}");

    scene.agent.stop().unwrap();
    let pins = scene.agent.pins().display().to_string();
    let removed = scene
        .agent
        .command(&["detach", "--bpf-dir", &pins])
        .unwrap();
    assert!(removed.contains("to-client (tc ingress)"), "{removed}");
    assert!(!scene.agent.pins().exists());
    let client = scene.client().patience(Duration::from_millis(300));
    assert_eq!(client.spread(address(VIP), 2, 2).answered(), 0);
}
