//! How fast the machine is that the tests run on: their limits are for a usual one.

use std::{sync::LazyLock, time::Duration};

/// Variable that says how many times slower than usual the machine is: an emulated one, for instance.
pub const SLOWNESS_VARIABLE: &str = "LB_TESTS_SLOWNESS";

/// `limit` as it is on this machine, by [`SLOWNESS_VARIABLE`].
pub fn at_this_pace(limit: Duration) -> Duration {
    static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
        let Some(text) = std::env::var_os(SLOWNESS_VARIABLE) else {
            return 1;
        };
        let number = text.to_str().and_then(|text| text.parse().ok());
        number.unwrap_or_else(|| panic!("{SLOWNESS_VARIABLE} is {text:?}, which is no number"))
    });
    limit * *SLOWNESS
}
