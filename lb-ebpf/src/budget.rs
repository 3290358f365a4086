//! The budget for new flows: a flood may not turn the table over faster than clients can answer.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg},
    ptr,
};

use crate::{maps::BUDGET, settings::setting};

/// Whether one more new flow is admitted at `now`, in ticks; counts it.
///
/// The word holds the number of the window in its upper half and the flows counted in the lower.
/// CPUs that meet in it may admit a few more than the budget: it bounds, it does not measure.
#[inline(always)]
pub(crate) fn admits(now: u32) -> bool {
    let budget = setting!(budget);
    if budget == 0 {
        return true;
    }
    let Some(word) = BUDGET.get_ptr_mut(0) else {
        return true;
    };
    let window = (now >> (setting!(budget_shift) & 31)) as u64;
    // SAFETY: map memory, aligned to eight bytes.
    let held = unsafe { ptr::read_volatile(word) };
    let next = if held >> 32 == window {
        if held as u32 >= budget {
            return false;
        }
        held + 1
    } else {
        window << 32 | 1
    };
    // SAFETY: as above.
    let _ = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::Relaxed }, { AtomicOrdering::Relaxed }>(
            word, held, next,
        )
    };
    true
}
