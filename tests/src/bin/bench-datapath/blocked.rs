//! What sources of block lists cost, and strangers beside them.

use anyhow::Result;
use lb_common::verdict::Verdict;
use lb_tests::{
    bench::{Bare, blocked_sources},
    packet::{ACK, Packet, SYN},
};

use crate::{
    cases::{Group, NEW_FLOWS, NEW_FLOWS6, Prepare, case, strangers},
    population::Population,
    stage::Scene,
};

/// Rules of the long block list.
pub(crate) const LONG_LIST: u32 = 1_000_000;

pub(crate) fn blocks(rules: u32) -> Result<Group> {
    let from = Packet::tcp("100.64.0.7", 40_000, NEW_FLOWS, 80, SYN);
    let traffic = blocked_sources(&from, rules)?;
    let from6 = Packet::tcp("2001:db8::7", 40_000, NEW_FLOWS6, 80, SYN);
    let traffic6 = blocked_sources(&from6, rules)?;
    let passed = |family: &str, traffic| {
        let name = format!("foreign, passed, {family}, {rules} prefixes blocked");
        case(name, traffic, Bare::ParsePass, Verdict::PassForeign).goal(10.0)
    };
    let name = format!("blocked, dropped, {rules} prefixes");
    let tcp = Population {
        v6: false,
        udp: false,
        flows: 1024,
    };
    let goal = if rules == 10 { 15.0 } else { 30.0 };
    let cases = vec![
        case(name, traffic, Bare::ParseDrop, Verdict::DropBlocked).goal(goal),
        case(
            format!("blocked, dropped, v6, {rules} prefixes"),
            traffic6,
            Bare::ParseDrop,
            Verdict::DropBlocked,
        ),
        passed("v4", strangers("10.64.0.0", "192.0.2.1")?),
        passed("v6", strangers("2a00:77::", "2001:db8:200::1")?),
        case(
            format!("TCP v4, 1 flow, {rules} prefixes blocked"),
            tcp.requests(1, ACK)?,
            Bare::Transmit,
            Verdict::ForwardRequest,
        ),
    ];
    Ok(Group {
        name: format!("a block list of {rules}"),
        scene: if rules == LONG_LIST {
            Scene::LongList
        } else {
            Scene::Blocks
        },
        prepare: Prepare::Blocks(rules),
        cases,
    })
}
