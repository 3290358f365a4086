//! Packets and flows without a kernel: while somebody watches there is a packet at each look, and
//! there always are the same flows.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use lb_agent::{
    api,
    controller::{Handle, Names},
    domain::{
        flow::{Flow, FlowReader},
        kernel::KernelError,
        trace::{Ends, PacketEvent, PacketFilter, SlotCounts, Tap},
    },
    watch::MOST_WATCHERS,
};
use lb_common::{flow::State, verdict::Verdict};

/// The controller, beside packets and flows of our own.
pub(crate) fn sources(controller: Handle) -> api::Sources {
    let (watch, watching) = lb_agent::watch::channel(FakeTap::default(), Arc::default());
    tokio::spawn(watching.run(std::future::pending()));
    api::Sources {
        controller,
        watch,
        flows: Arc::new(FakeFlows),
        keys: None,
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Backend 7 belongs to `echo`.
pub(crate) fn names() -> Names {
    let backend = ("echo".to_owned(), address("10.1.0.2:8080"));
    Names {
        backends: BTreeMap::from([(7, backend)]),
    }
}

/// Flows that [`FakeFlows`] has.
pub(crate) const FLOWS: u16 = 250;

/// Flows of clients with the ports from 1000 on; every tenth is half open.
pub(crate) struct FakeFlows;

impl FlowReader for FakeFlows {
    fn each(&self, see: &mut dyn FnMut(&Flow)) -> Result<(), KernelError> {
        for number in (0..FLOWS).rev() {
            see(&Flow {
                protocol: 6,
                client: ([192, 0, 2, 1], 1000 + number).into(),
                vip: address("198.51.100.10:80"),
                source: ([10, 1, 0, 1], 1000 + number).into(),
                backend: address("10.1.0.2:8080"),
                backend_id: 7,
                state: if number % 10 == 0 {
                    State::HalfOpen
                } else {
                    State::Established
                },
                idle: Duration::from_secs(number.into()),
            });
        }
        Ok(())
    }
}

/// A request and a blocked packet at each look.
#[derive(Default)]
pub(crate) struct FakeTap {
    filters: [Option<PacketFilter>; MOST_WATCHERS],
    lost: u64,
}

impl Tap for FakeTap {
    fn set(&mut self, slot: usize, filter: Option<&PacketFilter>) -> Result<(), KernelError> {
        self.filters[slot] = filter.cloned();
        Ok(())
    }

    fn switch(&mut self, _on: bool) -> Result<(), KernelError> {
        Ok(())
    }

    fn drain(&mut self, _most: usize, see: &mut dyn FnMut(PacketEvent)) -> usize {
        let request = PacketEvent {
            at: SystemTime::now(),
            verdict: Verdict::ForwardRequest,
            ingress: 1,
            length: 74,
            ethertype: 0x0800,
            protocol: Some(6),
            ends: Some(Ends {
                src: address("192.0.2.1:4000"),
                dst: address("198.51.100.10:80"),
            }),
            sent: Some(Ends {
                src: address("10.1.0.1:4000"),
                dst: address("10.1.0.2:8080"),
            }),
            backend: Some(7),
            has_ports: true,
            fragment: false,
            flags: 2,
            icmp: [0; 2],
            bytes: vec![0; 74],
        };
        let blocked = PacketEvent {
            verdict: Verdict::DropBlocked,
            sent: None,
            backend: None,
            ..request.clone()
        };
        self.lost += 1;
        let told = [request, blocked].into_iter().filter(|event| {
            let mut filters = self.filters.iter().flatten();
            filters.any(|filter| filter.wants(event))
        });
        told.map(see).count()
    }

    fn counts(&self) -> Result<Vec<SlotCounts>, KernelError> {
        let lost = SlotCounts {
            events: 0,
            lost: self.lost,
        };
        Ok(vec![lost; MOST_WATCHERS])
    }
}
