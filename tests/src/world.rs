//! A loaded datapath for test runs: real programs and maps, an interface to a peer, and nothing
//! attached. The packets are ours, the decisions the kernel's.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};
use lb_agent::{
    datapath::{Budget, Datapath, Mode, Options},
    domain::{
        kernel::{Kernel, KernelBackend, KernelView, KernelVip, Recipe, Step, VipKey},
        plan::advance,
    },
};
use lb_common::{
    entry::Counter,
    flow::Lifetimes,
    maps::MIN_FLOW_SLOTS,
    verdict::{Action, Verdict},
};

use crate::{
    link::{self, End},
    namespace::Namespace,
    outcome::{METADATA, xdp_action},
    packet::Packet,
    pins::Pins,
};
pub use crate::{
    outcome::{Hook, Outcome, action},
    packet::answer_to,
};

/// Where clients are, as the node sees them.
pub const CLIENT: &str = "10.99.0.2";
/// The same for IPv6.
pub const CLIENT6: &str = "fd99::2";
/// The node's address on the backends' link.
pub const NODE: &str = "10.99.1.1";
/// The same for IPv6.
pub const NODE6: &str = "fd99:1::1";
/// Link address of `front`.
pub const FRONT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xf0];
/// Link address of `back`.
pub const BACK_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0xf0];
/// Ports that flows may be given.
pub const PORTS: (u16, u16) = (20_000, 29_999);

/// A node with two interfaces: `front` towards the clients, `back` towards the backends, which
/// are addresses with a permanent neighbour entry.
pub struct World {
    /// The datapath under test.
    pub datapath: Datapath,
    /// The program that frames are run through.
    pub hook: Hook,
    /// Index of the clients' interface.
    pub front: u32,
    /// Index of the backends' interface.
    pub back: u32,
    view: KernelView,
    options: Options,
}

impl World {
    /// Makes a world with the smallest flow tables and the usual lifetimes, calls `f` in its
    /// namespace, and takes everything away again.
    ///
    /// # Errors
    ///
    /// The node cannot be set up, or the kernel refuses the programs.
    pub fn with<R: Send>(f: impl FnOnce(&mut World) -> R + Send) -> Result<R> {
        Self::with_options(|_| {}, f)
    }

    /// As [`Self::with`], once for each hook.
    ///
    /// # Errors
    ///
    /// As for [`Self::with`].
    pub fn on_each_hook(f: impl Fn(&mut World) + Sync) -> Result<()> {
        for hook in [Hook::Xdp, Hook::Tc] {
            Self::with(|world| {
                world.hook = hook;
                f(world);
            })?;
        }
        Ok(())
    }

    /// As [`Self::with`], with other options.
    ///
    /// # Errors
    ///
    /// As for [`Self::with`].
    pub fn with_options<R: Send>(
        change: impl FnOnce(&mut Options),
        f: impl FnOnce(&mut World) -> R + Send,
    ) -> Result<R> {
        let node = Namespace::new("node")?;
        let wire = Namespace::new("wire")?;
        for (interface, peer, mac, addresses) in [
            ("front", "f", FRONT_MAC, ["10.99.0.1/24", "fd99::1/64"]),
            ("back", "b", BACK_MAC, ["10.99.1.1/24", "fd99:1::1/64"]),
        ] {
            let addresses = addresses.map(|text| text.parse().expect("a valid prefix"));
            link::connect(
                End {
                    namespace: &node,
                    interface,
                    addresses: &addresses,
                },
                End {
                    namespace: &wire,
                    interface: peer,
                    addresses: &[],
                },
            )?;
            node.tool("ip", &["link", "set", interface, "address", &text(mac)])?;
        }
        for number in 2..=9 {
            let mac = text(backend_mac(number));
            for address in [format!("10.99.1.{number}"), format!("fd99:1::{number}")] {
                node.tool(
                    "ip",
                    &[
                        "neigh",
                        "add",
                        &address,
                        "lladdr",
                        &mac,
                        "dev",
                        "back",
                        "nud",
                        "permanent",
                    ],
                )?;
            }
        }
        let pins = Pins::new()?;
        let mut options = Options {
            bpf_dir: pins.path().to_owned(),
            interfaces: vec!["front".into(), "back".into()],
            // Cables stand in for cards.
            mode: Mode::Native,
            tc_filters: false,
            pending: Some(false),
            announce: Vec::new(),
            flow_slots: MIN_FLOW_SLOTS,
            ports: PORTS,
            lifetimes: Lifetimes::DEFAULT_SECONDS,
            cgroup: None,
            grace: std::time::Duration::from_millis(200),
            budget: Budget::Unlimited,
            decapsulate: Vec::new(),
            decapsulate_from: Vec::new(),
        };
        change(&mut options);
        node.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("starting a runtime")?;
            let datapath = Datapath::open_detached(&options)?;
            let interface = |name: &str| -> Result<u32> {
                let name = std::ffi::CString::new(name)?;
                // SAFETY: a valid C string.
                let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
                ensure!(index != 0, "no interface {name:?}");
                Ok(index)
            };
            let mut world = World {
                hook: Hook::Xdp,
                front: interface("front")?,
                back: interface("back")?,
                datapath,
                view: KernelView::default(),
                options,
            };
            runtime.block_on(async {
                // Its peers do not poll, but nothing is sent to them in a test run.
                world.datapath.trust_untold_interfaces();
                let _resolver = world.datapath.start_resolver().await?;
                let mut addresses = Vec::new();
                for number in 2..=9 {
                    addresses.push(format!("10.99.1.{number}").parse()?);
                    addresses.push(format!("fd99:1::{number}").parse()?);
                }
                for _ in 0..200 {
                    if world.datapath.unresolved(&addresses)?.is_empty() {
                        return anyhow::Ok(());
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                anyhow::bail!("next hops were not resolved")
            })?;
            let answer = f(&mut world);
            drop(world);
            drop(runtime);
            Ok(answer)
        })
    }

    /// Directory of the pins.
    pub fn pins(&self) -> &Path {
        &self.options.bpf_dir
    }

    /// What the datapath was opened with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Opens the datapath again on the pins that there are, as an agent does that is started
    /// anew, with options that may have changed; the former one is closed after that.
    ///
    /// # Errors
    ///
    /// The kernel refuses the programs.
    pub fn reopen(&mut self, change: impl FnOnce(&mut Options)) -> Result<()> {
        change(&mut self.options);
        self.datapath = Datapath::open_detached(&self.options)?;
        Ok(())
    }

    /// Carries out steps as the controller would.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn apply(&mut self, steps: &[Step]) -> Result<()> {
        let mut coming = self.view.clone();
        for step in steps {
            if matches!(step, Step::PutVip(..)) {
                advance(&mut coming, step);
            }
        }
        self.datapath.set_filter(&coming)?;
        for step in steps {
            self.datapath.apply(step)?;
            advance(&mut self.view, step);
        }
        self.datapath.set_filter(&self.view)?;
        Ok(())
    }

    /// A service of equal backends: `id` for its table, backend ids from `id * 16` on.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn service(&mut self, id: u32, vip: &str, protocol: u8, backends: &[&str]) -> Result<()> {
        let mut steps = Vec::new();
        let mut weights = Vec::new();
        for (backend, address) in (id * 16..).zip(backends) {
            let address = address.parse()?;
            let entry = KernelBackend {
                service: id,
                address,
                active: true,
            };
            steps.push(Step::PutBackend(backend, entry));
            weights.push((backend, 1));
        }
        steps.push(Step::PutTable(
            id,
            Recipe {
                weights,
                slots: 1021,
            },
        ));
        let address = vip.parse()?;
        let key = VipKey { address, protocol };
        steps.push(Step::PutVip(
            key,
            KernelVip {
                service: id,
                slots: 1021,
                treatment: Default::default(),
            },
        ));
        self.apply(&steps)
    }

    /// Runs a frame that comes in on `ifindex`. Checks what must hold for every frame: exactly one
    /// verdict is counted, with the frame's length; the XDP action is the verdict's; and what is
    /// not forwarded stays as it is.
    ///
    /// # Errors
    ///
    /// The kernel refuses the run, or one of these does not hold.
    pub fn run(&mut self, frame: &[u8], ifindex: u32) -> Result<Outcome> {
        let before = self.datapath.verdicts()?;
        let (action, mut frame_after) = match self.hook {
            Hook::Xdp => self.datapath.test_run(frame, ifindex)?,
            Hook::Tc => {
                let (action, after) = self.datapath.test_run_tc(frame, ifindex)?;
                (xdp_action(action)?, after)
            }
        };
        let after = self.datapath.verdicts()?;
        let counted: BTreeMap<usize, Counter> = before
            .iter()
            .zip(&after)
            .enumerate()
            .filter(|(_, (before, after))| before != after)
            .map(|(index, (before, after))| {
                let packets = after.packets - before.packets;
                (
                    index,
                    Counter {
                        packets,
                        bytes: after.bytes - before.bytes,
                    },
                )
            })
            .collect();
        // Two tags more are as long, but do not leave the rest as it was.
        if self.hook == Hook::Xdp && frame_after.get(METADATA..) == Some(frame) {
            // Handed over, with a mark in front: what tc makes of it is what counts.
            ensure!(counted.is_empty(), "handed over, yet counted {counted:?}");
            frame_after.drain(..METADATA);
            ensure!(action == action::PASS && frame_after == frame);
            return Ok(Outcome {
                action,
                verdict: Verdict::PassUnresolved,
                frame: frame_after,
            });
        }
        ensure!(counted.len() == 1, "counted {counted:?} for one frame");
        let (index, counter) = counted.into_iter().next().context("one verdict")?;
        let expected = Counter {
            packets: 1,
            bytes: frame.len() as u64,
        };
        ensure!(
            counter == expected,
            "counted {counter:?} for a frame of {} bytes",
            frame.len()
        );
        let verdict = Verdict::ALL[index];
        let (actions, unchanged): (&[u32], bool) = match verdict.action() {
            Action::Pass if verdict == Verdict::PassDecapsulated => (&[action::PASS], true),
            Action::Pass => (&[action::PASS], frame_after == frame),
            Action::Drop | Action::Hold => (&[action::DROP], frame_after == frame),
            // Passed on: to a process of the node.
            Action::Forward => (&[action::TX, action::REDIRECT, action::PASS], true),
            Action::Answer => match self.hook {
                // By redirect where bare XDP_TX does not work, as on a lone veth.
                Hook::Xdp => (&[action::TX, action::REDIRECT], true),
                Hook::Tc => (&[action::REDIRECT], true),
            },
        };
        ensure!(
            actions.contains(&action),
            "{verdict:?} with the XDP action {action}"
        );
        ensure!(unchanged, "{verdict:?}, yet the frame was changed");
        Ok(Outcome {
            action,
            verdict,
            frame: frame_after,
        })
    }

    /// How many packets had this verdict so far.
    ///
    /// # Panics
    ///
    /// The counters cannot be read.
    pub fn counted(&self, verdict: Verdict) -> u64 {
        self.datapath.verdicts().expect("the counters")[verdict as usize].packets
    }

    /// A packet from the clients' side.
    ///
    /// # Panics
    ///
    /// The kernel refuses the run.
    pub fn request(&mut self, packet: &Packet) -> Outcome {
        self.run(&packet.build(), self.front).expect("a test run")
    }

    /// A packet from the backends' side.
    ///
    /// # Panics
    ///
    /// The kernel refuses the run.
    pub fn reply(&mut self, packet: &Packet) -> Outcome {
        self.run(&packet.build(), self.back).expect("a test run")
    }
}

/// A link address as iproute2 wants it.
fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Link address of the backends `10.99.1.N` and `fd99:1::N`.
pub fn backend_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, number]
}
