//! The programs for packets that are not plain, which the others jump to.

use aya::{
    Ebpf,
    maps::{MapData, ProgramArray},
    programs::{ProgramError, ProgramFd, SchedClassifier},
};
use lb_common::maps::{detour, name};

use super::{load, loader, take, xdp};
use crate::domain::kernel::KernelError;

/// Loads the programs, and has the others jump to them. The maps are pinned: one that nobody holds
/// open forgets its programs.
///
/// # Errors
///
/// The kernel refuses a program.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let program = xdp(ebpf, name::PROGRAM_DETOUR)?;
    let loaded = load::again(|| program.load()).and_then(|()| program.fd());
    let fd = kept(name::PROGRAM_DETOUR, loaded)?;
    put(ebpf, name::DETOURS, detour::XDP, &fd)?;
    let fd = classifier(ebpf, name::PROGRAM_TC_DETOUR)?;
    put(ebpf, name::TC_DETOURS, detour::TC, &fd)
}

fn classifier(ebpf: &mut Ebpf, name: &'static str) -> Result<ProgramFd, KernelError> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| KernelError::new(format!("finding the program {name}"), "it is missing"))?;
    let program: &mut SchedClassifier = program
        .try_into()
        .map_err(|error| KernelError::new(format!("finding the program {name}"), error))?;
    let loaded = load::again(|| program.load()).and_then(|()| program.fd());
    kept(name, loaded)
}

fn kept(name: &str, loaded: Result<&ProgramFd, ProgramError>) -> Result<ProgramFd, KernelError> {
    loaded
        .and_then(|fd| Ok(fd.try_clone()?))
        .map_err(|error| KernelError::new(format!("verifying the program {name}"), error))
}

fn put(
    ebpf: &mut Ebpf,
    map: &'static str,
    index: u32,
    program: &ProgramFd,
) -> Result<(), KernelError> {
    let mut detours: ProgramArray<MapData> = take(ebpf, map)?;
    detours
        .set(index, program, 0)
        .map_err(|error| loader::map_error(map, error))
}
