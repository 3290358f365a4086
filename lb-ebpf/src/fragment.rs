//! Fragments: later ones follow the decision that the first one, which has the ports, came to.
//!
//! What comes before the first fragment cannot be placed: see [`crate::hold`]. Fragments of a packet
//! keep their id on the way, so two clients whose ids coincide within a backend's reassembly time
//! are mixed up there, as with every translation of addresses; the transport checksum finds out.

use lb_common::{
    entry::{FAMILY_V4, FAMILY_V6},
    flow::Tag,
    fragment::{ECHOED, FirstFragment, FragmentKey},
    verdict::Verdict,
};

use crate::{
    answer,
    create::NewFlow,
    departure,
    detour::Outcome,
    echo::Echo,
    family::{Family, V4, V6},
    flow::{self, Found, SlotRef},
    hold,
    maps::{FRAGMENTS4, FRAGMENTS6},
    packet::Frame,
    parse::{Network, Packet},
    rewrite::RewriteNetwork,
    server_return,
    settings::setting,
    transmit,
    vlan::Link,
};

/// Seconds for which the fragments of a packet may follow its first: what Linux waits for them
/// (net.ipv4.ipfrag_time), and then no later packet of the same id is mistaken for this one.
const LIFETIME: u32 = 30;

/// A family whose fragments are followed.
pub(crate) trait Followed: Family {
    /// Keeps what became of a first fragment.
    fn keep(key: &FragmentKey<Self::Addr>, first: &FirstFragment);

    /// `FAMILY_V4` or `FAMILY_V6`.
    const FAMILY: u8;

    /// Writes an address into four words; one of IPv4 into the first.
    fn widen(address: &Self::Addr, words: &mut [u32; 4]);

    /// What became of the first fragment with this key.
    fn recall(key: &FragmentKey<Self::Addr>) -> Option<FirstFragment>;
}

/// Remembers where a first fragment goes: to a half, or back to where it came from.
#[inline(always)]
pub(crate) fn remember<F: Followed, L3>(
    network: &Network<L3, F::Addr>,
    found: Option<&Found<F::Addr>>,
) {
    let (tag, slot) = match found {
        Some(found) => (found.tag.0, found.slot.index),
        None => (0, ECHOED),
    };
    let first = FirstFragment {
        tag,
        slot,
        seen: flow::now(),
    };
    F::keep(&key::<F, L3>(network), &first);
}

#[inline(always)]
fn key<F: Followed, L3>(network: &Network<L3, F::Addr>) -> FragmentKey<F::Addr> {
    FragmentKey {
        saddr: network.saddr,
        daddr: network.daddr,
        id: network.fragment.id,
        // Of IPv6 packets only the first fragment tells what is behind all extension headers.
        proto: if size_of::<F::Addr>() == size_of::<u32>() {
            network.proto as u32
        } else {
            0
        },
    }
}

/// Handles a fragment other than the first.
#[inline(always)]
pub(crate) fn later<F, L3>(frame: &Frame, link: &Link, network: &Network<L3, F::Addr>) -> Outcome
where
    F: NewFlow + Followed,
    Packet<L3, F::Addr>: RewriteNetwork<F::Addr> + Echo,
{
    let key = key::<F, L3>(network);
    let first = F::recall(&key).filter(|first| {
        let age = flow::now().wrapping_sub(first.seen);
        age <= LIFETIME * setting!(refresh_ticks)
    });
    let Some(first) = first else {
        // What leaves the node was made here, and in order.
        return Err(if frame.leaving {
            Verdict::PassFragment
        } else {
            hold::hand_over::<F>(frame, &key)
        });
    };
    let packet = network.packet(frame, link.tags, network.header.cast())?;
    if first.slot == ECHOED {
        if answer::is_to_group(frame) {
            return Err(Verdict::PassFragment);
        }
        packet.turn_round();
        return Ok((transmit::send_back(frame), Verdict::AnswerEcho));
    }
    let slot = SlotRef::at::<F>(first.slot).ok_or(Verdict::PassFragment)?;
    let tag = slot.tag();
    if !tag.same_identity(Tag(first.tag)) || !tag.is_live() {
        return Err(Verdict::PassFragment);
    }
    if server_return::is_alone(&slot) {
        let length = packet.len;
        return server_return::send_untagged::<F>(frame, link, slot.index, tag, length);
    }
    let departure = departure::of::<F>(frame, &Found { slot, tag }, packet.ttl)?;
    // Nobody is told about a fragment without ports (RFC 1122, section 3.2.2).
    if departure.ends(packet.ttl) {
        return Err(Verdict::DropTtlExceeded);
    }
    if packet.l3_length > departure.mtu as usize {
        return Err(Verdict::DropTooBig);
    }
    departure.check()?;
    departure.count(packet.len);
    // SAFETY: the frame has not been resized since it was parsed.
    unsafe { packet.rewrite_network(&departure.rewrite) };
    Ok((departure.send(frame, link)?, departure.verdict))
}

impl Followed for V4 {
    const FAMILY: u8 = FAMILY_V4;

    #[inline(always)]
    fn keep(key: &FragmentKey<u32>, first: &FirstFragment) {
        // A table that cannot take it only costs the later fragments.
        let _ = FRAGMENTS4.insert(key, first, 0);
    }

    #[inline(always)]
    fn widen(address: &u32, words: &mut [u32; 4]) {
        *words = [*address, 0, 0, 0];
    }

    #[inline(always)]
    fn recall(key: &FragmentKey<u32>) -> Option<FirstFragment> {
        // SAFETY: an entry that is given to another packet meanwhile has a slot and tag that fit
        // each other, or the comparison with the slot's own tag fails.
        unsafe { FRAGMENTS4.get(key) }.copied()
    }
}

impl Followed for V6 {
    const FAMILY: u8 = FAMILY_V6;

    #[inline(always)]
    fn keep(key: &FragmentKey<[u32; 4]>, first: &FirstFragment) {
        let _ = FRAGMENTS6.insert(key, first, 0);
    }

    #[inline(always)]
    fn widen(address: &[u32; 4], words: &mut [u32; 4]) {
        *words = *address;
    }

    #[inline(always)]
    fn recall(key: &FragmentKey<[u32; 4]>) -> Option<FirstFragment> {
        // SAFETY: as above.
        unsafe { FRAGMENTS6.get(key) }.copied()
    }
}
