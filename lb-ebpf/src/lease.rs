//! Switches that the agent has to renew: each falls by itself once the agent has gone.

use core::cell::UnsafeCell;

use crate::flow;

/// A global of the programs that the agent writes: on or off in the lower half, in the upper one the
/// tick after which it is over (`lb_common::trace::TraceSwitch`, `lb_common::fragment::HoldSwitch`).
#[repr(transparent)]
pub(crate) struct Lease(UnsafeCell<u64>);

// SAFETY: an aligned word, which is read and written whole.
unsafe impl Sync for Lease {}

impl Lease {
    /// One that is off.
    pub(crate) const fn off() -> Self {
        Self(UnsafeCell::new(0))
    }

    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: valid and aligned; volatile because the agent writes it.
        unsafe { self.0.get().read_volatile() }
    }

    /// Whether it is on, be it over or not.
    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.load() as u32 != 0
    }

    /// Whether it is on and not over; switches it off if it is.
    #[inline(always)]
    pub(crate) fn holds(&self) -> bool {
        let word = self.load();
        if word as u32 == 0 {
            return false;
        }
        if flow::now().wrapping_sub((word >> 32) as u32) as i32 > 0 {
            // SAFETY: as above.
            unsafe { self.0.get().write_volatile(0) };
            return false;
        }
        true
    }
}
