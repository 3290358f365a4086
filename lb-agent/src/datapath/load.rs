//! Loading a program past signals.

use aya::programs::ProgramError;

/// How often to try: what libbpf does too.
const TRIES: usize = 5;

/// Calls `load` again while the kernel says EAGAIN: the verifier gives up when a signal is pending
/// (kernel/bpf/verifier.c, `do_check`), and the signal has been dealt with by then.
pub(crate) fn again(
    mut load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), ProgramError> {
    for _ in 1..TRIES {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) => {}
            answer => return answer,
        }
    }
    load()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn refusal(number: i32) -> ProgramError {
        let io_error = io::Error::from_raw_os_error(number);
        let verifier_log = aya_obj::VerifierLog::new(String::new());
        ProgramError::LoadError {
            io_error,
            verifier_log,
        }
    }

    #[test]
    fn only_an_interruption_is_tried_again() {
        let mut calls = 0;
        let answer = again(|| {
            calls += 1;
            if calls < 3 {
                Err(refusal(libc::EAGAIN))
            } else {
                Ok(())
            }
        });
        assert!(answer.is_ok() && calls == 3);
        let mut calls = 0;
        let answer = again(|| {
            calls += 1;
            Err(refusal(libc::EACCES))
        });
        assert!(answer.is_err() && calls == 1);
        let mut calls = 0;
        let answer = again(|| {
            calls += 1;
            Err(refusal(libc::EAGAIN))
        });
        assert!(answer.is_err() && calls == TRIES);
    }
}
