//! The programs for packets that are not plain, which the others jump to.

use std::{io, os::fd::AsFd as _, path::Path};

use aya::{
    Ebpf,
    maps::{MapData, ProgramArray},
    programs::{ProgramError, ProgramFd, SchedClassifier},
};
use lb_common::maps::{detour, name};

use super::{load, loader, object, take, xdp};
use crate::domain::kernel::KernelError;

/// Loads the programs, and has the others jump to them. The maps are pinned: one that nobody holds
/// open forgets its programs.
///
/// # Errors
///
/// The kernel refuses a program.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<Vec<Detour>, KernelError> {
    let program = xdp(ebpf, name::PROGRAM_DETOUR)?;
    let loaded = load::again(|| program.load()).and_then(|()| program.fd());
    let fd = kept(name::PROGRAM_DETOUR, loaded)?;
    put(ebpf, name::DETOURS, detour::XDP, &fd)?;
    let tc = classifier(ebpf, name::PROGRAM_TC_DETOUR)?;
    put(ebpf, name::TC_DETOURS, detour::TC, &tc)?;
    Ok(vec![
        Detour::new(name::DETOURS, detour::XDP, fd)?,
        Detour::new(name::TC_DETOURS, detour::TC, tc)?,
    ])
}

/// A program in its place.
pub(super) struct Detour {
    pub(super) map: &'static str,
    index: u32,
    program: ProgramFd,
    /// The program's number.
    id: u32,
}

impl Detour {
    fn new(map: &'static str, index: u32, program: ProgramFd) -> Result<Self, KernelError> {
        let id = object::number(program.as_fd())
            .map_err(|error| KernelError::new(format!("reading a program of {map}"), error))?;
        Ok(Self {
            map,
            index,
            program,
            id,
        })
    }

    fn failed(&self, error: io::Error) -> KernelError {
        KernelError::new(format!("looking into the pinned map {}", self.map), error)
    }

    /// Whether the program stands in the map that is pinned in `dir`.
    pub(super) fn is_in_place(&self, dir: &Path) -> Result<bool, KernelError> {
        let map = object::open(&dir.join(self.map)).map_err(|error| self.failed(error))?;
        let held = object::in_slot(map.as_fd(), self.index);
        Ok(held.map_err(|error| self.failed(error))? == Some(self.id))
    }

    /// Puts it there.
    pub(super) fn put(&self, dir: &Path) -> Result<(), KernelError> {
        let map = object::open(&dir.join(self.map)).map_err(|error| self.failed(error))?;
        object::put_in_slot(map.as_fd(), self.index, self.program.as_fd())
            .map_err(|error| self.failed(error))
    }
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
