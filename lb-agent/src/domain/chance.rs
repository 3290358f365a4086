//! Chance for tests: the same each time, unless `LB_FUZZ_SEED` names another (`cargo xtask fuzz`).

use rand::{SeedableRng as _, rngs::StdRng};

/// A generator of the test that has this number.
pub(crate) fn of_test(number: u64) -> StdRng {
    let seed = std::env::var("LB_FUZZ_SEED").map_or(0, |seed| {
        seed.parse::<u64>().expect("LB_FUZZ_SEED is a number")
    });
    // Printed with a failure only.
    if seed != 0 {
        println!("LB_FUZZ_SEED={seed}");
    }
    StdRng::seed_from_u64(number ^ seed)
}
