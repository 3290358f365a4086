//! A processor of its own for each thread.
//!
//! Threads that may run anywhere end up on one processor by twos: each is woken by the backend or
//! the client that it talks to, and the kernel likes to run it there. From then on they take turns
//! of a whole tick, 4 ms at 250 Hz, while other processors have room, and every connection of the
//! one waits for the turn of the other. With as many threads as processors none gains by moving.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tracing::warn;

/// The processors that the calling thread may run on, by number.
pub(super) fn usable() -> Vec<usize> {
    sched_getaffinity(None).map_or_else(
        |_| Vec::new(),
        |set| {
            (0..CpuSet::MAX_CPU)
                .filter(|&cpu| set.is_set(cpu))
                .collect()
        },
    )
}

/// Which processor each of `threads` threads has for itself. Empty: they run where the kernel
/// likes. `wanted` is what the configuration says; it leaves it to the number of threads.
pub(super) fn assigned(threads: usize, usable: &[usize], wanted: Option<bool>) -> Vec<usize> {
    if usable.is_empty() || !wanted.unwrap_or(threads == usable.len()) {
        return Vec::new();
    }
    usable.iter().copied().cycle().take(threads).collect()
}

/// Keeps the calling thread on a processor. Where the kernel refuses, it runs where it may.
pub(super) fn stay_on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        warn!(%error, cpu, "a thread of the proxy has no processor of its own");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_each_where_there_are_as_many() {
        for (threads, usable, wanted, expected) in [
            (2, &[0, 1][..], None, &[0, 1][..]),
            (2, &[3, 7], None, &[3, 7]),
            (1, &[5], None, &[5]),
            (2, &[0, 1, 2, 3], None, &[]),
            (4, &[0, 1], None, &[]),
            (2, &[0, 1], Some(false), &[]),
            (2, &[0, 1, 2, 3], Some(true), &[0, 1]),
            (3, &[0, 1], Some(true), &[0, 1, 0]),
            (2, &[], Some(true), &[]),
        ] {
            assert_eq!(
                assigned(threads, usable, wanted),
                expected,
                "{threads} threads on {usable:?}, {wanted:?}"
            );
        }
    }

    #[test]
    fn a_thread_stays() {
        let before = usable();
        let last = *before.last().expect("a processor");
        let inside = std::thread::spawn(move || {
            stay_on(last);
            usable()
        });
        assert_eq!(inside.join().unwrap(), [last]);
        assert_eq!(usable(), before, "the others are left alone");
    }
}
