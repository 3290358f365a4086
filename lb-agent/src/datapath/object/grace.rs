//! What the kernel answers to only after a grace period (`maybe_wait_bpf_programs` of
//! kernel/bpf/syscall.c), done by several threads at once, which wait for the same one.
//!
//! Maps of maps are like that: each change waits until no program uses the former map any more, and
//! before Linux 6.8 each look into a slot did, too. That is a sleep of 5 to 30 ms each time.

use std::{io, thread};

/// Threads that wait at the same time.
const WAITERS: usize = 64;

/// Does `work` for all of `items`, in no particular order; answers in theirs.
///
/// # Errors
///
/// One that `work` answered with; some of the others may not have been done.
pub(in super::super) fn each<T: Sync, A: Send>(
    items: &[T],
    work: impl Fn(&T) -> io::Result<A> + Sync,
) -> io::Result<Vec<A>> {
    let share = items.len().div_ceil(WAITERS).max(1);
    let all = |chunk: &[T]| chunk.iter().map(&work).collect::<io::Result<Vec<A>>>();
    thread::scope(|scope| {
        let waiters: Vec<_> = items
            .chunks(share)
            .map(|chunk| {
                let waiter = thread::Builder::new().spawn_scoped(scope, move || all(chunk));
                (chunk, waiter)
            })
            .collect();
        let mut answers = Vec::with_capacity(items.len());
        for (chunk, waiter) in waiters {
            answers.extend(match waiter {
                Ok(waiter) => waiter
                    .join()
                    .map_err(|_| io::Error::other("a thread ended early"))??,
                // As many threads as there may be: it takes longer.
                Err(_) => all(chunk)?,
            });
        }
        Ok(answers)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_order_and_errors_come_out() {
        for count in [0, 1, 63, 64, 65, 1_000] {
            let items: Vec<u32> = (0..count).collect();
            let doubled: Vec<u32> = items.iter().map(|item| item * 2).collect();
            assert_eq!(each(&items, |item| Ok(item * 2)).unwrap(), doubled);
        }
        let failing = |item: &u32| match item {
            70 => Err(io::ErrorKind::NotFound.into()),
            item => Ok(*item),
        };
        let items: Vec<u32> = (0..100).collect();
        let error = each(&items, failing).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
