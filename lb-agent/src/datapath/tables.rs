//! Maglev tables into the kernel: each a map of its own, swapped in as a whole.
//!
//! To swap one, the kernel waits until no program is at work any more that has found the former
//! (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c). A batch waits once for all of its tables
//! where the kernel knows batches for arrays of maps, and else for each.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, RawFd},
    sync::Arc,
};

use aya::maps::MapData;
use lb_common::maps::{MAX_BACKENDS, MAX_SERVICES};
use memmap2::MmapOptions;

use super::{Datapath, drift, link::bpf, object};
use crate::domain::{
    kernel::{KernelError, Recipe, Step},
    maglev,
};

/// `BPF_F_MMAPABLE | BPF_F_INNER_MAP`, as the inner map is declared in the program.
const MAGLEV_FLAGS: u32 = 1 << 10 | 1 << 12;

/// A table that is in no service's place yet.
struct Built {
    /// The service's id.
    service: u32,
    /// What it is, to be compared with later.
    written: drift::WrittenTable,
}

impl Datapath {
    /// Builds a service's table and swaps it in.
    pub(super) fn put_table(&mut self, service: u32, recipe: Recipe) -> Result<(), KernelError> {
        let mut outcomes = self.write_tables(&[Step::PutTable(service, recipe)]);
        outcomes.pop().unwrap_or(Ok(()))
    }

    /// Builds the table of each [`Step::PutTable`] and swaps all in; what became of each.
    pub(super) fn write_tables(&mut self, steps: &[Step]) -> Vec<Result<(), KernelError>> {
        let built: Vec<Result<Built, KernelError>> = steps
            .iter()
            .map(|step| match step {
                Step::PutTable(service, recipe) => self.build_table(*service, recipe),
                other => Err(KernelError::new(format!("{other:?}"), "it is no table")),
            })
            .collect();
        let together: Vec<&Built> = built.iter().filter_map(|one| one.as_ref().ok()).collect();
        let swapped = together.len() > 1 && self.swap(&together).is_ok();
        built
            .into_iter()
            .map(|built| {
                let Built { service, written } = built?;
                if !swapped {
                    // An old kernel; or one of them has failed, and here it turns out which.
                    self.maglev
                        .set(service, &*written.table, 0)
                        .map_err(|error| KernelError::new(writing(service), error))?;
                }
                self.tables.insert(service, written);
                Ok(())
            })
            .collect()
    }

    fn build_table(&self, service: u32, recipe: &Recipe) -> Result<Built, KernelError> {
        if service >= MAX_SERVICES {
            let full = format!("no more than {MAX_SERVICES} services fit");
            return Err(KernelError::new(writing(service), full));
        }
        let entries: Vec<maglev::Entry> = recipe
            .weights
            .iter()
            .filter_map(|(id, weight)| {
                let (backend, _) = self.written.get(id)?;
                Some(maglev::Entry {
                    id: *id,
                    address: backend.address,
                    weight: *weight,
                })
            })
            .collect();
        let slots = maglev::build(&entries, recipe.slots);
        // An empty service keeps a table of one slot, which leads to no backend.
        let slots = if slots.is_empty() {
            vec![MAX_BACKENDS - 1]
        } else {
            slots
        };
        let table = MapData::create(
            aya_obj::Map::new_from_params(
                aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
                size_of::<u32>() as u32,
                size_of::<u32>() as u32,
                slots.len() as u32,
                MAGLEV_FLAGS,
            ),
            "maglev_table",
            None,
        )
        .map_err(|error| KernelError::new(writing(service), error))?;
        fill(&table, &slots).map_err(|error| KernelError::new(writing(service), error))?;
        let map = object::number(table.fd().as_fd())
            .map_err(|error| KernelError::new(writing(service), error))?;
        let written = drift::WrittenTable {
            map,
            table: Arc::new(table),
            slots: slots.len() as u32,
            fingerprint: drift::fingerprint(&slots),
        };
        Ok(Built { service, written })
    }

    /// Swaps all of them in by one system call.
    fn swap(&self, tables: &[&Built]) -> io::Result<()> {
        let keys: Vec<u32> = tables.iter().map(|one| one.service).collect();
        let values: Vec<RawFd> = tables
            .iter()
            .map(|one| one.written.table.fd().as_fd().as_raw_fd())
            .collect();
        let batch = UpdateBatch {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr().addr() as u64,
            values: values.as_ptr().addr() as u64,
            count: tables.len() as u32,
            map: self.maglev_map.as_raw_fd().cast_unsigned(),
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: `count` keys of an array and `count` descriptors, which outlive the call.
        unsafe { bpf(BPF_MAP_UPDATE_BATCH, &batch) }.map(drop)
    }
}

/// `BPF_MAP_UPDATE_BATCH` of `enum bpf_cmd` (include/uapi/linux/bpf.h).
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// The member `batch` of `union bpf_attr`.
#[repr(C)]
struct UpdateBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

fn writing(service: u32) -> String {
    format!("writing the Maglev table of service {service}")
}

/// Writes a whole table through its memory: one system call instead of one per slot.
fn fill(table: &MapData, slots: &[u32]) -> io::Result<()> {
    // The kernel lays out array elements at multiples of eight bytes (kernel/bpf/arraymap.c).
    const STRIDE: usize = 8;
    let memory = MmapOptions::new()
        .len(slots.len() * STRIDE)
        .map_raw(table.fd().as_fd().as_raw_fd())?;
    for (index, slot) in slots.iter().enumerate() {
        // SAFETY: within the mapping; nobody else has the map yet.
        unsafe {
            memory
                .as_mut_ptr()
                .add(index * STRIDE)
                .cast::<u32>()
                .write(*slot)
        };
    }
    Ok(())
}
