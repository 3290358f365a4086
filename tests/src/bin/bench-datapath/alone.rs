//! Cases of flows of which the node sees one side: direct server return.

use anyhow::Result;
use lb_agent::domain::service::Forwarding;
use lb_common::verdict::Verdict;
use lb_tests::{
    bench::{Bare, Ingress, Part, Traffic},
    packet::{ACK, Packet, SYN},
};

use crate::{
    cases::{Group, NEW_FLOWS, Prepare, case, count},
    population::Population,
    stage::Scene,
};

/// Packets to backends that answer clients themselves. Where a header is put around them, taking it
/// off again before the next packet is a part of the figure.
pub(crate) fn groups(forwarding: Forwarding) -> Result<Vec<Group>> {
    let name = forwarding.name();
    let scene = Scene::ServerReturn(forwarding);
    let mut groups = Vec::new();
    for v6 in [false, true] {
        let flows = Population {
            v6,
            udp: false,
            flows: 65_536,
        };
        let family = if v6 { "v6" } else { "v4" };
        let cases = [1, 65_536].map(|many| {
            let name = format!("{name}, TCP {family}, {}", count(many));
            let traffic = flows.requests(many, ACK)?;
            Ok(case(name, traffic, Bare::Transmit, Verdict::ForwardRequest))
        });
        groups.push(Group {
            name: format!("{name} {family}"),
            scene,
            prepare: Prepare::FlowsAlone(flows),
            cases: cases.into_iter().collect::<Result<_>>()?,
        });
    }
    let syn = Packet::tcp("10.64.0.0", 16_384, NEW_FLOWS, 80, SYN);
    let parts = [(Part::SourcePort, 0, 0x7fff), (Part::Source, 15, u32::MAX)];
    let traffic = Traffic::new(&syn, Ingress::Front, 1 << 22, &parts)?;
    let new = format!("{name}, TCP v4, a new flow each packet");
    let verdict = Verdict::ForwardRequest;
    groups.push(Group {
        name: new.clone(),
        scene,
        prepare: Prepare::NoFlows,
        cases: vec![case(new, traffic, Bare::Transmit, verdict).new_flows()],
    });
    Ok(groups)
}
