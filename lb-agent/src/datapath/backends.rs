//! The memory of the backend map, which is read without a system call for each entry.

use std::{collections::BTreeMap, net::IpAddr, os::fd::AsRawFd};

use lb_common::{entry::BackendEntry, maps::MAX_BACKENDS};
use memmap2::{MmapOptions, MmapRaw};

use super::encode;
use crate::domain::kernel::{KernelBackend, KernelError};

/// Backends in the map by id, each with its source address; and the next hop of each address.
type Written = BTreeMap<u32, (KernelBackend, IpAddr)>;

/// Reads the backend map of a former agent. All of it: a gap may be of any length, and the id of a
/// backend that is overlooked would be given away while it has flows.
pub(crate) fn read_backends(
    map: &impl AsRawFd,
) -> Result<(Written, BTreeMap<IpAddr, u32>), KernelError> {
    let memory = map_backends(map)?;
    let mut written = BTreeMap::new();
    let mut hops = BTreeMap::new();
    for id in 0..MAX_BACKENDS {
        let entry = entry(&memory, id);
        let Some(backend) = encode::backend(&entry) else {
            continue;
        };
        let source = encode::ip(entry.source, backend.address.is_ipv6());
        hops.insert(backend.address.ip(), entry.hop);
        written.insert(id, (backend, source));
    }
    Ok((written, hops))
}

/// The memory of the backend map.
pub(super) fn map_backends(map: &impl AsRawFd) -> Result<MmapRaw, KernelError> {
    MmapOptions::new()
        .len(MAX_BACKENDS as usize * size_of::<BackendEntry>())
        .map_raw_read_only(map.as_raw_fd())
        .map_err(|error| KernelError::new("mapping the backends", error))
}

/// An entry in that memory.
///
/// # Panics
///
/// There is no room for such an id.
pub(super) fn entry(memory: &MmapRaw, id: u32) -> BackendEntry {
    assert!(id < MAX_BACKENDS);
    // SAFETY: within the mapping, which is page-aligned and holds so many.
    unsafe {
        memory
            .as_ptr()
            .cast::<BackendEntry>()
            .add(id as usize)
            .read_volatile()
    }
}
