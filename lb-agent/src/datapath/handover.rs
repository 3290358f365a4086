//! Maps within other maps, handed over by root to an agent that is not: to open such a map, the
//! kernel has only its number to go by, which takes `CAP_SYS_ADMIN`. Root pins them before the agent
//! starts, and the agent removes the pins when it has opened them.
//!
//! These are the pages of the block list. Maglev tables are never read by the next agent.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::maps::MapData;
use lb_common::maps::name;

use super::{block, loader, object, pins};
use crate::domain::kernel::KernelError;

/// What the names of these pins begin with; the map's number follows.
const PREFIX: &str = "handed_";

fn pin(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{PREFIX}{number}"))
}

/// Pins what the agent that comes will have to open; answers with the pins. To be called as root.
///
/// # Errors
///
/// The kernel refuses.
pub fn hand_over(bpf_dir: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let dir = loader::pin_dir(bpf_dir);
    if !dir.exists() {
        return Ok(Vec::new());
    }
    // Of a start that came to nothing; the maps may have other numbers by now.
    forget(&dir)?;
    let mut handed = Vec::new();
    for outer in [name::BLOCK4, name::BLOCK6].map(|map| dir.join(map)) {
        // A link could lead to what is somebody else's.
        if !fs::symlink_metadata(&outer).is_ok_and(|facts| facts.is_file()) {
            continue;
        }
        let what = |error| KernelError::new(format!("reading {}", outer.display()), error);
        let map = object::open(&outer).map_err(what)?;
        let open = |page| by_number(page)?.fd().as_fd().try_clone_to_owned();
        let Some(found) = block::InForce::read(map.as_fd(), open).map_err(what)? else {
            continue;
        };
        for page in found.pages.into_iter().flatten().chain([found.first]) {
            let path = pin(&dir, page);
            if path.exists() {
                // The first page stands in two slots.
                continue;
            }
            page_of(page)
                .and_then(|page| page.pin(&path).map_err(io::Error::other))
                .map_err(|error| KernelError::new(format!("pinning {}", path.display()), error))?;
            handed.push(path);
        }
    }
    Ok(handed)
}

/// Opens the map of this number, by its pin if root has made one.
///
/// # Errors
///
/// There is none, or to open it takes root.
pub(super) fn open(dir: &Path, number: u32) -> io::Result<OwnedFd> {
    match object::open(&pin(dir, number)) {
        Ok(map) => Ok(map),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            by_number(number)?.fd().as_fd().try_clone_to_owned()
        }
        Err(error) => Err(error),
    }
}

fn by_number(number: u32) -> io::Result<MapData> {
    MapData::from_id(number).map_err(io::Error::other)
}

/// The page of this number, and nothing else that has such a number: what root pins here is the agent's.
fn page_of(number: u32) -> io::Result<MapData> {
    let page = by_number(number)?;
    block::check_page(page.fd().as_fd())?;
    Ok(page)
}

/// Removes the pins: whoever has opened the maps keeps them.
///
/// # Errors
///
/// The kernel refuses.
pub(super) fn forget(dir: &Path) -> Result<(), KernelError> {
    let what = || format!("listing {}", dir.display());
    for entry in fs::read_dir(dir).map_err(|error| KernelError::new(what(), error))? {
        let entry = entry.map_err(|error| KernelError::new(what(), error))?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            pins::remove(&entry.path())?;
        }
    }
    Ok(())
}
