//! The list of flows against what the hosts themselves say of their connections.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpStream},
};

use lb_tests::process::wait_for;

use crate::scene::{PATIENCE, Scene, VIP, VIP6, address, reply};

/// Connections that stay open, as the client sees them.
fn open(scene: &Scene, vip: &str, count: usize) -> Vec<TcpStream> {
    let connect = || TcpStream::connect(address(vip)).unwrap();
    (0..count)
        .map(|_| scene.topology.client().run(connect))
        .collect()
}

fn locals(streams: &[TcpStream]) -> BTreeSet<String> {
    let local = |stream: &TcpStream| stream.local_addr().unwrap().to_string();
    streams.iter().map(local).collect()
}

/// One column of a list.
fn column(scene: &Scene, args: &[&str], name: &str) -> BTreeSet<String> {
    let list = reply(&scene.agent, args);
    let flows = list["flows"].as_array().unwrap();
    assert_eq!(list["total"], flows.len());
    let text = |flow: &serde_json::Value| flow[name].as_str().unwrap().to_owned();
    flows.iter().map(text).collect()
}

/// What a backend takes for its clients.
fn peers(scene: &Scene, number: usize) -> BTreeSet<String> {
    let args = ["-Htn", "state", "established", "sport", "=", ":8080"];
    let backend = &scene.topology.backends()[number - 1];
    let listed = backend.tool("ss", &args).unwrap();
    let peer = |line: &str| line.split_whitespace().last().unwrap().to_owned();
    listed.lines().map(peer).collect()
}

#[test]
fn flows_are_the_connections_there_are() {
    let scene = Scene::listed(&["v1", "v2"], "", "");
    let streams = open(&scene, VIP, 30);
    let streams6 = open(&scene, VIP6, 10);
    let (expected, expected6) = (locals(&streams), locals(&streams6));
    let established = ["flow", "list", "--state", "established", "--client"];
    let of = |client: &'static str| [&established[..], &[client]].concat();
    // The handshake's last packet may still be on its way.
    wait_for("all flows to be established", PATIENCE, || {
        Ok((column(&scene, &of("10.77.0.0/24"), "client") == expected).then_some(()))
    })
    .unwrap();
    assert_eq!(column(&scene, &of("::/0"), "client"), expected6);
    assert!(column(&scene, &of("10.77.0.9"), "client").is_empty());
    assert_eq!(
        column(&scene, &of("10.77.0.0/24"), "vip"),
        [VIP.to_owned()].into()
    );
    assert_eq!(
        column(&scene, &of("::/0"), "service"),
        ["echo".to_owned()].into()
    );

    // What the backends see is the source, on each its own.
    let mut seen = 0;
    for number in [1, 2] {
        let addresses = [
            scene.topology.backend_address(number).to_string(),
            scene.topology.backend_address6(number).to_string(),
        ];
        let mut sources = BTreeSet::new();
        for address in &addresses {
            let args = [
                "flow",
                "list",
                "--state",
                "established",
                "--backend",
                address,
            ];
            sources.extend(column(&scene, &args, "source"));
        }
        assert_eq!(sources, peers(&scene, number.into()), "backend {number}");
        seen += sources.len();
    }
    assert_eq!(seen, 40);

    // Ended by one side and by both.
    drop(streams6);
    wait_for("the flows to end", PATIENCE, || {
        Ok(column(&scene, &of("::/0"), "client")
            .is_empty()
            .then_some(()))
    })
    .unwrap();

    let text = |args: &[&str]| scene.agent.command(args).unwrap();
    let few = text(&[&of("10.77.0.0/24")[..], &["--limit", "4", "--sort", "idle"]].concat());
    let lines: Vec<&str> = few.lines().collect();
    assert_eq!(lines.len(), 6, "{few}");
    assert!(lines[0].starts_with("PROTO  CLIENT "), "{few}");
    assert_eq!(lines[5], "and 26 more flows; --limit shows them");
    let count = text(&[
        "flow",
        "count",
        "--by",
        "state",
        "--client",
        "10.77.0.2",
        "--state",
        "established",
    ]);
    assert_eq!(count, "STATE        FLOWS\nestablished     30\n");
    let none = text(&["flow", "list", "--proto", "udp"]);
    assert_eq!(none, "there are no such flows\n");
    let all: SocketAddr = expected.first().unwrap().parse().unwrap();
    assert!(text(&["flow", "list", "--limit", "0"]).contains(&all.to_string()));
}
