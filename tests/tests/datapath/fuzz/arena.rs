//! A world and the model side by side: what is done to one is done to the other, and after
//! each frame both must say the same.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use lb_agent::domain::kernel::{Kernel as _, KernelBackend, Step};
use lb_common::{
    entry::Meta,
    flow::Lifetimes,
    verdict::{Action, VERDICT_COUNT, Verdict},
};
use lb_tests::{
    direct::Direct,
    model::{Model, fault::Fault},
    unpinned::Fragments,
    world::{PORTS, World},
};

use super::ways::{self, Change};
use crate::{memory, row::Side, traffic::ip};

/// Idle times of which no multiple of [`AGE`] comes close: real time goes on between two steps.
pub(crate) const LIFETIMES: Lifetimes = Lifetimes {
    tcp_half_open: 19,
    tcp_established: 7441,
    tcp_closing: 241,
    tcp_finished: 61,
    udp_half_open: 31,
    udp_established: 301,
};
/// Seconds that a flow without an answer is safe, no such multiple either.
pub(crate) const GRACE: u64 = 10;
/// Seconds that time is advanced by at least.
pub(crate) const AGE: u64 = 4;
/// How long the kernel's clock may go on before a flow could look a second older than it is.
const PATIENCE: Duration = Duration::from_millis(700);
/// Ids of the backends that only keep next hops resolved.
const ANCHORS: u32 = 200_000;
/// ICMP errors of the node's own after which every processor may make as many again; fewer than
/// it may make at once.
const ANSWERS: u32 = 40;
/// Seconds after which a first fragment is forgotten: long after it has lost its meaning.
const FORGOTTEN: u64 = 300;
/// Host number of the backend that nobody answers for.
pub(crate) const UNRESOLVED: u8 = 50;

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Frame(Side, Vec<u8>),
    Steps(Vec<Step>),
    Block(IpNet),
    Unblock(IpNet),
    Cut(Vec<IpNet>),
    /// Time goes on by this many seconds.
    Age(u64),
    Sweep,
    /// The half in this slot or the next is lost.
    Lose(bool, usize),
    /// The agent is started anew with a range of ports.
    Reopen((u16, u16)),
    /// Something is reached in another way.
    Change(Change),
}

/// Why a run ended early.
#[derive(Debug)]
pub(crate) enum Halt {
    /// World and model differ.
    Difference(String),
    /// The machine stood still for so long that times no longer are what was meant.
    Paused,
}

pub(crate) struct Arena<'a> {
    pub(super) world: &'a mut World,
    pub(super) direct: Direct,
    pub(crate) model: Model,
    fault: Option<Fault>,
    synced: Instant,
    /// ICMP errors of the node's own since the budget was full.
    answers: u32,
    /// Frames compared.
    pub(crate) frames: u64,
    /// The same by verdict.
    pub(crate) verdicts: [u64; VERDICT_COUNT as usize],
}

/// Addresses that backends may have.
fn addresses() -> impl Iterator<Item = IpAddr> {
    let hosts = (2..=9).chain([UNRESOLVED]);
    hosts.flat_map(|host| [format!("10.99.1.{host}"), format!("fd99:1::{host}")].map(|a| ip(&a)))
}

/// Id of the anchor with this address.
pub(super) fn anchor(address: IpAddr) -> u32 {
    let position = addresses().position(|each| each == address);
    ANCHORS + position.expect("an address of a backend") as u32
}

fn anchors() -> Vec<Step> {
    (ANCHORS..)
        .zip(addresses())
        .map(|(id, address)| {
            let backend = KernelBackend {
                service: 16_000,
                address: SocketAddr::new(address, 9),
                active: false,
            };
            Step::PutBackend(id, backend)
        })
        .collect()
}

impl<'a> Arena<'a> {
    /// Puts the model beside a world whose hash has this seed.
    pub(crate) fn new(world: &'a mut World, seed: u64, fault: Option<Fault>) -> Self {
        // First, for an agent that starts anew finds next hops by the backends there are.
        world.apply(&anchors()).expect("anchors");
        memory::change_meta(world, |meta| *meta = Meta { seed, ..*meta });
        world.reopen(|_| {}).expect("the world with another seed");
        ways::restore(world);
        let node = ways::node(world, seed);
        let direct = Direct::new(world).expect("the program");
        let mut model = Model::new(node);
        model.fault = fault;
        model.apply(&anchors());
        Self {
            world,
            direct,
            model,
            fault,
            synced: Instant::now(),
            answers: ANSWERS,
            frames: 0,
            verdicts: [0; VERDICT_COUNT as usize],
        }
    }

    /// Puts the right rule in the wrong one's place, from the next case on.
    pub(crate) fn correct(&mut self) {
        self.fault = None;
    }

    /// Brings world and model back to where they began.
    pub(crate) fn reset(&mut self) {
        let there = &self.model.destinations;
        let mut steps: Vec<Step> = there.vips.keys().map(|key| Step::DeleteVip(*key)).collect();
        steps.extend(there.tables.keys().map(|id| Step::DeleteTable(*id)));
        let restricted = there.sources.keys();
        steps.extend(restricted.map(|id| Step::PutSources(*id, BTreeSet::new())));
        // Those that were freed have counted on, if they had flows.
        let ids = there.backends.keys().chain(there.stats.keys());
        let ids: BTreeSet<u32> = ids.copied().filter(|id| *id < ANCHORS).collect();
        steps.extend(ids.into_iter().map(Step::FreeBackend));
        let blocks: Vec<IpNet> = there.blocks.keys().copied().collect();
        self.world.apply(&steps).expect("steps");
        self.world.datapath.unblock(&blocks).expect("unblocked");
        self.direct.clear();
        self.direct.unpinned.forget().expect("no fragments");
        if self.model.node.ports != PORTS {
            self.reopen(PORTS);
        }
        ways::restore(self.world);
        self.model = Model::new(ways::node(self.world, self.model.node.seed));
        self.model.fault = self.fault;
        self.model.apply(&anchors());
        self.sync();
    }

    fn reopen(&mut self, ports: (u16, u16)) {
        self.world
            .reopen(|options| {
                options.ports = ports;
                options.interfaces.reverse();
            })
            .expect("the agent anew");
        self.world.apply(&[]).expect("the filter");
        self.direct = Direct::new(self.world).expect("the program");
    }

    /// Sets every half's time to what the model says, as of now.
    fn sync(&mut self) {
        let flows = self.world.datapath.flows();
        let (now, rate) = (flows.now().wrapping_sub(2), flows.ticks_per_second());
        for v6 in [false, true] {
            for (slot, half) in self.model.tables[usize::from(v6)].halves() {
                let age = (self.model.now - half.seen) as u32 * rate;
                self.direct.set_seen(v6, slot, now.wrapping_sub(age));
            }
        }
        let age = |seen| (self.model.now - seen) as u32 * rate;
        for (of, first) in &self.model.fragments {
            let fragments = Fragments {
                src: of.src,
                dst: of.dst,
                id: of.id,
                proto: of.proto.unwrap_or(0),
            };
            let seen = now.wrapping_sub(age(first.seen));
            let set = self.direct.unpinned.set_seen(&fragments, seen);
            // What a wrong rule remembers need not be there.
            assert!(set.is_ok() || self.fault.is_some(), "{of:?}: {set:?}");
        }
        let forgotten = self.model.now.saturating_sub(FORGOTTEN);
        self.model
            .fragments
            .retain(|_, first| first.seen >= forgotten);
        self.synced = Instant::now();
    }

    /// Lets something happen to both.
    pub(crate) fn play(&mut self, event: &Event) -> Result<(), Halt> {
        if self.synced.elapsed() > PATIENCE / 2 {
            if self.synced.elapsed() > PATIENCE {
                // Nothing has happened since the last event: times can still be mended.
                self.synced = Instant::now();
            }
            self.sync();
        }
        match event {
            Event::Frame(side, frame) => return self.frame(*side, frame),
            Event::Steps(steps) => {
                let vips = &self.model.destinations.vips;
                let steps: Vec<Step> = steps
                    .iter()
                    .filter(|step| !matches!(step, Step::DeleteVip(key) if !vips.contains_key(key)))
                    .cloned()
                    .collect();
                self.world.apply(&steps).expect("steps");
                self.model.apply(&steps);
            }
            Event::Block(prefix) => {
                self.world.datapath.block(&[*prefix]).expect("blocked");
                self.model.block(*prefix);
            }
            Event::Unblock(prefix) => {
                self.world.datapath.unblock(&[*prefix]).expect("unblocked");
                self.model.unblock(*prefix);
            }
            Event::Cut(prefixes) => {
                self.world.datapath.cut_clients(prefixes).expect("cut");
                self.model.cut_clients(prefixes);
            }
            Event::Age(seconds) => {
                self.model.now += seconds;
                self.sync();
            }
            Event::Sweep => {
                self.sync();
                self.world.datapath.flows().sweep().expect("a sweep");
                self.model.sweep();
            }
            Event::Lose(v6, from) => {
                let slots = (*from..self.direct.slots())
                    .find(|slot| self.direct.held(*v6, *slot).is_some());
                let table = self.model.table(*v6);
                if let Some(slot) = slots
                    && let Some(key) = table.at(slot).map(|half| half.key)
                {
                    self.direct.free(*v6, slot);
                    table.remove(&key);
                }
            }
            Event::Change(change) => ways::change(self.world, &mut self.model, change),
            Event::Reopen(ports) => {
                self.reopen(*ports);
                self.model.reopen(*ports);
                self.sync();
            }
        }
        self.compare_tables()
    }

    fn frame(&mut self, side: Side, frame: &[u8]) -> Result<(), Halt> {
        let ifindex = match side {
            Side::Front => self.world.front,
            Side::Back => self.world.back,
        };
        self.frames += 1;
        if self.answers >= ANSWERS {
            self.direct.unpinned.refill().expect("a full budget");
            self.answers = 0;
        }
        let expected = self.model.receive(frame, ifindex);
        let outcome = self.direct.run(frame, ifindex);
        let outcome = outcome.map_err(|error| Halt::Difference(format!("{error:#}")))?;
        let same_frame = match &expected.frame {
            Some(expected) => expected.is(outcome.frame),
            None => outcome.frame == frame,
        };
        self.verdicts[outcome.verdict as usize] += 1;
        if outcome.verdict.action() == Action::Answer && outcome.verdict != Verdict::AnswerEcho {
            self.answers += 1;
        }
        let same = (expected.verdict, expected.action) == (outcome.verdict, outcome.action);
        if self.synced.elapsed() > PATIENCE {
            return Err(Halt::Paused);
        }
        if same && same_frame {
            return Ok(());
        }
        let out = expected
            .frame
            .map_or(frame.to_vec(), |expected| expected.bytes);
        Err(Halt::Difference(format!(
            "model:    {:?}, action {}, {}\nprograms: {:?}, action {}, {}",
            expected.verdict,
            expected.action,
            hex(&out),
            outcome.verdict,
            outcome.action,
            hex(outcome.frame)
        )))
    }
}

/// A frame to be pasted into a dissector.
pub(crate) fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}
