//! VIPs that are no addresses of the node's, on a network that takes them for its own.

use std::time::Duration;

use lb_tests::{agent::Setup, client::Client, process::wait_for, topology::Topology};

use crate::{
    local::{services, wait_until_served},
    scene::{PATIENCE, VIP, VIP6, address},
};

/// Clients that ask for the link address of a VIP get the node's; those that knew another are told
/// at the start. It goes on without the agent.
#[test]
fn vips_are_found_by_their_neighbours() {
    for mode in ["native", "off"] {
        let topology = Topology::new(1).unwrap();
        let _backend = topology.start_echo(1).unwrap();
        let client = topology.client();
        let ip = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            client.tool("ip", &words).unwrap()
        };
        ip("route replace 198.51.100.0/24 dev eth0");
        ip("-6 route del 2001:db8:100::/64");
        ip("-6 route add 2001:db8:100::/64 dev eth0");
        for vip in ["198.51.100.10", "2001:db8:100::10"] {
            ip(&format!(
                "neigh add {vip} lladdr 02:00:00:00:00:99 dev eth0 nud stale"
            ));
        }
        // What the kernel has just learned it does not unlearn for a second (`locktime`).
        std::thread::sleep(Duration::from_millis(1500));
        let addresses = [topology.backend_address(1), topology.backend_address6(1)];
        let node = format!("announce = [\"to-client\"]\nxdp_mode = \"{mode}\"");
        let agent = Setup::new(&topology)
            .node(&node)
            .config(&services(&addresses))
            .start()
            .unwrap();
        wait_for("the client to hear where the VIPs are", PATIENCE, || {
            let known = ip("neigh show");
            Ok((!known.contains("02:00:00:00:00:99")).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", ip("neigh show")));
        wait_until_served(&agent, client, 1);

        agent.kill9().unwrap();
        ip("neigh flush dev eth0");
        for vip in [VIP, VIP6] {
            let spread = Client::new(client).spread(address(vip), 10, 2);
            assert_eq!(spread.failed(), 0, "{:?}", spread.failures);
        }
    }
}
