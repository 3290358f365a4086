//! The driver of the datapath benchmark. `BPF_PROG_TEST_RUN` feeds the program's output back to it
//! when it repeats, so the program under test would see its own rewritten packet: the driver
//! writes the packet anew each time, varies the flow, and tail-calls.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![allow(
    missing_docs,
    reason = "the macro of the entry points makes undocumented functions"
)]

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
    btf_maps::{Array, PerCpuArray},
    macros::{btf_map, map, xdp},
    maps::ProgramArray,
    programs::XdpContext,
};

/// Words of a packet that the driver writes.
const WORDS: usize = 12;

/// The packet and how it varies.
#[repr(C)]
pub struct Template {
    /// The frame, at least 96 bytes.
    pub words: [u64; WORDS],
    /// Number of flows minus one; a power of two minus one.
    pub mask: u32,
    /// Offset in the frame of the 32-bit word that the flow number is added to, in network byte
    /// order: the lower half of the client's address.
    pub at: u32,
}

#[btf_map]
static TEMPLATE: Array<Template, 1> = Array::new();
#[btf_map]
static COUNT: PerCpuArray<u64, 1> = PerCpuArray::new();
/// The program under test.
#[map]
static PROGRAM: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Writes the packet and calls the program under test.
#[xdp]
pub fn lb_bench(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    let Some(template) = TEMPLATE.get(0) else {
        return XDP_ABORTED;
    };
    let Some(count) = COUNT.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    if start + WORDS * 8 > end {
        return XDP_ABORTED;
    }
    // SAFETY: this CPU's value; the frame is long enough.
    unsafe {
        let number = *count;
        *count = number + 1;
        for index in 0..WORDS {
            (start as *mut u64)
                .add(index)
                .write_unaligned(template.words[index]);
        }
        // An odd factor: all flows, in an order that no prefetcher follows.
        let flow = (number as u32).wrapping_mul(0x9e37_79b1) & template.mask;
        let at = template.at as usize & 63;
        let word = (start + at) as *mut u32;
        if word as usize + 4 <= end {
            word.write_unaligned(
                u32::from_be(word.read_unaligned())
                    .wrapping_add(flow)
                    .to_be(),
            );
        }
        PROGRAM.tail_call(&ctx, 0);
    }
    XDP_ABORTED
}

/// The floor: transmits without a look.
#[xdp]
pub fn lb_transmit(_ctx: XdpContext) -> u32 {
    XDP_TX
}

/// The floor of dropping: looks at the IP header as `lb_xdp` does, and drops what has a source.
#[xdp]
pub fn lb_parse_drop(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 54 > end {
        return XDP_PASS;
    }
    // SAFETY: the frame is long enough; headers lie at any address.
    unsafe {
        let at = |offset: usize| (start + offset) as *const u8;
        let (version, length, source) = match u16::from_be(at(12).cast::<u16>().read_unaligned()) {
            0x0800 => (
                *at(14) >> 4,
                u16::from_be(at(16).cast::<u16>().read_unaligned()) as usize,
                at(26).cast::<u32>().read_unaligned(),
            ),
            0x86dd => (
                *at(14) >> 4,
                u16::from_be(at(18).cast::<u16>().read_unaligned()) as usize + 40,
                at(22).cast::<u32>().read_unaligned() | at(34).cast::<u32>().read_unaligned(),
            ),
            _ => return XDP_PASS,
        };
        if (version != 4 && version != 6) || 14 + length > end - start || source == 0 {
            return XDP_PASS;
        }
    }
    XDP_DROP
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel admits some helpers to programs under the GPL only.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
