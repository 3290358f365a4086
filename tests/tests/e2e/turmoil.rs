//! Everything that may befall a service and its agent in a bad hour, drawn by chance from a deck, so
//! that each thing happens.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use lb_tests::{
    consul::{Consul, Registration},
    pace::at_this_pace,
    process::{Signal, wait_for},
};

use crate::scene::{PATIENCE, Scene, reply};

/// The health check of the service: how often, how long, and after how many failures a backend is
/// taken out.
pub(crate) const INTERVAL: Duration = Duration::from_millis(400);
pub(crate) const TIMEOUT: Duration = Duration::from_millis(400);
pub(crate) const FALL: u32 = 2;

/// How long a dead backend may go on being given connections while the agent runs: all probes that
/// it takes, none of which was under way, a tenth more for each pause, and the rest for a busy
/// machine.
pub(crate) fn detection() -> Duration {
    at_this_pace((INTERVAL * 11 / 10 + TIMEOUT) * FALL + Duration::from_secs(1))
}

/// One kind of mishap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mishap {
    /// A backend is drained by hand.
    Drain,
    /// A backend is deregistered.
    Deregister,
    /// A backend's health check fails, and nothing else does.
    Sicken,
    /// A backend's process is killed.
    Kill,
    /// So is the agent, before it can have noticed.
    KillBoth,
    /// A split is set by hand.
    Split,
    /// The configured split counts again.
    ResetSplit,
    /// An address is blocked, and one blocked before no longer is.
    Block,
    /// A list of blocks takes the place of the last.
    Import,
    /// The agent reads its configuration again, which has changed.
    Hangup,
    /// The agent ends and is started.
    Restart,
    /// The agent is killed and, after a while, started.
    KillAgent,
}

impl Mishap {
    /// All kinds.
    pub(crate) const ALL: &[Self] = &[
        Self::Drain,
        Self::Deregister,
        Self::Sicken,
        Self::Kill,
        Self::KillBoth,
        Self::Split,
        Self::ResetSplit,
        Self::Block,
        Self::Import,
        Self::Hangup,
        Self::Restart,
        Self::KillAgent,
    ];
}

/// From when to when a dead backend may have been given connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dying {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// What has been done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// How often, by kind.
    pub(crate) mishaps: BTreeMap<Mishap, u32>,
    /// How often backends came back, by what had taken them out.
    pub(crate) returns: BTreeMap<Mishap, u32>,
    /// When backends died.
    pub(crate) dyings: Vec<Dying>,
}

/// Numbers that look random and are the same in every run (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * n as u128) >> 64) as usize
    }
}

/// Who does it.
pub(crate) struct Turmoil<'a> {
    scene: &'a mut Scene,
    consul: &'a Consul,
    random: Random,
    /// Numbers of the backends that come and go, and what has taken them out.
    flappers: BTreeMap<u8, Option<Mishap>>,
    blocked: Vec<String>,
    /// Whether the configuration names a second service.
    second: bool,
    pub(crate) done: Done,
}

impl<'a> Turmoil<'a> {
    /// Backends with these numbers come and go.
    pub(crate) fn new(
        scene: &'a mut Scene,
        consul: &'a Consul,
        flappers: &[u8],
        seed: u64,
    ) -> Self {
        Self {
            scene,
            consul,
            random: Random(seed.max(1)),
            flappers: flappers.iter().map(|number| (*number, None)).collect(),
            blocked: Vec::new(),
            second: false,
            done: Done::default(),
        }
    }

    /// Lets things happen until the time is over and each kind has happened, then puts
    /// everything in order.
    pub(crate) fn rage(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut deck = Vec::new();
        while Instant::now() < end || self.done.mishaps.len() < Mishap::ALL.len() {
            if deck.is_empty() {
                deck = Mishap::ALL.to_vec();
            }
            let mishap = deck.swap_remove(self.random.below(deck.len()));
            self.bring_about(mishap);
            *self.done.mishaps.entry(mishap).or_default() += 1;
            if self.random.below(2) == 0 {
                self.bring_one_back();
            }
            thread::sleep(Duration::from_millis(self.random.below(100) as u64));
        }
        while self.bring_one_back() {}
        self.command(&["split", "reset", "echo"]);
    }

    fn bring_about(&mut self, mishap: Mishap) {
        match mishap {
            Mishap::Drain
            | Mishap::Deregister
            | Mishap::Sicken
            | Mishap::Kill
            | Mishap::KillBoth => self.take_out(mishap),
            Mishap::Split => {
                let share = self.random.below(11) * 10;
                let shares = [format!("v1={share}"), format!("v2={}", 100 - share)];
                self.command(&["split", "set", "echo", &shares[0], &shares[1]]);
            }
            Mishap::ResetSplit => self.command(&["split", "reset", "echo"]),
            Mishap::Block => self.block(),
            Mishap::Import => self.import(),
            Mishap::Hangup => self.hang_up(),
            Mishap::Restart => {
                self.scene.agent.stop().unwrap();
                self.start_agent();
            }
            Mishap::KillAgent => {
                self.scene.agent.kill9().unwrap();
                thread::sleep(Duration::from_millis(self.random.below(400) as u64));
                self.start_agent();
            }
        }
    }

    fn command(&self, args: &[&str]) {
        self.scene.agent.command(args).unwrap();
    }

    fn start_agent(&mut self) {
        self.scene.agent.restart().unwrap();
        let status = self.scene.agent.command(&["status"]).unwrap_or_else(|_| {
            // It may have something to say, which is no failure here.
            self.scene.agent.cli(&["status"]).unwrap().stdout
        });
        assert!(status.contains("to-client (native, adopted)"), "{status}");
    }

    /// Ids of a backend's instances in Consul.
    fn ids(number: u8) -> [String; 2] {
        [format!("b{number}"), format!("b{number}-6")]
    }

    fn take_out(&mut self, how: Mishap) {
        let up: Vec<u8> = self
            .flappers
            .iter()
            .filter(|(_, out)| out.is_none())
            .map(|(number, _)| *number)
            .collect();
        if up.is_empty() {
            self.bring_one_back();
            return self.take_out(how);
        }
        let number = up[self.random.below(up.len())];
        let index = usize::from(number) - 1;
        match how {
            Mishap::Drain => {
                for id in Self::ids(number) {
                    self.command(&["drain", "echo", &format!("lb-node/{id}")]);
                }
            }
            Mishap::Deregister => {
                for id in Self::ids(number) {
                    self.consul.deregister(&id).unwrap();
                }
            }
            Mishap::Sicken => {
                self.scene.backends[index].set_failing(true).unwrap();
                self.await_health(number, "unhealthy");
            }
            _ => {
                let from = Instant::now();
                self.scene.backends[index].process().kill().unwrap();
                let mut known = Instant::now();
                if how == Mishap::KillBoth {
                    self.scene.agent.kill9().unwrap();
                    self.start_agent();
                    known = Instant::now();
                }
                self.await_health(number, "unhealthy");
                let to = Instant::now();
                assert!(
                    to - known < detection(),
                    "b{number} was dead for {:?} and not found out",
                    to - known
                );
                self.done.dyings.push(Dying { from, to });
            }
        }
        self.flappers.insert(number, Some(how));
    }

    /// Whether there was one to bring back.
    fn bring_one_back(&mut self) -> bool {
        let out: Vec<(u8, Mishap)> = self
            .flappers
            .iter()
            .filter_map(|(number, out)| Some((*number, (*out)?)))
            .collect();
        if out.is_empty() {
            return false;
        }
        let (number, how) = out[self.random.below(out.len())];
        let index = usize::from(number) - 1;
        match how {
            Mishap::Drain => {
                for id in Self::ids(number) {
                    self.command(&["undrain", "echo", &format!("lb-node/{id}")]);
                }
            }
            Mishap::Deregister => register(self.consul, self.scene, number),
            Mishap::Sicken => self.scene.backends[index].set_failing(false).unwrap(),
            _ => self.scene.backends[index].restart().unwrap(),
        }
        self.await_health(number, "healthy");
        self.flappers.insert(number, None);
        *self.done.returns.entry(how).or_default() += 1;
        true
    }

    /// Waits until both instances of a backend are what they are said to be.
    fn await_health(&self, number: u8, health: &str) {
        wait_for(&format!("b{number} to be {health}"), PATIENCE, || {
            let list = reply(&self.scene.agent, &["backend", "list", "echo"]);
            let backends = list["backends"].as_array().unwrap();
            let is = |id: String| {
                let id = format!("lb-node/{id}");
                let mut found = backends
                    .iter()
                    .filter(|backend| backend["id"] == id.as_str());
                found.any(|backend| backend["health"] == health)
            };
            Ok(Self::ids(number).into_iter().all(is).then_some(()))
        })
        .unwrap();
    }

    fn block(&mut self) {
        if !self.blocked.is_empty() {
            let index = self.random.below(self.blocked.len());
            let prefix = self.blocked.swap_remove(index);
            self.command(&["block", "del", &prefix]);
        }
        for _ in 0..2 {
            let number = self.random.below(60_000);
            let prefix = match self.random.below(3) {
                0 => format!("198.18.{}.{}/32", number / 256, number % 256),
                1 => format!("203.0.113.{}/30", number % 64 * 4),
                _ => format!("2001:db8:bad:{number:x}::/64"),
            };
            if !self.blocked.contains(&prefix) {
                self.command(&["block", "add", &prefix]);
                self.blocked.push(prefix);
            }
        }
    }

    fn import(&mut self) {
        let from = self.random.below(100);
        let list: String = (from..from + 2000)
            .map(|number| format!("100.{}.{}.0/24\n", 64 + number / 256, number % 256))
            .collect();
        let file = self.scene.topology.directory().join("list");
        fs::write(&file, list).unwrap();
        let file = file.display().to_string();
        self.command(&["block", "import", &file, "--replace"]);
    }

    fn hang_up(&mut self) {
        let file = self.scene.agent.config_file().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let second = "\n[[service]]\nname = \"second\"\nvip = [\"198.51.100.20:80\"]\n\
                      backends = [{ address = \"10.77.1.2:8080\" }]\n";
        let text = match self.second {
            true => text.replace(second, ""),
            false => text + second,
        };
        self.second = !self.second;
        fs::write(&file, text).unwrap();
        let agent = &self.scene.agent;
        agent.process().signal(Signal::Hangup).unwrap();
        wait_for("the other services", PATIENCE, || {
            let list = agent.command(&["service", "list"])?;
            Ok((list.contains("second") == self.second).then_some(()))
        })
        .unwrap();
    }
}

/// Registers a backend, on both families, with its subset as a tag.
pub(crate) fn register(consul: &Consul, scene: &Scene, number: u8) {
    let addresses = [
        scene.topology.backend_address(number),
        scene.topology.backend_address6(number),
    ];
    let tag = if number % 2 == 1 { "v1" } else { "v2" };
    for (id, address) in Turmoil::ids(number).iter().zip(addresses) {
        consul
            .register(Registration {
                service: "echo",
                id,
                address,
                tags: &[tag],
                meta: &[],
                weights: (1, 1),
            })
            .unwrap();
    }
}
