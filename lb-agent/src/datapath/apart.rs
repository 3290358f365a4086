//! Loaded programs, opened once more for an owner of their own.

use std::{fs, path::Path};

use aya::{pin::PinError, programs::ProgramError};

use super::pins;
use crate::domain::kernel::KernelError;

/// Opens a program by a pin in `dir` that stays for no longer than that takes: to open it by its
/// number, which leaves no trace, takes `CAP_SYS_ADMIN`.
///
/// # Errors
///
/// The kernel refuses.
pub(super) fn open<P>(
    name: &str,
    dir: &Path,
    pin: impl FnOnce(&Path) -> Result<(), PinError>,
    open: impl FnOnce(&Path) -> Result<P, ProgramError>,
) -> Result<P, KernelError> {
    let path = dir.join(format!("opening_{name}"));
    // Left behind by an agent that was killed in between.
    let _ = fs::remove_file(&path);
    pin(&path).map_err(|error| KernelError::new(format!("pinning {}", path.display()), error))?;
    let opened =
        open(&path).map_err(|error| KernelError::new(format!("opening {}", path.display()), error));
    pins::remove(&path)?;
    opened
}
