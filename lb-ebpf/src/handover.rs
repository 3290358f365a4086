//! What XDP cannot send goes on in tc: the frame is marked in the metadata in front of it, which the
//! kernel's buffer keeps (Documentation/bpf of the kernel: `bpf_xdp_adjust_meta`). Nothing on the
//! wire can carry the mark, and a driver without room for metadata refuses it.

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_xdp_adjust_meta, programs::TcContext};

use crate::packet::Frame;

/// What stands in the metadata: so that another program's metadata is not taken for ours.
const MARK: u64 = 0x6c62_2d61_6765_6e74;

/// Marks the frame of an XDP program. `false`: there is no room.
#[inline(always)]
pub(crate) fn mark(frame: &Frame) -> bool {
    let ctx = frame.ctx.cast::<xdp_md>();
    // SAFETY: an XDP program's own context; no pointer into the frame is used after this.
    unsafe {
        if bpf_xdp_adjust_meta(ctx, -(size_of::<u64>() as i32)) != 0 {
            return false;
        }
        let meta = (*ctx).data_meta as usize as *mut u64;
        if meta.add(1) as usize > (*ctx).data as usize {
            return false;
        }
        meta.write_unaligned(MARK);
    }
    true
}

/// Whether XDP has marked the frame. The mark is taken off: the buffer may come by another program
/// of ours, in another network namespace.
#[inline(always)]
pub(crate) fn take_mark(ctx: &TcContext) -> bool {
    let skb = ctx.skb.skb;
    // SAFETY: a tc program's own context; the bounds are checked.
    unsafe {
        let meta = (*skb).data_meta as usize as *mut u64;
        if meta.add(1) as usize > (*skb).data as usize || meta.read_unaligned() != MARK {
            return false;
        }
        meta.write_unaligned(0);
    }
    true
}
