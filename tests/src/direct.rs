//! Frames through the loaded program at the least cost: bpf(2) without a library in between,
//! buffers that stay, and the flow tables' memory mapped.
//!
//! [`World::run`] makes some thirty system calls a frame, this two: a million frames
//! take seconds.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use lb_common::{
    entry::Counter,
    flow::{Half, Slot, Slot4, Slot6, State, Tag},
    maps::{SCHEMA, name},
    verdict::{VERDICT_COUNT, Verdict},
};
use memmap2::{MmapOptions, MmapRaw};

use crate::{outcome::METADATA, world::World};

/// `BPF_PROG_TEST_RUN` of include/uapi/linux/bpf.h.
const TEST_RUN: libc::c_long = 10;
/// `BPF_MAP_LOOKUP_BATCH`.
const LOOKUP_BATCH: libc::c_long = 24;
/// Frames may grow by this much: an error message's headers, or an outer header.
const ROOM: usize = 256;

/// `union bpf_attr`, the part of test runs.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    answer: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// `union bpf_attr`, the part of batches.
#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// What became of a frame.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// The XDP action.
    pub action: u32,
    /// The verdict that was counted.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: &'a [u8],
}

/// A world's program, to be run often.
pub struct Direct {
    program: OwnedFd,
    verdicts: MapData,
    /// Per-CPU values of all verdicts, before the frame and after.
    counters: [Vec<Counter>; 2],
    cpus: usize,
    out: Vec<u8>,
    tables: [MmapRaw; 2],
    slots: usize,
}

/// A live half in the table's memory, whichever the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its tag.
    pub tag: Tag,
    /// Key and rewrite; IPv4 addresses in the first word.
    pub half: Half<[u32; 4]>,
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<()> {
    // SAFETY: the attributes are a prefix of `union bpf_attr`, with the size that is given; the
    // callers' pointers in them are valid for the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Direct {
    /// For the program and the maps that the world holds now.
    ///
    /// # Errors
    ///
    /// A pinned map cannot be opened or mapped.
    pub fn new(world: &World) -> Result<Self> {
        let open = |map: &str| {
            let pin = world.pins().join(format!("v{SCHEMA}")).join(map);
            MapData::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))
        };
        let slots = world.datapath.flow_slots() as usize;
        let table = |map: &str, size: usize| -> Result<MmapRaw> {
            let map = open(map)?;
            let mut options = MmapOptions::new();
            let memory = options
                .len(slots * size)
                .map_raw(map.fd().as_fd().as_raw_fd());
            memory.context("mapping a flow table")
        };
        let cpus = aya::util::nr_cpus()
            .map_err(|(what, error)| anyhow::Error::new(error).context(what))?;
        let program = world.datapath.program_fd()?.as_fd().try_clone_to_owned()?;
        let zero = vec![Counter::default(); VERDICT_COUNT as usize * cpus];
        let mut direct = Self {
            program,
            verdicts: open(name::VERDICT_STATS)?,
            counters: [zero.clone(), zero],
            cpus,
            out: Vec::new(),
            tables: [
                table(name::FLOWS4, size_of::<Slot4>())?,
                table(name::FLOWS6, size_of::<Slot6>())?,
            ],
            slots,
        };
        direct.count()?;
        Ok(direct)
    }

    /// Reads all verdicts' counters; the former ones are kept.
    fn count(&mut self) -> Result<()> {
        self.counters.swap(0, 1);
        let mut keys = [0_u32; VERDICT_COUNT as usize];
        let mut next = 0_u32;
        let mut batch = Batch {
            to: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: self.counters[1].as_mut_ptr() as u64,
            count: VERDICT_COUNT,
            map: self.verdicts.fd().as_fd().as_raw_fd() as u32,
            ..Batch::default()
        };
        match bpf(LOOKUP_BATCH, &mut batch) {
            // The end of the map.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            answer => answer.context("reading the verdicts")?,
        }
        ensure!(
            batch.count == VERDICT_COUNT,
            "read {} verdicts",
            batch.count
        );
        Ok(())
    }

    /// Runs a frame that comes in on `ifindex`.
    ///
    /// # Errors
    ///
    /// The kernel refuses the run, or not exactly one verdict was counted.
    pub fn run(&mut self, frame: &[u8], ifindex: u32) -> Result<Outcome<'_>> {
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let context = [0, frame.len() as u32, 0, ifindex, 0, 0];
        self.out.resize(frame.len() + ROOM, 0);
        let mut run = TestRun {
            program: self.program.as_raw_fd() as u32,
            data_size_in: frame.len() as u32,
            data_size_out: self.out.len() as u32,
            data_in: frame.as_ptr() as u64,
            data_out: self.out.as_mut_ptr() as u64,
            repeat: 1,
            context_size_in: size_of_val(&context) as u32,
            context_in: context.as_ptr() as u64,
            ..TestRun::default()
        };
        bpf(TEST_RUN, &mut run).context("a test run")?;
        self.count()?;
        let out = &self.out[..run.data_size_out as usize];
        let mut counted = Vec::new();
        let [before, after] = &self.counters;
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            let values = index * self.cpus..(index + 1) * self.cpus;
            for (before, after) in before[values.clone()].iter().zip(&after[values]) {
                if before != after {
                    counted.push((
                        *verdict,
                        after.packets - before.packets,
                        after.bytes - before.bytes,
                    ));
                }
            }
        }
        if out.len() == frame.len() + METADATA {
            // Handed over to tc, with a mark in front: what tc makes of it is what counts.
            ensure!(counted.is_empty(), "handed over, yet counted {counted:?}");
            return Ok(Outcome {
                action: run.answer,
                verdict: Verdict::PassUnresolved,
                frame: &out[METADATA..],
            });
        }
        let &[(verdict, 1, bytes)] = counted.as_slice() else {
            anyhow::bail!("counted {counted:?} for one frame");
        };
        ensure!(
            bytes == frame.len() as u64,
            "counted {bytes} bytes for a frame of {}",
            frame.len()
        );
        Ok(Outcome {
            action: run.answer,
            verdict,
            frame: out,
        })
    }

    /// Slots of each table.
    pub fn slots(&self) -> usize {
        self.slots
    }

    fn slot4(&self, index: usize) -> *mut Slot4 {
        assert!(index < self.slots);
        // SAFETY: within the mapping, which is page-aligned.
        unsafe { self.tables[0].as_mut_ptr().cast::<Slot4>().add(index) }
    }

    fn slot6(&self, index: usize) -> *mut Slot6 {
        assert!(index < self.slots);
        // SAFETY: as above.
        unsafe { self.tables[1].as_mut_ptr().cast::<Slot6>().add(index) }
    }

    /// The live half in a slot.
    pub fn held(&self, v6: bool, index: usize) -> Option<Held> {
        let wide = |word: u32| [word, 0, 0, 0];
        let held = if v6 {
            // SAFETY: a valid slot, and no program runs meanwhile but by `run`.
            let Slot { tag, half, .. } = unsafe { self.slot6(index).read_volatile() };
            Held {
                tag: Tag(tag),
                half,
            }
        } else {
            // SAFETY: as above.
            let Slot { tag, half, .. } = unsafe { self.slot4(index).read_volatile() };
            Held {
                tag: Tag(tag),
                half: Half {
                    saddr: wide(half.saddr),
                    daddr: wide(half.daddr),
                    new_saddr: wide(half.new_saddr),
                    new_daddr: wide(half.new_daddr),
                    ports: half.ports,
                    new_ports: half.new_ports,
                    l3_delta: half.l3_delta,
                    l4_delta: half.l4_delta,
                    hop: half.hop,
                    partner: half.partner,
                    backend: half.backend,
                    seen: half.seen,
                    dmac: half.dmac,
                    spilled: half.spilled,
                    tags: half.tags,
                },
            }
        };
        held.tag.is_live().then_some(held)
    }

    /// Notes another time in a slot, in ticks.
    pub fn set_seen(&self, v6: bool, index: usize, seen: u32) {
        if v6 {
            // SAFETY: a valid slot.
            unsafe { (&raw mut (*self.slot6(index)).half.seen).write_volatile(seen) };
        } else {
            // SAFETY: a valid slot.
            unsafe { (&raw mut (*self.slot4(index)).half.seen).write_volatile(seen) };
        }
    }

    /// Frees a slot, and nothing else.
    pub fn free(&self, v6: bool, index: usize) {
        let tag = if v6 {
            // SAFETY: a valid slot.
            unsafe { &raw mut (*self.slot6(index)).tag }
        } else {
            // SAFETY: a valid slot.
            unsafe { &raw mut (*self.slot4(index)).tag }
        };
        // SAFETY: aligned, and no program runs meanwhile.
        unsafe { tag.write_volatile(Tag(tag.read_volatile()).with_state(State::Free).0) };
    }

    /// Empties both tables, as if they were new.
    pub fn clear(&self) {
        for (table, size) in self
            .tables
            .iter()
            .zip([size_of::<Slot4>(), size_of::<Slot6>()])
        {
            // SAFETY: the whole mapping, and no program runs meanwhile.
            unsafe { table.as_mut_ptr().write_bytes(0, self.slots * size) };
        }
    }
}
