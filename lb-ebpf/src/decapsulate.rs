//! Packets that another node sends within a header of its own, for VIPs that this node holds: the
//! header is taken off, and the packet goes to the stack.
//!
//! Everything else that is within another header is left as it is. So is what RFC 6040 (section
//! 4.2) has dropped, marked by a congested router although the packet cannot tell of it: the stack,
//! which knows no such tunnel, drops it.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, xdp_md},
    btf_maps::lpm_trie::Key,
    helpers::generated::{bpf_skb_adjust_room, bpf_xdp_adjust_head},
};
use lb_common::{checksum, entry::AddressKey, settings::decapsulate as bits, verdict::Verdict};

use crate::{
    block,
    family::{Family, V4, V6},
    headers::{
        Ethernet, IPPROTO_IPIP, IPPROTO_IPV6, IPV4_FRAGMENT_OFFSET, IPV4_MORE_FRAGMENTS, Ipv4, Ipv6,
    },
    maps::{HELD_VIPS, SENDERS4, SENDERS6},
    packet::{Frame, Hook},
    settings::setting,
    transmit::to_stack,
};

const L3: usize = size_of::<Ethernet>();
/// Congestion experienced (RFC 3168, section 5), and the bits it is told by.
const CONGESTED: u8 = 3;

/// What a family adds for packets within another header of its own.
pub(crate) trait Decapsulate: Family {
    /// Its network header.
    type Header: Copy;

    /// [`look`] as a function of the program for this hook.
    fn look(frame: &Frame) -> u64;

    /// [`take_off`] as such a function.
    fn take_off(frame: &Frame) -> u64;

    /// Bytes of a header with its options, and of the whole packet; `None` for what is no packet
    /// of this family.
    fn lengths(header: &Self::Header) -> Option<(usize, usize)>;

    /// Whether the header has a whole packet of this family within.
    fn is_around(header: &Self::Header) -> bool;

    /// Whether the header comes from a node that may send.
    fn is_sender(header: &Self::Header) -> bool;

    /// Whether the packet is for a VIP that this node holds.
    fn is_held(header: &Self::Header) -> bool;

    /// Where the packet comes from.
    fn source(header: &Self::Header) -> Self::Addr;

    /// Whether a source is blocked; counts it if so.
    fn is_blocked(source: &Self::Addr, len: usize) -> bool;

    /// Type of service, or traffic class.
    fn class(header: &Self::Header) -> u8;

    /// Marks the packet as one that has met congestion.
    ///
    /// # Safety
    ///
    /// The header must be valid.
    unsafe fn mark(header: *mut Self::Header);
}

/// Takes the header off a packet that has one for us. `None`: it has no packet within, and the frame
/// is as it was. Otherwise no pointer into the frame is valid afterwards, and there is nothing more
/// to find out: it is not of a flow of ours.
#[inline(always)]
pub(crate) fn packet<F: Decapsulate>(frame: &Frame) -> Option<Result<(u32, Verdict), Verdict>> {
    let outer = frame.at::<F::Header>(L3)?;
    // SAFETY: `at` checked the bounds; the structs are packed.
    if !F::is_around(unsafe { &*outer }) {
        return None;
    }
    Some(free::<F>(frame))
}

/// Goes on with what has a packet within. The address to be looked up on the block list is handed
/// from function to function in the scratch memory for new flows, of which this packet is none: the
/// list's functions have no room on the stack below another.
#[inline(always)]
fn free<F: Decapsulate>(frame: &Frame) -> Result<(u32, Verdict), Verdict> {
    if F::look(frame) == 0 {
        return Err(Verdict::PassForeign);
    }
    let draft = F::draft().ok_or(Verdict::DropInternal)?;
    // SAFETY: this CPU's scratch memory, which `look` has written.
    if F::is_blocked(unsafe { &(*draft).key.saddr }, frame.len()) {
        return Err(Verdict::DropBlocked);
    }
    match F::take_off(frame) {
        BROKEN => Err(Verdict::DropInternal),
        action => Ok((action as u32, Verdict::PassDecapsulated)),
    }
}

/// Answer of [`take_off`] where the kernel refuses.
const BROKEN: u64 = u64::MAX;

/// See [`Decapsulate::look`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_look_xdp4(ctx: *mut xdp_md) -> u64 {
    look::<V4>(&Frame::again(ctx.cast(), Hook::Xdp)).is_some() as u64
}

/// See [`Decapsulate::look`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_look_xdp6(ctx: *mut xdp_md) -> u64 {
    look::<V6>(&Frame::again(ctx.cast(), Hook::Xdp)).is_some() as u64
}

/// See [`Decapsulate::look`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_look_tc4(ctx: *mut __sk_buff) -> u64 {
    look::<V4>(&Frame::again(ctx.cast(), Hook::Tc)).is_some() as u64
}

/// See [`Decapsulate::look`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_look_tc6(ctx: *mut __sk_buff) -> u64 {
    look::<V6>(&Frame::again(ctx.cast(), Hook::Tc)).is_some() as u64
}

/// See [`Decapsulate::take_off`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_take_off_xdp4(ctx: *mut xdp_md) -> u64 {
    take_off::<V4>(Frame::again(ctx.cast(), Hook::Xdp)).unwrap_or(BROKEN)
}

/// See [`Decapsulate::take_off`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_take_off_xdp6(ctx: *mut xdp_md) -> u64 {
    take_off::<V6>(Frame::again(ctx.cast(), Hook::Xdp)).unwrap_or(BROKEN)
}

/// See [`Decapsulate::take_off`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_take_off_tc4(ctx: *mut __sk_buff) -> u64 {
    take_off::<V4>(Frame::again(ctx.cast(), Hook::Tc)).unwrap_or(BROKEN)
}

/// See [`Decapsulate::take_off`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_take_off_tc6(ctx: *mut __sk_buff) -> u64 {
    take_off::<V6>(Frame::again(ctx.cast(), Hook::Tc)).unwrap_or(BROKEN)
}

/// The header around a packet that is for us, and the packet's; where that comes from is noted.
#[inline(always)]
fn look<F: Decapsulate>(frame: &Frame) -> Option<()> {
    let (outer, inner, around) = headers::<F>(frame)?;
    // SAFETY: `headers` checked the bounds; the structs are packed.
    let inner = unsafe { *inner };
    let (_, length) = F::lengths(&outer)?;
    let (_, inner_length) = F::lengths(&inner)?;
    if around + inner_length > length || L3 + length > frame.len() || !F::is_held(&inner) {
        return None;
    }
    if setting!(decapsulate) & bits::FROM_SENDERS != 0 && !F::is_sender(&outer) {
        return None;
    }
    if F::class(&outer) & CONGESTED == CONGESTED && F::class(&inner) & CONGESTED == 0 {
        return None;
    }
    // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU meanwhile.
    unsafe { (*F::draft()?).key.saddr = F::source(&inner) };
    Some(())
}

/// Both headers, and the bytes of the first.
#[inline(always)]
fn headers<F: Decapsulate>(frame: &Frame) -> Option<(F::Header, *mut F::Header, usize)> {
    let outer = frame.at::<F::Header>(L3)?;
    // SAFETY: `at` checked the bounds; the structs are packed.
    let outer = unsafe { *outer };
    let (around, _) = F::lengths(&outer)?;
    let inner = frame.at::<F::Header>(L3 + around)?;
    Some((outer, inner, around))
}

#[inline(always)]
fn take_off<F: Decapsulate>(frame: Frame) -> Option<u64> {
    let (outer, inner, around) = headers::<F>(&frame)?;
    if F::class(&outer) & CONGESTED == CONGESTED {
        // SAFETY: `at` checked the bounds, here and below.
        unsafe { F::mark(inner) };
    }
    let link = frame.at::<Ethernet>(0)?;
    // SAFETY: as above.
    let link = unsafe { *link };
    let bytes = around as i32;
    // SAFETY: the program's own context; no pointer into the frame is used after this.
    let answer = unsafe {
        match frame.hook {
            Hook::Xdp => bpf_xdp_adjust_head(frame.ctx.cast(), bytes),
            Hook::Tc => bpf_skb_adjust_room(
                frame.ctx.cast(),
                -bytes,
                BPF_ADJ_ROOM_MAC,
                BPF_F_ADJ_ROOM_FIXED_GSO as u64,
            ),
        }
    };
    if answer != 0 {
        return Some(BROKEN);
    }
    if frame.hook == Hook::Xdp {
        let frame = Frame::again(frame.ctx, Hook::Xdp);
        let Some(ethernet) = frame.at::<Ethernet>(0) else {
            return Some(BROKEN);
        };
        // SAFETY: as above.
        unsafe { *ethernet = link };
    }
    Some(to_stack(frame.hook) as u64)
}

impl Decapsulate for V4 {
    type Header = Ipv4;

    #[inline(always)]
    fn look(frame: &Frame) -> u64 {
        match frame.hook {
            Hook::Xdp => lb_look_xdp4(frame.ctx.cast()),
            Hook::Tc => lb_look_tc4(frame.ctx.cast()),
        }
    }

    #[inline(always)]
    fn take_off(frame: &Frame) -> u64 {
        match frame.hook {
            Hook::Xdp => lb_take_off_xdp4(frame.ctx.cast()),
            Hook::Tc => lb_take_off_tc4(frame.ctx.cast()),
        }
    }

    #[inline(always)]
    fn lengths(header: &Ipv4) -> Option<(usize, usize)> {
        let own = (header.version_ihl & 15) as usize * 4;
        let whole = u16::from_be(header.total_length) as usize;
        let fits = header.version_ihl >> 4 == 4 && own >= size_of::<Ipv4>() && whole >= own;
        fits.then_some((own, whole))
    }

    #[inline(always)]
    fn is_around(header: &Ipv4) -> bool {
        let [_, proto] = header.ttl_proto.to_ne_bytes();
        proto == IPPROTO_IPIP && header.fragment & (IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS) == 0
    }

    #[inline(always)]
    fn is_sender(header: &Ipv4) -> bool {
        SENDERS4.get(&Key::new(32, header.saddr)).is_some()
    }

    #[inline(always)]
    fn is_held(header: &Ipv4) -> bool {
        // SAFETY: only whether it is there counts.
        unsafe { HELD_VIPS.get(AddressKey::v4(header.daddr)) }.is_some()
    }

    #[inline(always)]
    fn source(header: &Ipv4) -> u32 {
        header.saddr
    }

    #[inline(always)]
    fn is_blocked(source: &u32, len: usize) -> bool {
        block::source4(*source, len)
    }

    #[inline(always)]
    fn class(header: &Ipv4) -> u8 {
        header.tos
    }

    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn mark(header: *mut Ipv4) {
        // SAFETY: the caller's header; the struct is packed.
        unsafe {
            let old = u16::from_ne_bytes([(*header).version_ihl, (*header).tos]);
            (*header).tos |= CONGESTED;
            let new = u16::from_ne_bytes([(*header).version_ihl, (*header).tos]);
            let delta = checksum::fold(checksum::replace16(old, new));
            (*header).checksum = checksum::apply((*header).checksum, delta);
        }
    }
}

impl Decapsulate for V6 {
    type Header = Ipv6;

    #[inline(always)]
    fn look(frame: &Frame) -> u64 {
        match frame.hook {
            Hook::Xdp => lb_look_xdp6(frame.ctx.cast()),
            Hook::Tc => lb_look_tc6(frame.ctx.cast()),
        }
    }

    #[inline(always)]
    fn take_off(frame: &Frame) -> u64 {
        match frame.hook {
            Hook::Xdp => lb_take_off_xdp6(frame.ctx.cast()),
            Hook::Tc => lb_take_off_tc6(frame.ctx.cast()),
        }
    }

    #[inline(always)]
    fn lengths(header: &Ipv6) -> Option<(usize, usize)> {
        let own = size_of::<Ipv6>();
        let whole = own + u16::from_be(header.payload_length) as usize;
        let is_v6 = u32::from_be(header.version_class_label) >> 28 == 6;
        is_v6.then_some((own, whole))
    }

    #[inline(always)]
    fn is_around(header: &Ipv6) -> bool {
        header.next_header == IPPROTO_IPV6
    }

    #[inline(always)]
    fn is_sender(header: &Ipv6) -> bool {
        let key = Aligned {
            padding: 0,
            key: Key::new(128, header.saddr),
        };
        SENDERS6.get(&key.key).is_some()
    }

    #[inline(always)]
    fn is_held(header: &Ipv6) -> bool {
        let daddr = header.daddr;
        // SAFETY: only whether it is there counts.
        unsafe { HELD_VIPS.get(AddressKey::v6(&daddr)) }.is_some()
    }

    #[inline(always)]
    fn source(header: &Ipv6) -> [u32; 4] {
        header.saddr
    }

    #[inline(always)]
    fn is_blocked(source: &[u32; 4], len: usize) -> bool {
        block::source6(source, len)
    }

    #[inline(always)]
    fn class(header: &Ipv6) -> u8 {
        (u32::from_be(header.version_class_label) >> 20) as u8
    }

    /// # Safety
    ///
    /// As the trait says.
    #[inline(always)]
    unsafe fn mark(header: *mut Ipv6) {
        // SAFETY: as above.
        unsafe { (*header).version_class_label |= ((CONGESTED as u32) << 20).to_be() };
    }
}

/// Puts the address of a key at a multiple of eight, as in `block`.
#[repr(C, align(8))]
struct Aligned {
    padding: u32,
    key: Key<[u32; 4]>,
}
