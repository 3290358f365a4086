//! Per-CPU counters.

use lb_common::{entry::Counter, flow::Kind, verdict::Verdict};

use crate::maps::{BACKEND_STATS, EVICTION_STATS, VERDICT_STATS};

#[inline(always)]
fn add(counter: &mut Counter, len: u64) {
    counter.packets += 1;
    counter.bytes += len;
}

/// Counts how a packet's way ended.
#[inline(always)]
pub(crate) fn count_verdict(verdict: Verdict, len: u64) {
    count_index(verdict as u32, len);
}

/// The same for a verdict in a number.
#[inline(always)]
pub(crate) fn count_index(verdict: u32, len: u64) {
    if let Some(counter) = VERDICT_STATS.get_ptr_mut(verdict) {
        // SAFETY: a valid pointer to this CPU's value, which no other CPU writes.
        add(unsafe { &mut *counter }, len);
    }
}

/// Counts a packet to or from a backend.
#[inline(always)]
pub(crate) fn count_backend(backend: u32, kind: Kind, len: u64) {
    if let Some(stats) = BACKEND_STATS.get_ptr_mut(backend) {
        // SAFETY: as above.
        let stats = unsafe { &mut *stats };
        match kind {
            Kind::Forward => add(&mut stats.inbound, len),
            Kind::Reply => add(&mut stats.outbound, len),
        }
    }
}

/// Counts a flow created towards a backend.
#[inline(always)]
pub(crate) fn count_flow(backend: u32) {
    if let Some(stats) = BACKEND_STATS.get_ptr_mut(backend) {
        // SAFETY: as above.
        unsafe { (*stats).flows += 1 };
    }
}

/// Counts a flow that gave way to a newer one.
#[inline(always)]
pub(crate) fn count_eviction(closed: bool) {
    if let Some(stats) = EVICTION_STATS.get_ptr_mut(0) {
        // SAFETY: as above.
        let stats = unsafe { &mut *stats };
        if closed {
            stats.closed += 1;
        } else {
            stats.half_open += 1;
        }
    }
}
