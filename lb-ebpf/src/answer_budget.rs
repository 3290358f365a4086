//! How many ICMP errors the node makes of its own accord: a token bucket on each CPU, so that a
//! flood of packets that nobody can forward does not become a flood of answers.

use crate::{flow, maps::ANSWER_BUDGET, settings::setting};

/// Answers a second and CPU, on average.
const RATE: u64 = 250;
/// Answers at once.
const BURST: u64 = 50;

/// A bucket. Its contents are counted in answers times ticks a second, so that no division is
/// needed.
#[repr(C)]
pub(crate) struct Bucket {
    level: u64,
    /// Tick counter when it was last filled.
    filled: u32,
    /// Zero: never used, and thus full.
    used: u32,
}

/// Takes one answer out of this CPU's bucket. `false`: it is empty.
#[inline(always)]
pub(crate) fn take() -> bool {
    let Some(bucket) = ANSWER_BUDGET.get_ptr_mut(0) else {
        return false;
    };
    let (now, second) = (flow::now(), setting!(refresh_ticks) as u64);
    // SAFETY: this CPU's value, which no other CPU writes.
    let bucket = unsafe { &mut *bucket };
    let passed = now.wrapping_sub(bucket.filled) as u64;
    let level = bucket.level + passed * RATE;
    let full = BURST * second;
    let level = if bucket.used == 0 || level > full {
        full
    } else {
        level
    };
    bucket.used = 1;
    bucket.filled = now;
    bucket.level = level;
    if level < second {
        return false;
    }
    bucket.level = level - second;
    true
}
