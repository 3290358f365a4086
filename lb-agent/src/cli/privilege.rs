//! Whether this process may load programs into the kernel, told before anything is tried.

use rustix::thread::capabilities;

use super::failure::Failure;
use crate::privilege::capability;

/// Looks at the capabilities in force (see `capabilities(7)`), not at the user: systemd may have
/// granted just the needed ones to somebody else than root.
pub(super) fn check() -> Result<(), Failure> {
    // Where they cannot be asked for, the kernel's own refusal has to do.
    let Ok(sets) = capabilities(None) else {
        return Ok(());
    };
    match capability::missing(sets.effective) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(Failure::Refused(format!(
            "running the agent takes {}, which this process does not have; run it as root, or by \
             a unit that grants them",
            missing.join(", ")
        ))),
    }
}
