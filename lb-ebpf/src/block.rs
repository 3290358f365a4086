//! The block list: the first verdict on every IP packet.

use aya_ebpf::btf_maps::lpm_trie::Key;

use crate::{
    maps::{BLOCK_CONTROL, BLOCK4, BLOCK6},
    stats::count_blocked,
};

/// A key whose address lies where eight bytes of it may be stored at once, which the compiler does
/// and the verifier admits on aligned addresses only.
#[repr(C, align(8))]
struct Aligned {
    _front: u32,
    key: Key<[u32; 4]>,
}

/// Whether an IPv4 source is blocked; counts it against the rule if so.
#[inline(always)]
pub(crate) fn source4(saddr: u32, len: usize) -> bool {
    let any = BLOCK_CONTROL
        .get(0)
        .is_some_and(|control| control.rules4 != 0);
    if !any {
        return false;
    }
    match BLOCK4.get(&Key::new(32, saddr)) {
        Some(rule) => {
            count_blocked(rule.id, len as u64);
            true
        }
        None => false,
    }
}

/// Whether an IPv6 source is blocked; counts it against the rule if so.
#[inline(always)]
pub(crate) fn source6(saddr: &[u32; 4], len: usize) -> bool {
    let any = BLOCK_CONTROL
        .get(0)
        .is_some_and(|control| control.rules6 != 0);
    if !any {
        return false;
    }
    let aligned = Aligned {
        _front: 0,
        key: Key::new(128, *saddr),
    };
    match BLOCK6.get(&aligned.key) {
        Some(rule) => {
            count_blocked(rule.id, len as u64);
            true
        }
        None => false,
    }
}
