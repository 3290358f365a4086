//! Whether the time of day is kept by somebody: adjtimex(2).

use std::io;

/// Whether the kernel believes its clock to be synchronized.
///
/// # Errors
///
/// The kernel does not tell.
pub fn is_synchronized() -> io::Result<bool> {
    // SAFETY: timex is plain data, for which all zeroes is a value; modes of 0 change nothing.
    let mut facts: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in what it is given, which is writable.
    match unsafe { libc::adjtimex(&raw mut facts) } {
        state if state < 0 => Err(io::Error::last_os_error()),
        _ => Ok(facts.status & libc::STA_UNSYNC == 0),
    }
}
