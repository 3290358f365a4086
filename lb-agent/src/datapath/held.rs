//! The kernel's side of keeping early fragments: they come through the buffers of perf events, and go
//! back as live frames of a test run (Documentation/bpf/bpf_prog_run.rst of the kernel).

use std::{io, mem::offset_of, net::IpAddr, path::Path};

use aya::{
    Ebpf,
    maps::{
        Array, HashMap, MapData, PerfEventArray,
        perf::{PerfEvent, PerfEventArrayBuffer},
    },
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
    util::online_cpus,
};
use futures_util::future;
use lb_common::{
    entry::FAMILY_V6,
    fragment::{FirstFragment, FragmentKey, HeldHeader, HoldSwitch},
    maps::name,
};
use tokio::io::unix::AsyncFd;

use super::{
    Attached, Options, apart, clock::Clock, encode, loader, take, trial::xdp_context, xdp,
};
use crate::domain::{
    fragment::{Deposit, Early, PacketId},
    kernel::KernelError,
};

/// How long the programs hand over fragments without being asked again, in seconds.
const LEASE: i32 = 5;
/// Pages of each CPU's buffer; a power of two.
const PAGES: usize = 64;

/// See the module's documentation.
pub struct HeldFragments {
    switch: Array<MapData, HoldSwitch>,
    buffers: Vec<AsyncFd<PerfEventArrayBuffer<MapData>>>,
    first4: HashMap<MapData, FragmentKey<u32>, FirstFragment>,
    first6: HashMap<MapData, FragmentKey<[u32; 4]>, FirstFragment>,
    clock: Clock,
    /// Of interfaces with XDP.
    balance: Xdp,
    /// Of the others, whose frames tc looks at behind it.
    pass: Xdp,
    /// Interfaces with XDP.
    with_xdp: Vec<u32>,
}

impl HeldFragments {
    /// Takes the maps out of the loaded object. Needs a tokio runtime.
    pub(super) fn new(
        ebpf: &mut Ebpf,
        options: &Options,
        clock: Clock,
        attached: &[Attached],
    ) -> Result<Self, KernelError> {
        let what = "listening for fragments that come too early";
        let dir = &loader::pin_dir(&options.bpf_dir);
        let mut events: PerfEventArray<MapData> = take(ebpf, name::HELD)?;
        let cpus = online_cpus().map_err(|(file, error)| {
            KernelError::new(
                what,
                io::Error::new(error.kind(), format!("{file}: {error}")),
            )
        })?;
        let buffers = cpus
            .into_iter()
            .map(|cpu| {
                let buffer = events
                    .open(cpu, Some(PAGES))
                    .map_err(|error| KernelError::new(what, error))?;
                // SAFETY: the buffer owns its descriptor and answers with no other, as long as it
                // lives.
                unsafe { AsyncFd::register(buffer) }.map_err(|error| KernelError::new(what, error))
            })
            .collect::<Result<_, _>>()?;
        let pass = xdp(ebpf, name::PROGRAM_PASS)?;
        if pass.fd().is_err() {
            pass.load().map_err(|error| KernelError::new(what, error))?;
        }
        Ok(Self {
            switch: take(ebpf, name::HOLD_SWITCH)?,
            buffers,
            first4: take(ebpf, name::FRAGMENTS4)?,
            first6: take(ebpf, name::FRAGMENTS6)?,
            clock,
            balance: handle(ebpf, name::PROGRAM_XDP, dir)?,
            pass: handle(ebpf, name::PROGRAM_PASS, dir)?,
            with_xdp: attached
                .iter()
                .filter(|attached| attached.mode != "tc")
                .map(|attached| attached.ifindex)
                .collect(),
        })
    }
}

/// A handle of its own to a loaded program.
fn handle(ebpf: &mut Ebpf, name: &'static str, dir: &Path) -> Result<Xdp, KernelError> {
    let program = xdp(ebpf, name)?;
    let pin = |path: &Path| program.pin(path);
    apart::open(name, dir, pin, |path| {
        Xdp::from_pin(path, aya_obj::programs::XdpAttachType::Interface)
    })
}

impl Deposit for HeldFragments {
    fn switch(&mut self, on: bool) -> Result<(), KernelError> {
        let switch = HoldSwitch {
            on: u32::from(on),
            until: self.clock.in_seconds(LEASE),
        };
        self.switch
            .set(0, switch, 0)
            .map_err(|error| KernelError::new("switching the keeping of fragments", error))
    }

    async fn readable(&mut self) {
        let any = self
            .buffers
            .iter()
            .map(|buffer| Box::pin(buffer.readable()));
        if let (Ok(mut guard), ..) = future::select_all(any).await {
            guard.clear_ready();
        }
    }

    fn drain(&mut self, see: &mut dyn FnMut(Early)) -> u64 {
        let mut lost = 0;
        for buffer in &mut self.buffers {
            buffer.get_mut().for_each(|event| match event {
                PerfEvent::Sample { head, tail } => {
                    if let Some(early) = decode(&[head, tail].concat()) {
                        see(early);
                    }
                }
                PerfEvent::Lost { count } => lost += count,
            });
        }
        lost
    }

    fn has_first(&self, packet: &PacketId) -> bool {
        let PacketId {
            source,
            destination,
            id,
            protocol: proto,
        } = *packet;
        let (saddr, daddr) = (encode::words(source), encode::words(destination));
        match source {
            IpAddr::V4(_) => {
                let key = FragmentKey {
                    saddr: saddr[0],
                    daddr: daddr[0],
                    id,
                    proto,
                };
                self.first4.get(&key, 0).is_ok()
            }
            IpAddr::V6(_) => {
                let key = FragmentKey {
                    saddr,
                    daddr,
                    id,
                    proto,
                };
                self.first6.get(&key, 0).is_ok()
            }
        }
    }

    fn give_back(&self, early: &Early) -> Result<(), KernelError> {
        let program = if self.with_xdp.contains(&early.ifindex) {
            &self.balance
        } else {
            &self.pass
        };
        let context = xdp_context(&early.frame, early.ifindex);
        let options = TestRunOptions {
            data_in: Some(&early.frame),
            ctx_in: Some(&context),
            repeat: 1,
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::new()
        };
        program
            .test_run(options)
            .map(drop)
            .map_err(|error| KernelError::new("giving a fragment back to the programs", error))
    }
}

/// A frame out of what the programs wrote.
fn decode(bytes: &[u8]) -> Option<Early> {
    let word = |at: usize| {
        let word = bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes(word.try_into().ok()?))
    };
    let address = |at: usize, v6: bool| {
        let words = [word(at)?, word(at + 4)?, word(at + 8)?, word(at + 12)?];
        Some(encode::ip(words, v6))
    };
    let key = offset_of!(HeldHeader, key);
    let v6 = word(offset_of!(HeldHeader, family))? == u32::from(FAMILY_V6);
    type Key = FragmentKey<[u32; 4]>;
    let packet = PacketId {
        source: address(key + offset_of!(Key, saddr), v6)?,
        destination: address(key + offset_of!(Key, daddr), v6)?,
        id: word(key + offset_of!(Key, id))?,
        protocol: word(key + offset_of!(Key, proto))?,
    };
    let length = word(offset_of!(HeldHeader, length))? as usize;
    let frame = bytes.get(size_of::<HeldHeader>()..)?.get(..length)?;
    Some(Early {
        packet,
        ifindex: word(offset_of!(HeldHeader, ifindex))?,
        frame: frame.to_vec(),
    })
}
