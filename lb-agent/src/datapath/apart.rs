//! Programs of the loaded object: found, and opened once more for an owner of their own.

use std::{fs, path::Path};

use aya::{
    Ebpf,
    pin::PinError,
    programs::{ProgramError, Xdp},
};

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

/// An XDP program of the object.
///
/// # Errors
///
/// There is none of this name.
pub(super) fn xdp<'a>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut Xdp, KernelError> {
    let what = || format!("looking for the program {program}");
    ebpf.program_mut(program)
        .ok_or_else(|| KernelError::new(what(), "the object has no such program"))?
        .try_into()
        .map_err(|error: ProgramError| KernelError::new(what(), error))
}
