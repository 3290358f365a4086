//! A node with an agent that follows the stand-in, and what can be measured of it from outside.

use std::{
    fmt::Write as _,
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    agent::{Agent, Setup},
    link,
    topology::Topology,
};

use crate::{
    catalog::{self, Catalog},
    kernel::Maps,
    stand_in::StandIn,
};

/// How often the kernel's maps are looked at.
const LOOK: Duration = Duration::from_micros(100);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node in service.
pub(crate) struct Stand {
    // Ends before the rest goes.
    agent: Agent,
    maps: Maps,
    pub(crate) catalog: Arc<Catalog>,
    _stand_in: StandIn,
    _topology: Topology,
    /// From the agent's start to the last VIP in the kernel.
    pub(crate) start: Duration,
}

/// How long one change took.
pub(crate) struct Change {
    /// From the change in Consul.
    pub(crate) total: Duration,
    /// From Consul's answer.
    pub(crate) answered: Duration,
}

impl Stand {
    /// Starts an agent with so many services, and waits until the kernel has all of them.
    pub(crate) fn new(services: usize, backends: usize) -> Result<Self> {
        let catalog = Arc::new(Catalog::new(services, backends));
        let topology = Topology::new(1)?;
        let router = topology.backend_address(1).ip();
        link::route(topology.node(), "10.64.0.0/16".parse()?, router)?;
        let stand_in = StandIn::start(topology.node(), &catalog)?;
        let mut config = String::from("[consul]\naddress = \"http://127.0.0.1:8500\"\n\n");
        for number in 0..services {
            let (name, vip) = (catalog::name(number), catalog::vip(number));
            writeln!(
                config,
                "[[service]]\nname = \"{name}\"\nvip = [\"{vip}\"]\nconsul = {{ service = \"{name}\" }}\n"
            )?;
        }
        let begun = Instant::now();
        let agent = Setup::new(&topology).config(&config).start()?;
        let maps = Maps::open(agent.pins())?.context("the agent has pinned no maps")?;
        let mut stand = Self {
            agent,
            maps,
            catalog,
            _stand_in: stand_in,
            _topology: topology,
            start: Duration::ZERO,
        };
        stand.wait_until_full()?;
        stand.start = begun.elapsed();
        Ok(stand)
    }

    fn wait_until_full(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut missing = self.catalog.len();
        while missing > 0 {
            if self.maps.service(missing - 1)?.is_some() {
                missing -= 1;
                continue;
            }
            self.check(deadline, "all services in the kernel")?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn check(&self, deadline: Instant, what: &str) -> Result<()> {
        self.agent.process().ensure_running()?;
        let tail = || self.agent.process().tail();
        ensure!(
            Instant::now() < deadline,
            "gave up waiting for {what}; {}",
            tail()
        );
        Ok(())
    }

    fn table(&self, service: usize) -> Result<(u32, Option<u32>)> {
        let entry = self.maps.service(service)?;
        let id = entry.context("the kernel does not know the service")?.id;
        Ok((id, self.maps.table(id)?))
    }

    /// One instance falls ill or recovers; how long until the kernel has another table.
    pub(crate) fn change(&self, service: usize, instance: usize) -> Result<Change> {
        let (id, former) = self.table(service)?;
        let begun = Instant::now();
        let deadline = begun + PATIENCE;
        let index = self.catalog.toggle(service, instance);
        while self.maps.table(id)? == former {
            self.check(deadline, "a change in the kernel")?;
            thread::sleep(LOOK);
        }
        let seen = Instant::now();
        let answered = self.catalog.service(service).handed(index);
        let answered = answered.context("the kernel follows what was never answered")?;
        Ok(Change {
            total: seen - begun,
            answered: seen.saturating_duration_since(answered),
        })
    }

    /// One instance of every service falls ill or recovers; how long until the kernel has only
    /// other tables.
    pub(crate) fn change_all(&self, instance: usize) -> Result<Duration> {
        let services = 0..self.catalog.len();
        let former = services.map(|number| self.table(number));
        let mut former = former.collect::<Result<Vec<_>>>()?;
        let begun = Instant::now();
        for service in 0..self.catalog.len() {
            self.catalog.toggle(service, instance);
        }
        let deadline = begun + PATIENCE;
        while let Some((id, table)) = former.last() {
            if self.maps.table(*id)? == *table {
                self.check(deadline, "a change of all in the kernel")?;
                thread::sleep(LOOK);
            } else {
                former.pop();
            }
        }
        Ok(begun.elapsed())
    }

    /// So many changes a second, of one service after the other: the share of a processor that
    /// the agent takes meanwhile.
    pub(crate) fn churn(&self, rate: u32, time: Duration) -> Result<f64> {
        let (begun, before) = (Instant::now(), self.processor_time()?);
        for number in 0.. {
            let due = begun + Duration::from_secs(1) / rate * number;
            if due > begun + time {
                break;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // Each instance falls ill once and recovers once before the next one's turn.
            let number = number as usize;
            let service = number / 2 % self.catalog.len();
            self.catalog
                .toggle(service, number / 2 / self.catalog.len());
        }
        self.share(begun, before)
    }

    /// The same while nothing happens.
    pub(crate) fn idle(&self, time: Duration) -> Result<f64> {
        let (begun, before) = (Instant::now(), self.processor_time()?);
        thread::sleep(time);
        self.share(begun, before)
    }

    /// Percent of a processor since then.
    fn share(&self, begun: Instant, before: Duration) -> Result<f64> {
        let spent = self.processor_time()? - before;
        Ok(100.0 * spent.as_secs_f64() / begun.elapsed().as_secs_f64())
    }

    /// What the agent has had of processors (proc_pid_stat(5)).
    fn processor_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.agent.process().pid()))?;
        // The name before the state may hold anything, parentheses as well.
        let (_, rest) = stat
            .rsplit_once(") ")
            .context("no name in /proc/PID/stat")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // A tick is a hundredth of a second wherever /proc tells one (USER_HZ).
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident mebibytes: all of them, and the part that is the agent's own, not maps of the
    /// kernel's that it looks into or its program file.
    pub(crate) fn resident(&self) -> Result<(f64, f64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent.process().pid()))?;
        let mebibytes = |name: &str| -> Result<f64> {
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
            let line = line.with_context(|| format!("no {name} in /proc/PID/status"))?;
            Ok(line.trim().parse::<f64>()? / 1024.0)
        };
        Ok((mebibytes("VmRSS:")?, mebibytes("RssAnon:")?))
    }
}
