//! The read-only globals, written by the agent before the programs are loaded.

use lb_common::{entry::hop_number, flow::Lifetimes, maps::MAX_INTERFACES, settings::Settings};

/// Replaced by the loader; the verifier knows the values and drops dead branches.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    seed: 0,
    bucket_mask: 0,
    refresh_ticks: 0,
    lifetimes: Lifetimes {
        tcp_half_open: 0,
        tcp_established: 0,
        tcp_closing: 0,
        tcp_finished: 0,
        udp_half_open: 0,
        udp_established: 0,
    },
    grace_ticks: 0,
    budget: 0,
    budget_shift: 0,
    port_first: 0,
    port_last: 0,
    interface_count: 0,
    interfaces: [0; MAX_INTERFACES],
    announce: 0,
    decapsulate: 0,
    pending: 0,
};

/// Reads one field of the settings, past the compiler, which would fold the zeros above.
macro_rules! setting {
    ($($field:ident).+) => {{
        // SAFETY: a valid, aligned static; volatile because the loader replaces its bytes.
        unsafe { core::ptr::read_volatile(&raw const $crate::settings::globals().$($field).+) }
    }};
}
pub(crate) use setting;

/// The globals, for [`setting`].
#[inline(always)]
pub(crate) fn globals() -> &'static Settings {
    &SETTINGS
}

/// Position of an interface among the configured ones, which is the index of its next hop.
#[inline(always)]
pub(crate) fn interface_position(ifindex: u32) -> Option<u32> {
    let count = setting!(interface_count);
    for position in 0..MAX_INTERFACES {
        if position as u32 >= count {
            break;
        }
        // SAFETY: in bounds of a valid static array; volatile as in `setting`.
        let candidate =
            unsafe { core::ptr::read_volatile(&raw const globals().interfaces[position]) };
        if candidate == ifindex {
            return Some(position as u32);
        }
    }
    None
}

/// What a flow's replies leave by whose client's packets come in on this interface.
#[inline(always)]
pub(crate) fn client_hop(ingress: u32) -> u32 {
    match interface_position(ingress) {
        Some(position) => position,
        // The agent attached here because backends are behind it; see `transmit`.
        None => hop_number::DIRECT | ingress,
    }
}
