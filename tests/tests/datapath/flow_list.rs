//! The flow tables as a list of flows.

use std::time::{Duration, Instant};

use lb_agent::{
    datapath::Options,
    domain::{
        flow::{FirstFlows, FlowOrder, FlowReader as _},
        trace::Ends,
    },
};
use lb_common::flow::State;
use lb_tests::{packet::ACK, world::World};

use crate::{
    memory,
    trace::ends,
    traffic::{ALL, TCP4, Traffic},
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

/// A million flows are listed in the time that reading their memory takes, and the memory of the
/// agent does not grow with them.
#[test]
fn a_million_flows() {
    const SLOTS: u32 = 1 << 20;
    let options = |options: &mut Options| options.flow_slots = SLOTS;
    World::with_options(options, |world| {
        TCP4.serve(world, &[2]);
        TCP4.establish(world, &TCP4.request(PORT, ACK)).unwrap();
        memory::crowd(world, SLOTS);
        let tables = world.datapath.flows();
        let begun = Instant::now();
        let mut first = FirstFlows::new(FlowOrder::Client, 3);
        tables.each(&mut |flow| first.offer(*flow)).unwrap();
        let took = begun.elapsed();
        assert_eq!(first.offered, u64::from(SLOTS));
        let clients: Vec<String> = first
            .into_sorted()
            .iter()
            .map(|flow| flow.client.ip().to_string())
            .collect();
        assert_eq!(clients, ["11.0.0.0", "11.0.0.1", "11.0.0.2"]);
        eprintln!("a million flows were listed in {took:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    })
    .unwrap();
}
