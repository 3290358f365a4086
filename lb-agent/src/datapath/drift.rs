//! Compares what the maps hold and where the programs are with what was written and attached, and
//! writes and attaches anew what the steps of a plan do not.

mod links;
mod prints;

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::Arc,
};

use aya::maps::MapData;
use lb_common::maps::MAX_BACKENDS;
use memmap2::MmapOptions;

use prints::Prints;

use super::{Datapath, backends, detour, encode, loader, object};
use crate::domain::{
    drift::{Difference, Part, Place},
    kernel::{KernelError, KernelView, VipKey},
};

/// Slots of Maglev tables whose contents are looked at in one part. Which table it is costs little,
/// what is in it does not, so large installations are gone through more slowly.
/// Whoever asks for all has the patience for more.
const SLOTS_AT_ONCE: usize = 65_537;

/// A Maglev table as it was written.
#[derive(Clone, Debug)]
pub(super) struct WrittenTable {
    /// Number of the map.
    pub(super) map: u32,
    /// The map itself, for to open one by its number takes `CAP_SYS_ADMIN`.
    pub(super) table: Arc<MapData>,
    pub(super) slots: u32,
    pub(super) fingerprint: u64,
}

/// What the next part begins with, and what was found right.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    tables: usize,
    hops: usize,
    pub(super) prints: Prints,
}

impl Datapath {
    pub(super) fn find_differences(
        &mut self,
        view: &KernelView,
        part: Part,
    ) -> Result<Vec<Difference>, KernelError> {
        let mut found = Vec::new();
        self.compare_backends(part, &mut found)?;
        self.compare_tables(view, part, &mut found)?;
        let (next, hops) = self.hops.differences(self.cursor.hops, part)?;
        self.cursor.hops = next;
        found.extend(hops);
        if part.index == 0 {
            self.compare_vips(view, &mut found)?;
            self.compare_sources(view, &mut found)?;
            self.compare_filter(view, &mut found)?;
            found.extend(self.blocks.differences()?);
            self.compare_detours(&mut found)?;
            self.compare_links(&mut found)?;
        }
        Ok(found)
    }

    fn compare_vips(
        &self,
        view: &KernelView,
        found: &mut Vec<Difference>,
    ) -> Result<(), KernelError> {
        let mut missing: BTreeSet<&VipKey> = view.vips.keys().collect();
        for entry in self.services.iter() {
            let (key, held) = entry.map_err(|error| KernelError::new("reading the VIPs", error))?;
            let vip = encode::vip_key(&key);
            let Some(wanted) = view.vips.get(&vip) else {
                let text = format!("VIP {}, which nobody asked for", vip.address);
                found.push(Difference::new(Place::ForeignVip(vip), text));
                continue;
            };
            missing.remove(&vip);
            let wanted = encode::service_entry(wanted);
            if held != wanted {
                let text = format!(
                    "the entry of VIP {}: service {} with {} slots and flags {:#x} instead of service {} with {} and {:#x}",
                    vip.address,
                    held.id,
                    held.maglev_slots,
                    held.flags,
                    wanted.id,
                    wanted.maglev_slots,
                    wanted.flags
                );
                found.push(Difference::new(Place::Vip(vip), text));
            }
        }
        found.extend(missing.into_iter().map(|vip| {
            let text = format!("VIP {} was gone", vip.address);
            Difference::new(Place::Vip(*vip), text)
        }));
        Ok(())
    }

    fn compare_backends(
        &mut self,
        part: Part,
        found: &mut Vec<Difference>,
    ) -> Result<(), KernelError> {
        let ids = part.range(MAX_BACKENDS);
        let memory = backends::Entries::map(&self.backend_memory, ids.clone())?;
        let end = self.written.last_key_value().map_or(0, |(id, _)| id + 1);
        for id in ids {
            let held = memory.get(id);
            // As it is of almost all.
            if self.cursor.prints.knows(id, &held) || (id >= end && held.family == 0) {
                continue;
            }
            let Some((backend, source)) = self.written.get(&id) else {
                if held.family != 0 {
                    let text = format!("backend {id}, which nobody asked for");
                    found.push(Difference::new(Place::ForeignBackend(id), text));
                }
                continue;
            };
            let hop = self.hops.index(backend.address.ip())?;
            if held == encode::backend_entry(backend, *source, hop) {
                self.cursor.prints.note(id, &held);
                continue;
            }
            let instead = match encode::backend(&held) {
                None => "nothing".to_owned(),
                Some(other) => {
                    let state = if other.active { "active" } else { "not active" };
                    format!("{} of service {}, {state}", other.address, other.service)
                }
            };
            let text = format!("backend {id} ({}) was {instead}", backend.address);
            found.push(Difference::new(Place::Backend(id), text));
        }
        Ok(())
    }

    fn compare_tables(
        &mut self,
        view: &KernelView,
        part: Part,
        found: &mut Vec<Difference>,
    ) -> Result<(), KernelError> {
        let patience = if part == Part::ALL { 4 } else { 1 };
        let mut left = patience * SLOTS_AT_ONCE;
        let own: Vec<(u32, WrittenTable)> = self
            .tables
            .iter()
            .filter(|(service, _)| part.has(**service) && view.tables.contains_key(service))
            .map(|(service, table)| (*service, table.clone()))
            .collect();
        let services: Vec<u32> = own.iter().map(|(service, _)| *service).collect();
        let maps = object::in_slots(self.maglev_slots.as_fd(), &services)
            .map_err(|error| KernelError::new("reading the map of Maglev tables", error))?;
        let mut looked_at = 0;
        for index in 0..own.len() {
            let place = (index + self.cursor.tables) % own.len();
            let (service, ref written) = own[place];
            let what = |error| {
                KernelError::new(
                    format!("reading the Maglev table of service {service}"),
                    error,
                )
            };
            let text = match maps[place] {
                None => "was gone",
                Some(map) if map != written.map => "was another one",
                Some(_) if left < written.slots as usize => continue,
                Some(_) => {
                    left -= written.slots as usize;
                    looked_at += 1;
                    let slots = read_table(&written.table, written.slots).map_err(what)?;
                    if fingerprint(&slots) == written.fingerprint {
                        continue;
                    }
                    "had other contents"
                }
            };
            let text = format!("the Maglev table of service {service} {text}");
            found.push(Difference::new(Place::Table(service), text));
        }
        // Parts have their own tables; where all fit, it does not matter which is the first.
        self.cursor.tables = self.cursor.tables.wrapping_add(looked_at);
        Ok(())
    }

    fn compare_sources(
        &mut self,
        view: &KernelView,
        found: &mut Vec<Difference>,
    ) -> Result<(), KernelError> {
        if self.sources.reread()? {
            return Ok(());
        }
        let held = self.sources.held();
        let services: BTreeSet<u32> = held.keys().chain(view.sources.keys()).copied().collect();
        for service in services {
            if held.get(&service) != view.sources.get(&service) {
                let text = format!("the sources that service {service} admits were others");
                found.push(Difference::new(Place::Sources(service), text));
            }
        }
        Ok(())
    }

    fn compare_filter(
        &self,
        view: &KernelView,
        found: &mut Vec<Difference>,
    ) -> Result<(), KernelError> {
        if self.lacks_in_filter(view)? {
            let text = "the filter of destinations lacked some of the node's";
            found.push(Difference::new(Place::Filter, text));
        } else if self.differs_in_vips(view)? {
            let text = "the list of addresses of VIPs was another one";
            found.push(Difference::new(Place::Filter, text));
        }
        Ok(())
    }

    fn compare_detours(&self, found: &mut Vec<Difference>) -> Result<(), KernelError> {
        for one in &self.detours {
            if !one.is_in_place(&loader::pin_dir(&self.options.bpf_dir))? {
                let text = format!("a program was missing from {}", one.map);
                found.push(Difference::new(Place::Detour(one.map), text));
            }
        }
        Ok(())
    }

    pub(super) fn mend_place(
        &mut self,
        place: &Place,
        view: &KernelView,
    ) -> Result<(), KernelError> {
        match place {
            Place::Filter => {
                self.write_filter(view)?;
                self.write_vips(view)
            }
            Place::Hop(address) => self.hops.rewrite(*address),
            Place::Blocks => self.blocks.install(),
            Place::Allowed => self.blocks.rewrite_allowed(),
            Place::Detour(map) => {
                let dir = loader::pin_dir(&self.options.bpf_dir);
                let own = self.detours.iter().filter(|one| one.map == *map);
                own.into_iter().try_for_each(|one| one.put(&dir))
            }
            Place::Program(pin) => self.attach_again(pin),
            // Steps do these.
            _ => Ok(()),
        }
    }

    /// Notes what the links are about now; from here on they are to stay so.
    pub(super) fn note_links(&mut self) -> Result<(), KernelError> {
        self.links = self.read_links()?;
        Ok(())
    }
}

/// The slots of a table.
pub(super) fn read_table(table: &MapData, slots: u32) -> io::Result<Vec<u32>> {
    // The kernel lays out array elements at multiples of eight bytes (kernel/bpf/arraymap.c).
    const STRIDE: usize = 8;
    let memory = MmapOptions::new()
        .len(slots as usize * STRIDE)
        .map_raw_read_only(table.fd().as_fd().as_raw_fd())?;
    let word = |slot: usize| {
        // SAFETY: within the mapping, which is as long as the table; its elements are aligned.
        unsafe {
            memory
                .as_ptr()
                .add(slot * STRIDE)
                .cast::<u32>()
                .read_volatile()
        }
    };
    Ok((0..slots as usize).map(word).collect())
}

/// A number that tells tables apart, in all likelihood.
pub(super) fn fingerprint(slots: &[u32]) -> u64 {
    // The constant of Fibonacci hashing: 2^64 over the golden ratio.
    slots.iter().fold(slots.len() as u64, |sum, slot| {
        (sum.rotate_left(5) ^ u64::from(*slot)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// The detours as they are to be.
pub(super) type Detours = Vec<detour::Detour>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_contents_order_and_length() {
        let rows: [&[u32]; 5] = [&[1, 2, 3], &[1, 3, 2], &[1, 2, 4], &[1, 2], &[0, 1, 2, 3]];
        let prints: BTreeSet<u64> = rows.iter().map(|row| fingerprint(row)).collect();
        assert_eq!(prints.len(), rows.len());
        assert_eq!(fingerprint(&[7; 9]), fingerprint(&[7; 9]));
    }
}
