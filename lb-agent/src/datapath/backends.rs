//! The memory of the backend map, which is read without a system call for each entry.

use std::{collections::BTreeMap, net::IpAddr, ops::Range, os::fd::AsRawFd};

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
    let memory = Entries::map(map, 0..MAX_BACKENDS)?;
    let mut written = BTreeMap::new();
    let mut hops = BTreeMap::new();
    for id in 0..MAX_BACKENDS {
        let entry = memory.get(id);
        let Some(backend) = encode::backend(&entry) else {
            continue;
        };
        let source = encode::ip(entry.source, backend.address.is_ipv6());
        hops.insert(backend.address.ip(), entry.hop);
        written.insert(id, (backend, source));
    }
    Ok((written, hops))
}

/// Some entries of the backend map, as they stand in its memory.
pub(super) struct Entries {
    memory: MmapRaw,
    ids: Range<u32>,
}

impl Entries {
    /// Maps those of these ids, which is all that it costs.
    pub(super) fn map(map: &impl AsRawFd, ids: Range<u32>) -> Result<Self, KernelError> {
        let size = size_of::<BackendEntry>();
        let memory = MmapOptions::new()
            .offset(u64::from(ids.start) * size as u64)
            .len(ids.len() * size)
            .map_raw_read_only(map.as_raw_fd())
            .map_err(|error| KernelError::new("mapping the backends", error))?;
        Ok(Self { memory, ids })
    }

    /// An entry.
    ///
    /// # Panics
    ///
    /// It is none of those that were mapped.
    pub(super) fn get(&self, id: u32) -> BackendEntry {
        assert!(self.ids.contains(&id), "backend {id} is not mapped");
        // SAFETY: within the mapping. Entries are as long as their alignment's multiple and follow
        // one another from the beginning of a page, so that each is aligned.
        unsafe {
            self.memory
                .as_ptr()
                .cast::<BackendEntry>()
                .add((id - self.ids.start) as usize)
                .read_volatile()
        }
    }
}
