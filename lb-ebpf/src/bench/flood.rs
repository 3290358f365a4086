//! The flood: packets on their way out of an interface, as fast as one CPU makes them, and the
//! least that can be done with them where they arrive.

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP},
    btf_maps::Array,
    helpers::generated::bpf_redirect,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// The interface that packets leave by.
#[btf_map]
static OUT: Array<u32, 1> = Array::new();

/// Behind the driver: sends an IPv4 packet out.
#[xdp]
pub fn lb_flood(ctx: XdpContext) -> u32 {
    let Some(ifindex) = OUT.get(0) else {
        return XDP_ABORTED;
    };
    match finish(&ctx) {
        // SAFETY: no pointer is passed.
        Some(()) => (unsafe { bpf_redirect(*ifindex, 0) }) as u32,
        None => XDP_ABORTED,
    }
}

/// The same, but the packet is thrown away before it goes anywhere: what the making costs.
#[xdp]
pub fn lb_flood_nowhere(ctx: XdpContext) -> u32 {
    match finish(&ctx) {
        Some(()) => XDP_DROP,
        None => XDP_ABORTED,
    }
}

/// Where the flood arrives: drops without a look.
#[xdp]
pub fn lb_drop(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// Makes the header's checksum right, which a receiving stack looks at first (RFC 1071). The
/// driver has changed addresses without it.
#[inline(always)]
fn finish(ctx: &XdpContext) -> Option<()> {
    let at = ctx.data() + 14;
    if at + 20 > ctx.data_end() {
        return None;
    }
    // SAFETY: within the frame, by the check above.
    unsafe {
        let words = at as *const u32;
        let mut sum = 0_u64;
        for index in 0..5 {
            let word = words.add(index).read_unaligned();
            // The third ends with the checksum itself.
            sum += if index == 2 { word & 0xffff } else { word } as u64;
        }
        sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        ((at + 10) as *mut u16).write_unaligned(!(sum as u16));
    }
    Some(())
}
