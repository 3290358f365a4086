//! The flows there are: which ones are asked for, in which order, and how many.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use lb_common::flow::State;

use super::kernel::KernelError;

/// A flow as its forward half tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IANA protocol number.
    pub protocol: u8,
    /// Who opened it.
    pub client: SocketAddr,
    /// Where the client sends to.
    pub vip: SocketAddr,
    /// What the backend sees as the client.
    pub source: SocketAddr,
    /// Where its packets go.
    pub backend: SocketAddr,
    /// Id of the backend.
    pub backend_id: u32,
    /// Where it is in its life.
    pub state: State,
    /// How long ago a packet was last noted.
    pub idle: Duration,
}

/// States that a flow can be in.
pub const FLOW_STATES: [State; 8] = [
    State::HalfOpen,
    State::Answered,
    State::Established,
    State::ClosingByClient,
    State::ClosingByBackend,
    State::Finished,
    State::Reset,
    State::Refused,
];

/// Which flows are asked for. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// To one of these backends.
    pub backend_ids: Option<BTreeSet<u32>>,
    /// To this address, and this port unless it is left out.
    pub backend: Option<(IpAddr, Option<u16>)>,
    /// From here.
    pub client: Option<IpNet>,
    /// In this state.
    pub state: Option<State>,
    /// IANA protocol number.
    pub protocol: Option<u8>,
}

impl FlowFilter {
    /// Whether the flow is asked for.
    pub fn wants(&self, flow: &Flow) -> bool {
        self.state.is_none_or(|state| flow.state == state)
            && self
                .protocol
                .is_none_or(|protocol| flow.protocol == protocol)
            && self
                .client
                .is_none_or(|net| net.contains(&flow.client.ip()))
            && self.backend.is_none_or(|(ip, port)| {
                flow.backend.ip() == ip && port.is_none_or(|port| flow.backend.port() == port)
            })
            && self
                .backend_ids
                .as_ref()
                .is_none_or(|ids| ids.contains(&flow.backend_id))
    }
}

/// In which order flows are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowOrder {
    /// Client first, then VIP.
    Client,
    /// Backend first, then client.
    Backend,
    /// State first, then client.
    State,
    /// Shortest idle first.
    Active,
    /// Longest idle first.
    Idle,
}

impl FlowOrder {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Client,
        Self::Backend,
        Self::State,
        Self::Active,
        Self::Idle,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::State => "state",
            Self::Active => "active",
            Self::Idle => "idle",
        }
    }

    fn compare(self, a: &Flow, b: &Flow) -> Ordering {
        let rest = |flow: &Flow| (flow.client, flow.vip, flow.protocol, flow.source);
        match self {
            Self::Client => Ordering::Equal,
            Self::Backend => a.backend.cmp(&b.backend),
            Self::State => (a.state as u8).cmp(&(b.state as u8)),
            Self::Active => a.idle.cmp(&b.idle),
            Self::Idle => b.idle.cmp(&a.idle),
        }
        .then_with(|| rest(a).cmp(&rest(b)))
    }
}

/// The first so many flows in some order, whatever the number that is offered.
pub struct FirstFlows {
    order: FlowOrder,
    most: usize,
    /// The last in order on top.
    heap: BinaryHeap<Ordered>,
    /// All that were offered.
    pub offered: u64,
}

struct Ordered(FlowOrder, Flow);

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.compare(&self.1, &other.1)
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ordered {}

impl FirstFlows {
    /// At most `most` flows.
    pub fn new(order: FlowOrder, most: usize) -> Self {
        Self {
            order,
            most,
            heap: BinaryHeap::new(),
            offered: 0,
        }
    }

    /// Takes one into account.
    pub fn offer(&mut self, flow: Flow) {
        self.offered += 1;
        let flow = Ordered(self.order, flow);
        if self.heap.len() < self.most {
            self.heap.push(flow);
        } else if let Some(mut last) = self.heap.peek_mut()
            && flow < *last
        {
            *last = flow;
        }
    }

    /// The first ones, in order.
    pub fn into_sorted(self) -> Vec<Flow> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|Ordered(_, flow)| flow).collect()
    }
}

/// Flows counted by backend, protocol and state.
#[derive(Debug, Default)]
pub struct FlowCounts(BTreeMap<(u32, u8, u8), u64>);

impl FlowCounts {
    /// Takes one into account.
    pub fn add(&mut self, flow: &Flow) {
        let key = (flow.backend_id, flow.protocol, flow.state as u8);
        *self.0.entry(key).or_default() += 1;
    }

    /// Backend id, protocol, state and number of flows.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u8, State, u64)> + '_ {
        self.0
            .iter()
            .filter_map(|((backend, protocol, state), count)| {
                Some((*backend, *protocol, State::from_bits(*state)?, *count))
            })
    }
}

/// Reads the flow tables. Implemented by `datapath`, and by a fake for tests.
pub trait FlowReader: Send + Sync {
    /// Calls `see` for every live flow. Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    fn each(&self, see: &mut dyn FnMut(&Flow)) -> Result<(), KernelError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(client: u8, backend: u8, state: State, idle: u64) -> Flow {
        Flow {
            protocol: 6,
            client: ([10, 0, 0, client], 4000).into(),
            vip: ([198, 51, 100, 10], 80).into(),
            source: ([10, 1, 0, 1], 4000).into(),
            backend: ([10, 1, 0, backend], 8080).into(),
            backend_id: backend.into(),
            state,
            idle: Duration::from_secs(idle),
        }
    }

    fn flows() -> Vec<Flow> {
        vec![
            flow(3, 2, State::Established, 9),
            flow(1, 3, State::HalfOpen, 7),
            flow(4, 2, State::Reset, 1),
            flow(2, 3, State::Established, 3),
        ]
    }

    #[test]
    fn the_first_of_each_order() {
        let rows = [
            (FlowOrder::Client, [1, 2, 3]),
            (FlowOrder::Backend, [3, 4, 1]),
            (FlowOrder::State, [1, 2, 3]),
            (FlowOrder::Active, [4, 2, 1]),
            (FlowOrder::Idle, [3, 1, 2]),
        ];
        for (order, expected) in rows {
            let mut first = FirstFlows::new(order, 3);
            flows().into_iter().for_each(|flow| first.offer(flow));
            assert_eq!(first.offered, 4);
            let hosts: Vec<u8> = first
                .into_sorted()
                .iter()
                .map(|flow| match flow.client.ip() {
                    IpAddr::V4(ip) => ip.octets()[3],
                    IpAddr::V6(_) => 0,
                })
                .collect();
            assert_eq!(hosts, expected, "{order:?}");
        }
    }

    #[test]
    fn filters_and_counts() {
        let any = FlowFilter::default();
        let rows = [
            (any.clone(), 4),
            (
                FlowFilter {
                    state: Some(State::Established),
                    ..any.clone()
                },
                2,
            ),
            (
                FlowFilter {
                    backend_ids: Some([3].into()),
                    ..any.clone()
                },
                2,
            ),
            (
                FlowFilter {
                    backend_ids: Some([].into()),
                    ..any.clone()
                },
                0,
            ),
            (
                FlowFilter {
                    backend: Some(([10, 1, 0, 2].into(), None)),
                    ..any.clone()
                },
                2,
            ),
            (
                FlowFilter {
                    backend: Some(([10, 1, 0, 2].into(), Some(8080))),
                    ..any.clone()
                },
                2,
            ),
            (
                FlowFilter {
                    backend: Some(([10, 1, 0, 2].into(), Some(1))),
                    ..any.clone()
                },
                0,
            ),
            (
                FlowFilter {
                    client: Some("10.0.0.2/31".parse().unwrap()),
                    ..any.clone()
                },
                2,
            ),
            (
                FlowFilter {
                    client: Some("::/0".parse().unwrap()),
                    ..any.clone()
                },
                0,
            ),
            (
                FlowFilter {
                    protocol: Some(17),
                    ..any
                },
                0,
            ),
        ];
        for (filter, expected) in rows {
            let found = flows().iter().filter(|flow| filter.wants(flow)).count();
            assert_eq!(found, expected, "{filter:?}");
        }
        let mut counts = FlowCounts::default();
        flows()
            .iter()
            .chain(&flows())
            .for_each(|flow| counts.add(flow));
        let counted: Vec<_> = counts.iter().collect();
        assert_eq!(counted.len(), 4);
        assert_eq!(counted[0], (2, 6, State::Established, 2));
    }
}
