//! The driver of the datapath benchmark. `BPF_PROG_TEST_RUN` feeds the program's output back to it
//! when it repeats, so the program under test would see its own rewritten packet: the driver
//! writes the packet anew each time, varies the flow, and tail-calls.
//!
//! Beside it stand the programs that everything is compared with: see [`floor`] and [`brick`];
//! and those of the benchmark of dropping, which the driver calls as well: see [`flood`].

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![allow(
    missing_docs,
    reason = "the macro of the entry points makes undocumented functions"
)]
#![allow(
    internal_features,
    reason = "an atomic addition has no stable form on this target"
)]
#![feature(core_intrinsics)]

mod brick;
mod flood;
mod floor;

use aya_ebpf::{
    bindings::xdp_action::XDP_ABORTED,
    btf_maps::Array,
    helpers::generated::bpf_xdp_adjust_head,
    macros::{btf_map, map, xdp},
    maps::ProgramArray,
    programs::XdpContext,
};
use lb_common::bench::{FIELDS, FIRST_WORD, FRAME, Template, WORDS, flow};

#[btf_map]
static TEMPLATE: Array<Template, 1> = Array::new();
/// Packets so far. One for all CPUs: a test run may go on on another one, and there is only one
/// at a time.
#[btf_map]
static COUNT: Array<u64, 1> = Array::new();
/// The program under test.
#[map]
static PROGRAM: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Writes the packet and calls the program under test.
#[xdp]
pub fn lb_bench(ctx: XdpContext) -> u32 {
    let grown = ctx.data_end() - ctx.data();
    if grown != FRAME {
        // What the program has put around the packet before is taken off again.
        // SAFETY: the program's own context.
        unsafe { bpf_xdp_adjust_head(ctx.ctx, grown as i32 - FRAME as i32) };
    }
    let (start, end) = (ctx.data(), ctx.data_end());
    let Some(template) = TEMPLATE.get(0) else {
        return XDP_ABORTED;
    };
    let Some(count) = COUNT.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    if start + FRAME > end {
        return XDP_ABORTED;
    }
    // SAFETY: the counter is nobody else's; the frame is long enough.
    unsafe {
        let flow = flow(*count, template.mask, template.fold);
        *count += 1;
        (start as *mut u64).write_unaligned(template.first);
        let words = (start + FIRST_WORD) as *mut u64;
        for index in 0..WORDS {
            words.add(index).write_unaligned(template.words[index]);
        }
        for index in 0..FIELDS {
            let field = &template.fields[index];
            let word = words.add(field.word as usize & 7);
            // Never: for the verifier, which forgets the frame's length over a variable offset.
            if word as usize + 8 > end {
                return XDP_ABORTED;
            }
            let varied = (((flow >> (field.shift & 31)) & field.mask) as u64) << (field.left & 63);
            word.write_unaligned(
                u64::from_be(word.read_unaligned())
                    .wrapping_add(varied)
                    .to_be(),
            );
        }
        PROGRAM.tail_call(&ctx, 0);
    }
    XDP_ABORTED
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
