//! The agent's side of the flow tables: the same memory, mapped a window at a time.
//!
//! A window instead of the whole, because mapped pages count as the agent's resident memory: a
//! table of a million flows would look like a leak.

mod cut;
mod judged;
mod list;
mod sweep;
mod traffic;

use std::{
    io,
    net::IpAddr,
    ops::Range,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use ipnet::IpNet;
use lb_common::{
    IPPROTO_TCP, IPPROTO_UDP,
    entry::{Meta, hop_number},
    flow::{Half, Kind, Lifetimes, Slot, State, Tag},
};
use memmap2::{MmapOptions, MmapRaw};

pub use self::{judged::Judged, traffic::Traffic};
use super::{clock::Clock, encode};
use crate::domain::{
    block::PrefixSet,
    kernel::{Census, KernelError, VipKey},
};

/// Bytes mapped at a time; a multiple of the page size and of a bucket.
const WINDOW: u64 = 4 << 20;

/// Both flow tables. Cheap to clone; every method may be called from any thread.
#[derive(Clone, Debug)]
pub struct FlowTables {
    v4: Arc<OwnedFd>,
    v6: Arc<OwnedFd>,
    slots: u32,
    seed: u64,
    clock: Clock,
    /// In ticks.
    lifetimes: Lifetimes,
}

/// A live half, as read.
struct Entry<A> {
    /// Number of its slot.
    index: u32,
    /// Its tag.
    tag: Tag,
    /// Key and rewrite.
    half: Half<A>,
}

/// What becomes of a slot that was looked at.
#[derive(PartialEq, Eq)]
enum Fate {
    Keep,
    /// Freed, unless a packet has changed its state meanwhile.
    Expire,
    /// Freed whatever happens to it meanwhile.
    End,
}

impl FlowTables {
    pub(crate) fn new(
        v4: OwnedFd,
        v6: OwnedFd,
        meta: Meta,
        clock: Clock,
        lifetimes: Lifetimes,
    ) -> Self {
        Self {
            v4: Arc::new(v4),
            v6: Arc::new(v6),
            slots: meta.flow_slots,
            seed: meta.seed,
            clock,
            lifetimes,
        }
    }

    /// The memory for [`Self::sweep_noting`].
    pub fn judged(&self) -> Judged {
        Judged::new(self.slots)
    }

    /// What a sweep of empty tables finds.
    pub fn nothing(&self) -> Census {
        Census {
            slots: u64::from(self.slots),
            ..Census::default()
        }
    }

    /// The kernel's tick counter.
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// The kernel's tick counter at this moment, give or take one: what idle times are kept in.
    pub fn now(&self) -> u32 {
        self.clock.now()
    }

    /// Ticks a second.
    pub fn ticks_per_second(&self) -> u32 {
        self.clock.per_second()
    }

    /// Ends all flows whose client lies within one of the prefixes; answers with their number.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    pub fn cut_clients(&self, prefixes: &[IpNet]) -> Result<u64, KernelError> {
        let prefixes: PrefixSet = prefixes.iter().collect();
        self.cut_where(|client| prefixes.contains(client))
    }

    /// Ends all flows of the clients that `is_out` names; answers with their number.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    pub(crate) fn cut_where(&self, is_out: impl Fn(IpAddr) -> bool) -> Result<u64, KernelError> {
        self.cut_flows(|_, client| is_out(client))
    }

    /// Ends all flows that `is_out` names by their backend and client; answers with their number.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    pub(crate) fn cut_flows(
        &self,
        is_out: impl Fn(u32, IpAddr) -> bool,
    ) -> Result<u64, KernelError> {
        let mut cut = 0;
        self.visit::<u32, 0>(&self.v4, |entry| {
            cut_if(entry, &mut cut, |addr| {
                is_out(entry.half.backend, encode::ip([*addr, 0, 0, 0], false))
            })
        })?;
        self.visit::<[u32; 4], 4>(&self.v6, |entry| {
            cut_if(entry, &mut cut, |addr| {
                is_out(entry.half.backend, encode::ip(*addr, true))
            })
        })?;
        Ok(cut)
    }

    /// Ends all UDP flows of a backend; answers with their number.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    pub fn cut_udp(&self, backend: u32) -> Result<u64, KernelError> {
        let mut cut = 0;
        self.visit::<u32, 0>(&self.v4, |entry| cut_udp_of(entry, backend, &mut cut))?;
        self.visit::<[u32; 4], 4>(&self.v6, |entry| cut_udp_of(entry, backend, &mut cut))?;
        Ok(cut)
    }

    /// Calls `note` with what each live half's packets are sent to, and the half's backend.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    pub(crate) fn destinations(
        &self,
        mut note: impl FnMut(VipKey, u32),
    ) -> Result<(), KernelError> {
        fn key<A>(entry: &Entry<A>, ip: IpAddr) -> VipKey {
            let port = u16::from_be((entry.half.ports >> 16) as u16);
            VipKey {
                address: (ip, port).into(),
                protocol: entry.tag.proto(),
            }
        }
        // A reply that is met on its way out is for the client.
        let leaves = |hop| hop == hop_number::LOCAL;
        self.visit::<u32, 0>(&self.v4, |entry| {
            let ip = encode::ip([entry.half.daddr, 0, 0, 0], false);
            if !leaves(entry.half.hop) {
                note(key(entry, ip), entry.half.backend);
            }
            Fate::Keep
        })?;
        self.visit::<[u32; 4], 4>(&self.v6, |entry| {
            let ip = encode::ip(entry.half.daddr, true);
            if !leaves(entry.half.hop) {
                note(key(entry, ip), entry.half.backend);
            }
            Fate::Keep
        })
    }

    /// Calls `look` for every live half; those it condemns are freed.
    fn visit<A: Copy, const PAD: usize>(
        &self,
        map: &OwnedFd,
        mut look: impl FnMut(&Entry<A>) -> Fate,
    ) -> Result<(), KernelError> {
        self.each_slot::<A, PAD>(
            map,
            |_| true,
            |index, slot| {
                visit_slot(slot, index, &mut look);
            },
        )
    }

    /// Calls `look` with every slot, and its number, of the windows that are wanted, in order. A
    /// window is asked for by the numbers of its slots.
    fn each_slot<A, const PAD: usize>(
        &self,
        map: &OwnedFd,
        wanted: impl Fn(Range<u32>) -> bool,
        mut look: impl FnMut(u32, *mut Slot<A, PAD>),
    ) -> Result<(), KernelError> {
        let slot_size = size_of::<Slot<A, PAD>>() as u64;
        let total = u64::from(self.slots) * slot_size;
        let mut offset = 0;
        while offset < total {
            let length = WINDOW.min(total - offset);
            let first = (offset / slot_size) as u32;
            let count = (length / slot_size) as u32;
            if !wanted(first..first + count) {
                offset += length;
                continue;
            }
            let window = map_window(map, offset, length)
                .map_err(|error| KernelError::new("mapping a flow table", error))?;
            let base = window.as_mut_ptr().cast::<Slot<A, PAD>>();
            for index in 0..count {
                // SAFETY: within the window, which is page-aligned, so the slot is aligned.
                look(first + index, unsafe { base.add(index as usize) });
            }
            offset += length;
        }
        Ok(())
    }
}

/// Maps a part of a map's memory.
pub(super) fn map_window(map: &OwnedFd, offset: u64, length: u64) -> io::Result<MmapRaw> {
    MmapOptions::new()
        .offset(offset)
        .len(length as usize)
        .map_raw(map.as_raw_fd())
}

/// Reads one slot by the protocol of `lb_common::flow`: tag, fields, tag again.
fn visit_slot<A: Copy, const PAD: usize>(
    slot: *mut Slot<A, PAD>,
    index: u32,
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
    let fate = look(&Entry { index, tag, half });
    if fate == Fate::Keep {
        return;
    }
    let mut held = tag;
    loop {
        let free = held.with_state(State::Free);
        match tag_word.compare_exchange(held.0, free.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(now) => held = Tag(now),
        }
        // Expired, but its state has changed since: it lives, let it. A slot of another flow, or
        // of none, is no business of ours either way.
        if fate == Fate::Expire || !held.is_live() || !held.same_identity(tag) {
            return;
        }
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
    if !is_hit(client) || keeps_port(entry) {
        return Fate::Keep;
    }
    *cut += u64::from(forward);
    Fate::End
}

/// Whether a half has no other use than to keep the port of a connection that is over: the backend may be
/// in TIME_WAIT, and takes a SYN of another client from there for an old one.
fn keeps_port<A>(entry: &Entry<A>) -> bool {
    let tag = &entry.tag;
    let is_reply = tag.kind() == Some(Kind::Reply);
    is_reply && tag.proto() == IPPROTO_TCP && tag.state_bits() >= State::Finished as u8
}

fn cut_udp_of<A>(entry: &Entry<A>, backend: u32, cut: &mut u64) -> Fate {
    if entry.tag.proto() != IPPROTO_UDP || entry.half.backend != backend {
        return Fate::Keep;
    }
    *cut += u64::from(entry.tag.kind() == Some(Kind::Forward));
    Fate::End
}

#[cfg(test)]
mod tests {
    use lb_common::{
        flow::{NO_PARTNER, Slot4},
        vlan::Tags,
    };

    use super::*;

    /// What is left in a slot whose tag changes while it is being judged.
    fn after(before: Tag, meanwhile: Tag, fate: Fate) -> Tag {
        let half = Half {
            saddr: 1,
            daddr: 2,
            new_saddr: 3,
            new_daddr: 4,
            ports: 5,
            new_ports: 6,
            l3_delta: 0,
            l4_delta: 0,
            hop: 0,
            partner: NO_PARTNER,
            backend: 0,
            seen: 0,
            dmac: [0; 6],
            spilled: 0,
            tags: Tags::NONE,
        };
        let mut slot = Slot4 {
            tag: before.0,
            half,
            reserved: [],
        };
        let pointer = &raw mut slot;
        let mut fate = Some(fate);
        visit_slot(pointer, 0, &mut |_| {
            // SAFETY: the slot lives as long as this function; the word is aligned.
            unsafe { AtomicU64::from_ptr(&raw mut (*pointer).tag) }
                .store(meanwhile.0, Ordering::Release);
            fate.take().unwrap_or(Fate::Keep)
        });
        Tag(slot.tag)
    }

    /// A packet that changes the state saves a flow that is idle, not one that is to end. Nothing
    /// touches the next owner of the slot.
    #[test]
    fn state_changes_under_the_agent() {
        let tag = |generation, state| Tag::new(7 << 32, generation, Kind::Reply, 17, state);
        let before = tag(1, State::HalfOpen);
        let answered = tag(1, State::Established);
        let free = tag(1, State::Free);
        assert_eq!(after(before, before, Fate::Keep), before);
        assert_eq!(after(before, before, Fate::Expire), free);
        assert_eq!(after(before, before, Fate::End), free);
        assert_eq!(after(before, answered, Fate::Expire), answered);
        assert_eq!(after(before, answered, Fate::End), free);
        for other in [
            free,
            tag(2, State::Claimed),
            tag(2, State::HalfOpen),
            tag(2, State::Free),
        ] {
            assert_eq!(after(before, other, Fate::Expire), other);
            assert_eq!(after(before, other, Fate::End), other);
        }
    }
}
