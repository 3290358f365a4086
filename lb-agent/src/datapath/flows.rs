//! The agent's side of the flow tables: the same memory, mapped a window at a time.
//!
//! A window instead of the whole, because mapped pages count as the agent's resident memory: a
//! table of a million flows would look like a leak.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use ipnet::IpNet;
use lb_common::flow::{Half, Kind, Lifetimes, Slot, State, Tag};
use memmap2::{MmapOptions, MmapRaw};

use super::{clock::Clock, encode};
use crate::domain::{
    block::PrefixSet,
    kernel::{Census, KernelError},
};

/// Bytes mapped at a time; a multiple of the page size and of a bucket.
const WINDOW: u64 = 4 << 20;

/// Both flow tables. Cheap to clone; every method may be called from any thread.
#[derive(Clone, Debug)]
pub struct FlowTables {
    v4: Arc<OwnedFd>,
    v6: Arc<OwnedFd>,
    slots: u32,
    clock: Clock,
    /// In ticks.
    lifetimes: Lifetimes,
}

/// A live half, as read.
struct Entry<A> {
    /// Its tag.
    tag: Tag,
    /// Key and rewrite.
    half: Half<A>,
}

/// What becomes of a slot that was looked at.
#[derive(PartialEq, Eq)]
enum Fate {
    Keep,
    Free,
}

impl FlowTables {
    pub(crate) fn new(
        v4: OwnedFd,
        v6: OwnedFd,
        slots: u32,
        clock: Clock,
        lifetimes: Lifetimes,
    ) -> Self {
        Self {
            v4: Arc::new(v4),
            v6: Arc::new(v6),
            slots,
            clock,
            lifetimes,
        }
    }

    /// Counts what there is and frees what has been idle beyond its time.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    pub fn sweep(&self) -> Result<Census, KernelError> {
        let mut census = Census {
            slots: u64::from(self.slots),
            ..Census::default()
        };
        let mut used4 = [0; 9];
        let mut used6 = [0; 9];
        self.visit::<u32, 1>(&self.v4, |entry| {
            self.take_stock(entry, &mut used4, &mut census)
        })?;
        self.visit::<[u32; 4], 5>(&self.v6, |entry| {
            self.take_stock(entry, &mut used6, &mut census)
        })?;
        census.used4 = used4;
        census.used6 = used6;
        Ok(census)
    }

    fn take_stock<A>(&self, entry: &Entry<A>, used: &mut [u64; 9], census: &mut Census) -> Fate {
        let Entry { tag, half } = entry;
        let idle = self.clock.now().wrapping_sub(half.seen);
        // A time of the future is a packet that came in since the clock was read.
        let expired =
            idle < u32::MAX / 2 && idle > self.lifetimes.of(tag.proto(), tag.state_bits());
        if expired {
            census.expired += 1;
            return Fate::Free;
        }
        if let Some(count) = used.get_mut(usize::from(tag.state_bits())) {
            *count += 1;
        }
        if tag.kind() == Some(Kind::Forward) {
            *census.backends.entry(half.backend).or_default() += 1;
        }
        Fate::Keep
    }

    /// Ends all flows whose client lies within one of the prefixes; answers with their number.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    pub fn cut_clients(&self, prefixes: &[IpNet]) -> Result<u64, KernelError> {
        let prefixes: PrefixSet = prefixes.iter().collect();
        let mut cut = 0;
        if prefixes.has(false) {
            self.visit::<u32, 1>(&self.v4, |entry| {
                cut_if(entry, &mut cut, |addr| {
                    prefixes.contains(encode::ip([*addr, 0, 0, 0], false))
                })
            })?;
        }
        if prefixes.has(true) {
            self.visit::<[u32; 4], 5>(&self.v6, |entry| {
                cut_if(entry, &mut cut, |addr| {
                    prefixes.contains(encode::ip(*addr, true))
                })
            })?;
        }
        Ok(cut)
    }

    /// Ends all UDP flows of a backend; answers with their number.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    pub fn cut_udp(&self, backend: u32) -> Result<u64, KernelError> {
        let mut cut = 0;
        self.visit::<u32, 1>(&self.v4, |entry| cut_udp_of(entry, backend, &mut cut))?;
        self.visit::<[u32; 4], 5>(&self.v6, |entry| cut_udp_of(entry, backend, &mut cut))?;
        Ok(cut)
    }

    /// Calls `look` for every live half; those it condemns are freed.
    fn visit<A: Copy, const PAD: usize>(
        &self,
        map: &OwnedFd,
        mut look: impl FnMut(&Entry<A>) -> Fate,
    ) -> Result<(), KernelError> {
        let slot_size = size_of::<Slot<A, PAD>>() as u64;
        let total = u64::from(self.slots) * slot_size;
        let mut offset = 0;
        while offset < total {
            let length = WINDOW.min(total - offset);
            let window = map_window(map, offset, length)
                .map_err(|error| KernelError::new("mapping a flow table", error))?;
            let base = window.as_mut_ptr().cast::<Slot<A, PAD>>();
            for index in 0..(length / slot_size) as usize {
                // SAFETY: within the window, which is page-aligned, so the slot is aligned.
                let slot = unsafe { base.add(index) };
                visit_slot(slot, &mut look);
            }
            offset += length;
        }
        Ok(())
    }
}

fn map_window(map: &OwnedFd, offset: u64, length: u64) -> io::Result<MmapRaw> {
    MmapOptions::new()
        .offset(offset)
        .len(length as usize)
        .map_raw(map.as_raw_fd())
}

/// Reads one slot by the protocol of `lb_common::flow`: tag, fields, tag again.
fn visit_slot<A: Copy, const PAD: usize>(
    slot: *mut Slot<A, PAD>,
    look: &mut impl FnMut(&Entry<A>) -> Fate,
) {
    // SAFETY: the caller's slot is mapped and aligned; the kernel writes the tag atomically.
    let tag_word = unsafe { AtomicU64::from_ptr(&raw mut (*slot).tag) };
    let tag = Tag(tag_word.load(Ordering::Acquire));
    if !tag.is_live() {
        return;
    }
    // SAFETY: mapped; whether the fields were this flow's is checked by the tag below.
    let half = unsafe { std::ptr::read_volatile(&raw const (*slot).half) };
    // SAFETY: as for the tag; the idle time may be renewed at any moment.
    let seen = unsafe { AtomicU32::from_ptr(&raw mut (*slot).half.seen) };
    let half = Half {
        seen: seen.load(Ordering::Acquire),
        ..half
    };
    if !Tag(tag_word.load(Ordering::Acquire)).same_identity(tag) {
        return;
    }
    if look(&Entry { tag, half }) == Fate::Free {
        // If its state has changed since, the flow lives: let it.
        let free = tag.with_state(State::Free);
        let _ = tag_word.compare_exchange(tag.0, free.0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// The client's address is the forward half's source and the reply half's new destination.
fn cut_if<A>(entry: &Entry<A>, cut: &mut u64, is_hit: impl Fn(&A) -> bool) -> Fate {
    let forward = entry.tag.kind() == Some(Kind::Forward);
    let client = if forward {
        &entry.half.saddr
    } else {
        &entry.half.new_daddr
    };
    if !is_hit(client) {
        return Fate::Keep;
    }
    *cut += u64::from(forward);
    Fate::Free
}

fn cut_udp_of<A>(entry: &Entry<A>, backend: u32, cut: &mut u64) -> Fate {
    if entry.tag.proto() != lb_common::IPPROTO_UDP || entry.half.backend != backend {
        return Fate::Keep;
    }
    *cut += u64::from(entry.tag.kind() == Some(Kind::Forward));
    Fate::Free
}
