//! A world of its own on a thread of its own, so that worlds with tables of different sizes can
//! be measured in turn.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use ipnet::IpNet;
use lb_agent::domain::{
    kernel::{Kernel as _, KernelVip, Step, Treatment},
    service::Forwarding,
};
use lb_common::{flow::State, maps::DEFAULT_FLOW_SLOTS, verdict::Verdict};
use lb_tests::{
    bench::{Bare, Driver, Ingress, Traffic, block_rule, block_rule6},
    packet::{ACK, SYN},
    world::World,
};

use crate::{
    cases::{NEW_FLOWS, NEW_FLOWS6, Prepare},
    population::{Population, VIPS},
};

/// Packets before each measurement, as many as bring the flows to mind; at most.
const WARM_UP: u32 = 524_288;
/// Share of the packets that must end as the case says. Not all: where a table is half full, a
/// few in a thousand flows find the place for the client's own port taken and get another port,
/// and the replies made here miss them.
const AS_EXPECTED: f64 = 0.99;

/// What kind of world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// With flow tables of the default size.
    Default,
    /// With tables that half a million flows fill by half.
    Large,
    /// With a block list.
    Blocks,
    /// With one that takes seconds to load.
    LongList,
    /// Whose backends answer clients themselves.
    ServerReturn(Forwarding),
}

impl Scene {
    fn slots(self) -> u32 {
        match self {
            Scene::Default | Scene::Blocks | Scene::LongList | Scene::ServerReturn(_) => {
                DEFAULT_FLOW_SLOTS
            }
            Scene::Large => DEFAULT_FLOW_SLOTS * 8,
        }
    }
}

type Job = Box<dyn FnOnce(&mut Bench<'_>) + Send>;

/// The thread that a world lives on.
pub(crate) struct Stage {
    /// What kind of world.
    pub(crate) scene: Scene,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Stage {
    /// Makes the world, its services, and loads the driver.
    pub(crate) fn start(scene: Scene, driver: &[u8]) -> Result<Self> {
        let (jobs, todo) = channel();
        let (ready, started) = channel();
        let driver = driver.to_vec();
        let thread = thread::spawn(move || {
            let options = |options: &mut lb_agent::datapath::Options| {
                options.flow_slots = scene.slots();
                // Nearly all there are, so that clients' ports are kept.
                options.ports = (1024, 65_535);
            };
            let begun = ready.clone();
            let lived = World::with_options(options, move |world| {
                Bench::new(world, scene, &driver).map(|mut bench| {
                    // The starter waits.
                    let _ = begun.send(Ok(()));
                    bench.work(todo);
                })
            });
            if let Err(error) = lived.and_then(|lived| lived) {
                let _ = ready.send(Err(error));
            }
        });
        started
            .recv()
            .context("the world's thread ended")?
            .with_context(|| format!("setting up the world {scene:?}"))?;
        Ok(Self {
            scene,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Has something done there and waits for the answer.
    pub(crate) fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Bench<'_>) -> R + Send + 'static,
    ) -> Result<R> {
        let (answer, answered) = channel();
        let job: Job = Box::new(move |bench| {
            // The caller waits.
            let _ = answer.send(job(bench));
        });
        let jobs = self.jobs.as_ref().context("the stage is closed")?;
        jobs.send(job)
            .map_err(|_| anyhow!("the world's thread ended"))?;
        answered.recv().context("the world's thread ended")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // No more jobs: the thread ends and takes its world away.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was an error here already.
            let _ = thread.join();
        }
    }
}

/// A world and the driver, on the stage's thread.
pub(crate) struct Bench<'w> {
    world: &'w mut World,
    driver: Driver,
    /// Ids of all backends.
    backends: Vec<u32>,
    /// How many rules of [`block_rule`] are on the block list, and of [`block_rule6`].
    blocked: u32,
}

impl<'w> Bench<'w> {
    fn new(world: &'w mut World, scene: Scene, driver: &[u8]) -> Result<Self> {
        let mut backends = Vec::new();
        let mut id = 0;
        for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
            let flows = Population { v6, udp, flows: 1 };
            for number in 0..VIPS {
                let vip = service_address(&flows.vip(number), flows.vip_port());
                world.service(id, &vip, flows.protocol(), &[&flows.backend(number)])?;
                backends.push(id * 16);
                id += 1;
            }
        }
        for (v6, vip) in [(false, NEW_FLOWS), (true, NEW_FLOWS6)] {
            let flows = Population {
                v6,
                udp: false,
                flows: 1,
            };
            let addresses: Vec<String> = (0..8).map(|number| flows.backend(number)).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            let vip = service_address(vip, flows.vip_port());
            world.service(id, &vip, flows.protocol(), &addresses)?;
            backends.extend(id * 16..id * 16 + 8);
            id += 1;
        }
        if let Scene::ServerReturn(forwarding) = scene {
            let treatment = Treatment {
                forwarding,
                ..Treatment::default()
            };
            let vips = world.datapath.adopt()?.vips.into_iter();
            let treated = vips.map(|(key, vip)| Step::PutVip(key, KernelVip { treatment, ..vip }));
            world.apply(&treated.collect::<Vec<_>>())?;
        }
        Ok(Self {
            world,
            driver: Driver::load(driver, scene.slots())?,
            backends,
            blocked: 0,
        })
    }

    fn work(&mut self, todo: Receiver<Job>) {
        for job in todo {
            job(self);
        }
    }

    /// Makes what the cases of a group find.
    pub(crate) fn prepare(&mut self, prepare: &Prepare) -> Result<()> {
        let everybody: [IpNet; 2] = ["0.0.0.0/0".parse()?, "::/0".parse()?];
        self.world.datapath.cut_clients(&everybody)?;
        match prepare {
            Prepare::NoFlows => {}
            Prepare::Flows(flows) => self.establish(*flows)?,
            Prepare::FlowsAlone(flows) => self.establish_alone(*flows)?,
            Prepare::Blocks(count) => {
                let rules = |numbers: std::ops::Range<u32>| -> Result<Vec<IpNet>> {
                    let v6 = numbers.clone().map(block_rule6);
                    numbers.map(block_rule).chain(v6).collect()
                };
                let more = rules(self.blocked..*count)?;
                self.world.datapath.block(&more)?;
                let less = rules(*count..self.blocked)?;
                self.world.datapath.unblock(&less)?;
                self.blocked = *count;
                self.establish(Population {
                    v6: false,
                    udp: false,
                    flows: 1024,
                })?;
            }
        }
        Ok(())
    }

    /// Has every flow of a population opened by its packets, to the established state. The first
    /// packet is flow 0's, which finds an empty table and is surely let in: cases with one flow are
    /// about that one, and of the last ones a few in a thousand find no place or another port.
    fn establish(&mut self, flows: Population) -> Result<()> {
        let all = flows.flows;
        self.driver.rewind()?;
        self.send(&flows.requests(all, SYN)?, all)?;
        self.send(&flows.replies(all, SYN | ACK)?, all)?;
        self.send(&flows.requests(all, ACK)?, all)?;
        let census = self.world.datapath.sweep()?;
        let used = if flows.v6 { census.used6 } else { census.used4 };
        let established = used[State::Established as usize];
        ensure!(
            established as f64 >= 2.0 * f64::from(all) * AS_EXPECTED,
            "{established} established halves after opening {all} flows: {used:?}"
        );
        Ok(())
    }

    /// The same where no answer comes by.
    fn establish_alone(&mut self, flows: Population) -> Result<()> {
        let all = flows.flows;
        self.driver.rewind()?;
        self.send(&flows.requests(all, SYN)?, all)?;
        self.send(&flows.requests(all, ACK)?, all)?;
        let census = self.world.datapath.sweep()?;
        let used = if flows.v6 { census.used6 } else { census.used4 };
        let established = used[State::Established as usize];
        ensure!(
            established as f64 >= f64::from(all) * AS_EXPECTED
                && used.iter().sum::<u64>() <= u64::from(all),
            "{established} established flows after opening {all}: {used:?}"
        );
        Ok(())
    }

    fn ifindex(&self, ingress: Ingress) -> u32 {
        match ingress {
            Ingress::Front => self.world.front,
            Ingress::Back => self.world.back,
        }
    }

    fn send(&mut self, traffic: &Traffic, packets: u32) -> Result<f64> {
        let program = self.world.datapath.program_fd()?.try_clone()?;
        let ifindex = self.ifindex(traffic.ingress);
        self.driver.run(&program, traffic, ifindex, packets)
    }

    /// Nanoseconds a packet of a bare program.
    pub(crate) fn bare(&mut self, traffic: &Traffic, bare: Bare, packets: u32) -> Result<f64> {
        let program = self.driver.bare(bare)?;
        let ifindex = self.ifindex(traffic.ingress);
        let warm_up = warm_up(traffic);
        self.driver.run(&program, traffic, ifindex, warm_up)?;
        self.driver.run(&program, traffic, ifindex, packets)
    }

    /// Nanoseconds a packet of the agent's program, after making sure that the packets' way ends
    /// as the case says.
    pub(crate) fn agent(&mut self, traffic: &Traffic, packets: u32, expect: Expect) -> Result<f64> {
        if !expect.new_flows {
            self.send(traffic, warm_up(traffic))?;
        }
        let before = (self.world.datapath.verdicts()?, self.created()?);
        let cost = self.send(traffic, packets)?;
        let after = (self.world.datapath.verdicts()?, self.created()?);
        let ended: Vec<(Verdict, u64)> = Verdict::ALL
            .iter()
            .zip(before.0.iter().zip(&after.0))
            .map(|(verdict, (before, after))| (*verdict, after.packets - before.packets))
            .filter(|(_, count)| *count > 0)
            .collect();
        let right = ended
            .iter()
            .find(|(verdict, _)| *verdict == expect.verdict)
            .map_or(0, |(_, count)| *count);
        let least = f64::from(packets) * AS_EXPECTED;
        ensure!(
            right as f64 >= least,
            "of {packets} packets only {right} ended as {:?}: {ended:?}",
            expect.verdict
        );
        let created = after.1 - before.1;
        let as_many = if expect.new_flows {
            created as f64 >= least
        } else {
            created as f64 <= f64::from(packets) - least
        };
        ensure!(as_many, "{packets} packets made {created} new flows");
        Ok(cost)
    }

    /// Flows created so far.
    fn created(&self) -> Result<u64> {
        let mut created = 0;
        for id in &self.backends {
            created += self.world.datapath.backend_stats(*id)?.flows;
        }
        Ok(created)
    }
}

/// What must become of a case's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expect {
    /// How their way ends.
    pub(crate) verdict: Verdict,
    /// Each makes a new flow; otherwise none does.
    pub(crate) new_flows: bool,
}

fn warm_up(traffic: &Traffic) -> u32 {
    traffic.flows().saturating_mul(2).clamp(2048, WARM_UP)
}

fn service_address(vip: &str, port: u16) -> String {
    if vip.contains(':') {
        format!("[{vip}]:{port}")
    } else {
        format!("{vip}:{port}")
    }
}
