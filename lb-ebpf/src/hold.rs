//! Fragments that come before the first one of their packet: nothing here can keep them, so they go
//! to the agent, which gives them to the programs again once the first one has come.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_perf_event_output;
use lb_common::{
    fragment::{FragmentKey, HeldHeader, MAX_HELD},
    verdict::Verdict,
};

use crate::{
    fragment::Followed,
    lease::Lease,
    maps::{HELD, HELD_HEADER},
    packet::Frame,
};

/// In a section of its own, which the agent finds by its name.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.hold")]
static HOLD_SWITCH: Lease = Lease::off();

/// `BPF_F_CURRENT_CPU`: to this CPU's buffer.
const THIS_CPU: u64 = 0xffff_ffff;

/// Hands a frame to the agent; the verdict says whether it has been.
#[inline(always)]
pub(crate) fn hand_over<F: Followed>(frame: &Frame, key: &FragmentKey<F::Addr>) -> Verdict {
    let length = frame.len() as u32;
    if length > MAX_HELD || !HOLD_SWITCH.holds() {
        return Verdict::PassFragment;
    }
    let Some(header) = HELD_HEADER.get_ptr_mut(0) else {
        return Verdict::DropInternal;
    };
    // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU meanwhile.
    unsafe {
        F::widen(&key.saddr, &mut (*header).key.saddr);
        F::widen(&key.daddr, &mut (*header).key.daddr);
        (*header).key.id = key.id;
        (*header).key.proto = key.proto;
        (*header).ifindex = frame.ingress;
        (*header).length = length;
        (*header).family = F::FAMILY as u32;
        (*header).reserved = 0;
    }
    let flags = (length as u64) << 32 | THIS_CPU;
    // SAFETY: the program's own context, whose first `length` bytes go after the header. Nobody may
    // listen on this CPU, or the buffer be full: the kernel says so.
    let refused = unsafe {
        bpf_perf_event_output(
            frame.ctx,
            (&raw const HELD).cast_mut().cast::<c_void>(),
            flags,
            header.cast::<c_void>(),
            size_of::<HeldHeader>() as u64,
        )
    };
    if refused == 0 {
        Verdict::HoldFragment
    } else {
        Verdict::PassFragment
    }
}
