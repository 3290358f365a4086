//! The flow tables as a list of flows.

use lb_agent::domain::{flow::FlowReader as _, trace::Ends};
use lb_common::flow::State;
use lb_tests::{packet::ACK, world::World};

use crate::{
    trace::ends,
    traffic::{ALL, Traffic},
};

const PORT: u16 = 20_444;

/// The list of flows holds each flow once, with everything that its packets showed.
#[test]
fn flows_are_listed_as_they_are() {
    World::with(|world| {
        let mut expected = Vec::new();
        for traffic in ALL {
            traffic.serve(world, &[2, 3]);
            for port in 0..20 {
                let request = traffic.request(PORT + port, ACK);
                let sent = traffic.establish(world, &request).unwrap();
                expected.push((traffic.proto(), ends(&request), ends(&sent)));
            }
        }
        let mut found = Vec::new();
        let tables = world.datapath.flows();
        tables
            .each(&mut |flow| {
                assert_eq!(flow.state, State::Established);
                assert!(flow.idle.as_secs() < 60, "{flow:?}");
                let traffic = Traffic {
                    v6: flow.client.is_ipv6(),
                    tcp: flow.protocol == 6,
                };
                let hosts = [2, 3].map(|number| traffic.backend_id(number));
                assert!(hosts.contains(&flow.backend_id), "{flow:?}");
                let came = Ends {
                    src: flow.client,
                    dst: flow.vip,
                };
                let went = Ends {
                    src: flow.source,
                    dst: flow.backend,
                };
                found.push((flow.protocol, came, went));
            })
            .unwrap();
        let key = |flow: &(u8, Ends, Ends)| (flow.0, flow.1.src, flow.1.dst);
        found.sort_by_key(key);
        expected.sort_by_key(key);
        assert_eq!(found, expected);
    })
    .unwrap();
}
