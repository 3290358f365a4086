//! The real Consul, with as many instances as it takes in within seconds.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    agent::{Agent, Setup},
    consul::{Consul, Registration},
    topology::Topology,
};

use crate::{catalog, kernel::Maps};

/// Services, and instances of each.
pub(crate) const SERVICES: usize = 20;
/// See [`SERVICES`].
pub(crate) const INSTANCES: usize = 5;

const PATIENCE: Duration = Duration::from_secs(60);

/// A node whose agent follows a Consul server.
pub(crate) struct RealConsul {
    _agent: Agent,
    maps: Maps,
    consul: Consul,
    _topology: Topology,
    turn: std::cell::Cell<usize>,
}

impl RealConsul {
    pub(crate) fn new() -> Result<Self> {
        let topology = Topology::new(1)?;
        let consul = Consul::start(topology.node(), topology.directory())?;
        let mut config = String::from("[consul]\naddress = \"http://127.0.0.1:8500\"\n\n");
        let host = topology.backend_address(1).ip();
        for service in 0..SERVICES {
            let (name, vip) = (catalog::name(service), catalog::vip(service));
            config += &format!(
                "[[service]]\nname = \"{name}\"\nvip = [\"{vip}\"]\nconsul = {{ service = \"{name}\" }}\n\n"
            );
            for instance in 0..INSTANCES {
                let port = (20_000 + service * INSTANCES + instance) as u16;
                consul.register(Registration {
                    service: &name,
                    id: &format!("{name}-{instance}"),
                    address: (host, port).into(),
                    tags: &[],
                    meta: &[],
                    weights: (1, 1),
                })?;
            }
        }
        let agent = Setup::new(&topology).config(&config).start()?;
        let maps = Maps::open(agent.pins())?.context("the agent has pinned no maps")?;
        let real = Self {
            _agent: agent,
            maps,
            consul,
            _topology: topology,
            turn: std::cell::Cell::new(0),
        };
        let deadline = Instant::now() + PATIENCE;
        for service in 0..SERVICES {
            while real.maps.service(service)?.is_none() {
                ensure!(
                    Instant::now() < deadline,
                    "the agent does not follow Consul"
                );
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(real)
    }

    /// An instance goes into maintenance or comes out of it: from the request to Consul until the
    /// kernel has another table.
    pub(crate) fn change(&self) -> Result<Duration> {
        let turn = self.turn.replace(self.turn.get() + 1);
        let service = turn / 2 % SERVICES;
        let id = self.maps.service(service)?.context("no such service")?.id;
        let former = self.maps.table(id)?;
        let begun = Instant::now();
        let instance = format!("{}-0", catalog::name(service));
        self.consul
            .set_maintenance(&instance, turn.is_multiple_of(2))?;
        while self.maps.table(id)? == former {
            ensure!(
                begun.elapsed() < PATIENCE,
                "the agent does not follow Consul"
            );
            thread::sleep(Duration::from_micros(100));
        }
        let took = begun.elapsed();
        thread::sleep(Duration::from_millis(60));
        Ok(took)
    }
}
