//! The time by which holds and shifts are measured: the wall clock as it was when the agent started,
//! and what has passed since. Whoever sets the wall clock (a host that has slept, a first answer of
//! NTP) must not end a hold, for clients would lose their backends by it, nor make one last for ever.
//!
//! What people gave an end by the calendar, such as block rules, goes by the wall clock.

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime},
};

static START: LazyLock<(SystemTime, Instant)> =
    LazyLock::new(|| (SystemTime::now(), Instant::now()));

/// The present time, which never steps.
pub(super) fn now() -> SystemTime {
    let (wall, at) = *START;
    wall + at.elapsed()
}
