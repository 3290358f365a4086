//! Everything once, in one story without a stopwatch: what `cargo xtask test kernels` runs on other
//! kernels, in machines that are many times slower than this one.

use std::{collections::BTreeSet, time::Duration};

use lb_tests::{client::Client, pace::at_this_pace, process::wait_for};

use crate::scene::{Conversation, PATIENCE, Scene, VIP, VIP6, address, udp_service};

/// Attached natively; HTTP and UDP are balanced on both families; a block cuts one client off and
/// no other; connections outlive the agent's being killed and started again; `detach` leaves
/// nothing.
#[test]
fn from_the_first_packet_to_detach() {
    let mut scene = Scene::listed(&["v1", "v1"], "", &udp_service(2));
    let status = scene.agent.command(&["status"]).unwrap();
    for interface in ["to-client (native)", "to-b1 (native)", "to-b2 (native)"] {
        assert!(status.contains(interface), "{status}");
    }

    // That HTTP is balanced, the scene has waited for.
    let client = scene.client().patience(at_this_pace(PATIENCE));
    let both = BTreeSet::from(["b1", "b2"]);
    for vip in [VIP, VIP6] {
        let spread = client.spread_udp(address(vip), 40, 2);
        assert_eq!(spread.failed(), 0, "UDP through {vip}: {spread:?}");
        let found: BTreeSet<&str> = spread.backends.keys().map(String::as_str).collect();
        assert_eq!(found, both, "UDP through {vip}");
    }

    let short = at_this_pace(Duration::from_millis(300));
    let blocked = scene.topology.client_addresses()[1];
    let from_blocked: Client = scene.client().from(blocked);
    from_blocked.get(address(VIP), "/").unwrap();
    let rule = blocked.to_string();
    scene.agent.command(&["block", "add", &rule]).unwrap();
    let cut_off = from_blocked.clone().patience(short);
    assert!(cut_off.get(address(VIP), "/").is_err(), "the block bites");
    let list = scene.agent.command(&["block", "list"]).unwrap();
    assert!(list.contains(&rule), "{list}");
    assert_eq!(client.get(address(VIP), "/").unwrap().status, 200);
    scene.agent.command(&["block", "del", &rule]).unwrap();
    from_blocked.get(address(VIP), "/").unwrap();

    let mut held = [VIP, VIP6].map(|vip| {
        let mut held = Conversation::open(scene.topology.client(), address(vip));
        (held.ask(), held)
    });
    let mut goes_on = |scene: &Scene, when: &str| {
        for (backend, conversation) in &mut held {
            assert_eq!(conversation.ask(), *backend, "{when}");
        }
        for vip in [VIP, VIP6] {
            let spread = scene.client().spread(address(vip), 10, 2);
            assert_eq!(spread.failed(), 0, "{when}, through {vip}: {spread:?}");
        }
    };
    scene.agent.kill9().unwrap();
    goes_on(&scene, "without the agent");
    scene.agent.restart().unwrap();
    goes_on(&scene, "with the agent started again");
    let status = scene.agent.command(&["status"]).unwrap();
    assert!(status.contains("to-client (native, adopted)"), "{status}");
    scene.agent.stop().unwrap();
    goes_on(&scene, "with the agent stopped");

    let pins = scene.agent.pins().display().to_string();
    scene
        .agent
        .command(&["detach", "--bpf-dir", &pins])
        .unwrap();
    let links = || scene.topology.node().tool("ip", &["link", "show"]);
    wait_for("the programs to be gone", PATIENCE, || {
        Ok((!links()?.contains("xdp")).then_some(()))
    })
    .unwrap();
    assert!(!scene.agent.pins().exists());
    let nobody = scene.client().patience(short);
    assert!(nobody.get(address(VIP), "/").is_err(), "nobody is left");
}
