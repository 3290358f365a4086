//! Compares the table of next hops with what was written into it.

use std::net::IpAddr;

use lb_common::entry::NextHop;

use super::Hops;
use crate::domain::{
    drift::{Difference, Part, Place},
    kernel::KernelError,
};

/// Entries that are looked at in one part at most.
const AT_ONCE: usize = 1024;

impl Hops {
    /// Compares a part of the entries, from the `first` on, with what was written; answers with
    /// where to go on.
    ///
    /// # Errors
    ///
    /// The table cannot be read.
    pub(in crate::datapath) fn differences(
        &self,
        first: usize,
        part: Part,
    ) -> Result<(usize, Vec<Difference>), KernelError> {
        let inner = self.lock();
        let share = inner.entries.len().div_ceil(part.count as usize);
        let most = share.min(AT_ONCE);
        let mut found = Vec::new();
        // The order of a map that does not change stays; one that does is gone through again soon.
        for (address, entry) in inner.entries.iter().skip(first).take(most) {
            let held = inner.map.get(&entry.index, 0).map_err(|error| {
                KernelError::new(format!("reading next hop {}", entry.index), error)
            })?;
            if held != entry.hop {
                let text = format!("the next hop of {address} was another one");
                found.push(Difference::new(Place::Hop(*address), text));
            }
        }
        let next = first + most;
        let next = if next < inner.entries.len() { next } else { 0 };
        Ok((next, found))
    }

    /// Writes the entry of an address as it is known.
    ///
    /// # Errors
    ///
    /// The table cannot be written.
    pub(in crate::datapath) fn rewrite(&self, address: IpAddr) -> Result<(), KernelError> {
        let mut inner = self.lock();
        match inner
            .entries
            .get(&address)
            .map(|entry| (entry.index, entry.hop))
        {
            Some((index, hop)) => inner.write(index, hop),
            None => Ok(()),
        }
    }

    /// An entry as it stands in the table.
    ///
    /// # Errors
    ///
    /// The table cannot be read.
    pub(in crate::datapath) fn held(&self, index: u32) -> Result<NextHop, KernelError> {
        let held = self.lock().map.get(&index, 0);
        held.map_err(|error| KernelError::new(format!("reading next hop {index}"), error))
    }
}
