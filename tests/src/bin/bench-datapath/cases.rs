//! What is measured, in groups that find the same tables; and the goals.
//!
//! A new case is a call of [`Group::case`], a new kind of table a variant of [`Prepare`].

use anyhow::Result;
use lb_agent::domain::service::Forwarding;
use lb_common::verdict::Verdict;
use lb_tests::{
    bench::{Bare, Ingress, Part, Samples, Traffic},
    packet::{ACK, Packet, SYN},
};

use crate::{
    blocked,
    population::Population,
    stage::{Expect, Scene},
};

/// The VIP that new flows go to, with eight backends.
pub(crate) const NEW_FLOWS: &str = "198.51.100.10";
/// The same for IPv6.
pub(crate) const NEW_FLOWS6: &str = "2001:db8:100::10";

/// New flows a run: few enough that a default table stays three quarters empty.
const MOST_NEW: u32 = 32_768;

/// What must be there before a group's cases run.
#[derive(Clone, Debug)]
pub(crate) enum Prepare {
    /// No flow.
    NoFlows,
    /// These flows, established, and no other.
    Flows(Population),
    /// The same where backends answer clients themselves.
    FlowsAlone(Population),
    /// So many block rules of each family, and a few TCP flows.
    Blocks(u32),
}

/// Cases that find the same tables.
pub(crate) struct Group {
    /// For errors.
    pub(crate) name: String,
    /// In which world.
    pub(crate) scene: Scene,
    /// What is made anew each round.
    pub(crate) prepare: Prepare,
    /// What is measured then, in this order.
    pub(crate) cases: Vec<Case>,
}

impl Group {
    /// Whether this is the group of floors and bricks that every table begins with.
    pub(crate) fn is_floors(&self) -> bool {
        self.cases.iter().any(|case| case.name == HOT_HASH)
    }
}

/// One row of the table.
pub(crate) struct Case {
    /// What the row is called.
    pub(crate) name: String,
    /// The packets.
    pub(crate) traffic: Traffic,
    /// What is run where nothing is expected, that is, where it is no program of the agent.
    pub(crate) program: Bare,
    /// What it is compared with, on the same packets.
    pub(crate) floor: Bare,
    /// What becomes of the packets in the agent's program.
    pub(crate) expect: Option<Expect>,
    /// Packets a run, at most.
    pub(crate) most: Option<u32>,
    /// Nanoseconds above the floor, at most, on a machine where a hot hash lookup costs 33.
    pub(crate) goal: Option<f64>,
    /// Nanoseconds a packet, driver included.
    pub(crate) samples: Samples,
    /// The same less the floor's directly before.
    pub(crate) above: Samples,
}

impl Case {
    /// Whether this is no program of the agent.
    pub(crate) fn is_floor(&self) -> bool {
        self.expect.is_none()
    }

    pub(crate) fn new_flows(mut self) -> Self {
        self.most = Some(MOST_NEW);
        if let Some(expect) = &mut self.expect {
            expect.new_flows = true;
        }
        self
    }

    pub(crate) fn goal(mut self, nanoseconds: f64) -> Self {
        self.goal = Some(nanoseconds);
        self
    }
}

/// A case of the agent's program.
pub(crate) fn case(name: String, traffic: Traffic, floor: Bare, verdict: Verdict) -> Case {
    Case {
        name,
        traffic,
        program: floor,
        floor,
        expect: Some(Expect {
            verdict,
            new_flows: false,
        }),
        most: None,
        goal: None,
        samples: Samples::default(),
        above: Samples::default(),
    }
}

/// A floor or a brick.
fn bare(name: &str, traffic: Traffic, program: Bare) -> Case {
    Case {
        program,
        expect: None,
        ..case(name.into(), traffic, Bare::Transmit, Verdict::PassForeign)
    }
}

/// Everything, in the order of the table.
pub(crate) fn all() -> Result<Vec<Group>> {
    let mut groups = vec![floors()?, foreign()?];
    for rules in [10, 10_000, blocked::LONG_LIST] {
        groups.push(blocked::blocks(rules)?);
    }
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        groups.push(known_flows(Population {
            v6,
            udp,
            flows: 65_536,
        })?);
    }
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        groups.push(known_flows(Population {
            v6,
            udp,
            flows: 524_288,
        })?);
    }
    groups.extend(new_flows()?);
    for forwarding in [Forwarding::DsrL2, Forwarding::DsrIpip] {
        groups.extend(crate::alone::groups(forwarding)?);
    }
    Ok(groups)
}

fn floors() -> Result<Group> {
    let tcp = Population {
        v6: false,
        udp: false,
        flows: 65_536,
    };
    let tcp6 = Population { v6: true, ..tcp };
    let one = || tcp.requests(1, ACK);
    let cases = vec![
        bare("bare transmit", one()?, Bare::Transmit),
        bare("bare parse + transmit", one()?, Bare::ParseTransmit),
        bare(
            "bare parse + transmit, v6",
            tcp6.requests(1, ACK)?,
            Bare::ParseTransmit,
        ),
        bare("bare parse + pass", one()?, Bare::ParsePass),
        bare("bare parse + drop", one()?, Bare::ParseDrop),
        bare(HOT_HASH, one()?, Bare::HotHash),
        bare("eight calls of a function", one()?, Bare::Calls),
        bare(
            "one line of 262,144, 64k in turn",
            tcp.requests(65_536, ACK)?,
            Bare::Line,
        ),
        bare(
            "one line of 262,144 added to, 64k in turn",
            tcp.requests(65_536, ACK)?,
            Bare::LineCounted,
        ),
        bare(
            "one line of 262,144 after another, 64k in turn",
            tcp.requests(65_536, ACK)?,
            Bare::LineFollowed,
        ),
    ];
    Ok(Group {
        name: "the floors".into(),
        scene: Scene::Default,
        prepare: Prepare::NoFlows,
        cases,
    })
}

/// Name of the case that goals scale with.
pub(crate) const HOT_HASH: &str = "hot hash lookup";

/// Packets between hosts that are not ours, from many sources.
pub(crate) fn strangers(source: &str, destination: &str) -> Result<Traffic> {
    let packet = Packet::tcp(source, 40_000, destination, 443, ACK);
    let parts = [(Part::Source, 0, u32::MAX)];
    Traffic::new(&packet, Ingress::Front, 65_536, &parts)
}

fn foreign() -> Result<Group> {
    let passed = |name: &str, traffic| {
        case(name.into(), traffic, Bare::ParsePass, Verdict::PassForeign).goal(10.0)
    };
    let cases = vec![
        passed("foreign, passed, v4", strangers("10.64.0.0", "192.0.2.1")?),
        passed(
            "foreign, passed, v6",
            strangers("2001:db8:77::", "2001:db8:200::1")?,
        ),
    ];
    Ok(Group {
        name: "foreign traffic".into(),
        scene: Scene::Default,
        prepare: Prepare::NoFlows,
        cases,
    })
}

pub(crate) fn count(flows: u32) -> String {
    match flows {
        1 => "1 flow".into(),
        _ if flows < 1024 => format!("{flows} flows"),
        _ => format!("{}k flows", flows / 1024),
    }
}

/// Requests and replies of established flows, as many as there are and fewer.
fn known_flows(flows: Population) -> Result<Group> {
    let protocol = if flows.udp { "UDP" } else { "TCP" };
    let family = if flows.v6 { "v6" } else { "v4" };
    let large = flows.flows > 65_536;
    // UDP, IPv6 and replies may cost a fifth more.
    let goal = |many: u32, reply: bool| {
        let plain = match many {
            1 => 50.0,
            65_536 => 80.0,
            524_288 => 140.0,
            _ => return None,
        };
        let more = flows.udp || flows.v6 || reply;
        Some(if more { plain * 1.2 } else { plain })
    };
    let numbers: &[u32] = if large {
        &[524_288]
    } else {
        &[1, 1024, 65_536]
    };
    let mut cases = Vec::new();
    for many in numbers {
        let name = format!("{protocol} {family}, {}", count(*many));
        let traffic = flows.requests(*many, ACK)?;
        let mut requests = case(name, traffic, Bare::Transmit, Verdict::ForwardRequest);
        requests.goal = goal(*many, false);
        cases.push(requests);
        if *many == 1024 {
            continue;
        }
        let name = format!("{protocol} {family} reply, {}", count(*many));
        let traffic = flows.replies(*many, ACK)?;
        let mut replies = case(name, traffic, Bare::Transmit, Verdict::ForwardReply);
        replies.goal = goal(*many, true);
        cases.push(replies);
    }
    if large && !flows.v6 && !flows.udp {
        let traffic = flows.requests(524_288, ACK)?;
        let lines = [
            ("one line of 2,097,152, 512k in turn", Bare::Line),
            (
                "one line of 2,097,152 added to, 512k in turn",
                Bare::LineCounted,
            ),
            (
                "one line of 2,097,152 after another, 512k in turn",
                Bare::LineFollowed,
            ),
        ];
        let lines = lines.map(|(name, program)| bare(name, traffic.clone(), program));
        cases.splice(0..0, lines);
    }
    Ok(Group {
        name: format!("{} {protocol} {family}", count(flows.flows)),
        scene: if large { Scene::Large } else { Scene::Default },
        prepare: Prepare::Flows(flows),
        cases,
    })
}

/// A new flow with each packet: clients with ports of their own, and clients that all have the
/// same port, so that nearly every flow must be given another one.
fn new_flows() -> Result<Vec<Group>> {
    let spread = [(Part::SourcePort, 0, 0x7fff), (Part::Source, 15, u32::MAX)];
    let same = [(Part::Source, 0, u32::MAX)];
    let syn = |source: &str, vip: &str| Packet::tcp(source, 16_384, vip, 80, SYN);
    let v4 = syn("10.64.0.0", NEW_FLOWS);
    let v6 = syn("2001:db8:77::", NEW_FLOWS6);
    let rows = [
        (
            "TCP v4, a new flow each packet",
            &v4,
            &spread[..],
            Some(250.0),
        ),
        (
            "TCP v6, a new flow each packet",
            &v6,
            &spread[..],
            Some(300.0),
        ),
        ("TCP v4, a new flow, port taken", &v4, &same[..], None),
    ];
    let mut groups = Vec::new();
    for (name, packet, parts, goal) in rows {
        let traffic = Traffic::new(packet, Ingress::Front, 1 << 22, parts)?;
        let mut new = case(
            name.into(),
            traffic,
            Bare::Transmit,
            Verdict::ForwardRequest,
        )
        .new_flows();
        new.goal = goal;
        groups.push(Group {
            name: name.into(),
            scene: Scene::Default,
            prepare: Prepare::NoFlows,
            cases: vec![new],
        });
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_goals_are_the_issues() -> Result<()> {
        let groups = all()?;
        let cases: Vec<&Case> = groups.iter().flat_map(|group| &group.cases).collect();
        let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for (name, goal) in [
            ("TCP v4, 1 flow", Some(50.0)),
            ("TCP v4 reply, 1 flow", Some(60.0)),
            ("TCP v4, 64k flows", Some(80.0)),
            ("UDP v6, 512k flows", Some(168.0)),
            ("TCP v4, 1k flows", None),
            ("blocked, dropped, 10 prefixes", Some(15.0)),
            ("blocked, dropped, 1000000 prefixes", Some(30.0)),
        ] {
            let case = cases.iter().find(|case| case.name == name);
            assert_eq!(case.map(|case| case.goal), Some(goal), "{name}");
        }
        Ok(())
    }
}
