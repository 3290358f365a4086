//! The bricks: single operations whose cost says what kind of machine this is. Each transmits.

use core::{
    hint::black_box,
    intrinsics::{AtomicOrdering, atomic_xadd},
};

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_TX},
    btf_maps::{Array, HashMap},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// Size of an IPv4 flow's key.
type Key = [u32; 4];

/// The kernel's hash map. Filled by the benchmark with keys of one word and zeros.
#[btf_map]
static HASH: HashMap<Key, u64, 65_536> = HashMap::new();
/// As many cache lines as the flow table has; the benchmark says how many.
#[btf_map]
static LINES: Array<[u64; 8], 1024> = Array::new();
/// What [`lb_line_followed`] read last: zero, which the processor does not know before.
#[btf_map]
static READ: Array<u64, 1> = Array::new();

/// One lookup in the kernel's hash map, the same each time.
#[xdp]
pub fn lb_hash(_ctx: XdpContext) -> u32 {
    let key: Key = [1, 0, 0, 0];
    // SAFETY: nobody changes the entry.
    match unsafe { HASH.get(black_box(&key)) } {
        Some(_) => XDP_TX,
        None => XDP_ABORTED,
    }
}

/// Calls of a function that does nothing in [`lb_calls`].
const CALLS: usize = 8;

/// Eight calls of a function of its own, one after the other.
#[xdp]
pub fn lb_calls(ctx: XdpContext) -> u32 {
    let mut word = ctx.ingress_ifindex() as u32;
    for _ in 0..CALLS {
        word = lb_called(word);
    }
    if word == 0 { XDP_ABORTED } else { XDP_TX }
}

/// What [`lb_calls`] calls.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_called(word: u32) -> u32 {
    black_box(word) | 1
}

/// One cache line of an array as large as the flow table, by a hash of the packet: what no table
/// of so many flows can do without.
#[xdp]
pub fn lb_line(ctx: XdpContext) -> u32 {
    match line(&ctx) {
        // SAFETY: map memory.
        Some(line) if unsafe { (*line)[0] } == 0 => XDP_TX,
        _ => XDP_ABORTED,
    }
}

/// The same, and a word of the line is added to: nothing goes on before the line is there, which
/// is what no rule with a counter can do without.
#[xdp]
pub fn lb_line_counted(ctx: XdpContext) -> u32 {
    let Some(line) = line(&ctx) else {
        return XDP_ABORTED;
    };
    // SAFETY: map memory, aligned to eight bytes.
    let before = unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(line.cast::<u64>().add(1), 1)
    };
    if before == u64::MAX {
        XDP_ABORTED
    } else {
        XDP_TX
    }
}

/// The same line, and which one it is cannot be known before the line of the packet before is
/// there. The processor runs ahead of [`lb_line`] and fetches several packets' lines at once; the
/// programs of the datapath are too long for that, and pay what this one pays.
#[xdp]
pub fn lb_line_followed(ctx: XdpContext) -> u32 {
    let Some(read) = READ.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: map memory, of one test run at a time; volatile, so that it is read each time.
    let before = unsafe { read.read_volatile() };
    let Some(line) = line_after(&ctx, before) else {
        return XDP_ABORTED;
    };
    // SAFETY: as above.
    unsafe { read.write_volatile((*line)[0]) };
    if before == 0 { XDP_TX } else { XDP_ABORTED }
}

/// The line that a packet leads to.
#[inline(always)]
fn line(ctx: &XdpContext) -> Option<*mut [u64; 8]> {
    line_after(ctx, 0)
}

/// The line that a packet leads to after what was read `before`.
#[inline(always)]
fn line_after(ctx: &XdpContext, before: u64) -> Option<*mut [u64; 8]> {
    let at = ctx.data() + 26;
    if at + 12 > ctx.data_end() {
        return None;
    }
    // SAFETY: within the frame, by the check above.
    let (saddr, daddr_ports) = unsafe {
        (
            (at as *const u32).read_unaligned(),
            ((at + 4) as *const u64).read_unaligned(),
        )
    };
    let hash = lb_common::hash::finish(lb_common::hash::mix(saddr as u64 ^ before, daddr_ports));
    let mask = LINE_MASK.load();
    LINES.get_ptr_mut((hash >> 32) as u32 & mask)
}

/// Number of lines minus one, set by the benchmark.
#[unsafe(no_mangle)]
static LINE_MASK: Mask = Mask(0);

#[repr(transparent)]
struct Mask(u32);

impl Mask {
    #[inline(always)]
    fn load(&self) -> u32 {
        // SAFETY: a valid static; volatile because the loader replaces its bytes.
        unsafe { core::ptr::read_volatile(&raw const self.0) }
    }
}
