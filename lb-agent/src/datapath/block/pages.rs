//! Pages of the block list: made, put into a family's map of pages, and taken out of it.

use std::{
    cell::OnceCell,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use aya::maps::MapData;
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_ARRAY_OF_MAPS};
use lb_common::block::{Line, MAX_PAGES, PAGE_LINES};
use memmap2::{MmapOptions, MmapRaw};

use super::super::object::{self, MMAPABLE, Shape, grace};

/// Bytes of a page.
const PAGE_BYTES: usize = PAGE_LINES as usize * size_of::<Line>();

/// What a page is like, as the program declares it.
const PAGE: Shape = Shape {
    kind: BPF_MAP_TYPE_ARRAY as u32,
    key: size_of::<u32>() as u32,
    value: size_of::<Line>() as u32,
    entries: PAGE_LINES,
    is_mappable: true,
};

/// The same of a family's map of pages.
const PAGES: Shape = Shape {
    kind: BPF_MAP_TYPE_ARRAY_OF_MAPS as u32,
    key: size_of::<u32>() as u32,
    value: size_of::<u32>() as u32,
    entries: MAX_PAGES,
    is_mappable: false,
};

/// A new page, all zeros.
pub(super) fn create() -> io::Result<OwnedFd> {
    let page = MapData::create(
        aya_obj::Map::new_from_params(PAGE.kind, PAGE.key, PAGE.value, PAGE.entries, MMAPABLE),
        "block_page",
        None,
    )
    .map_err(io::Error::other)?;
    page.fd().as_fd().try_clone_to_owned()
}

/// Refuses what is no map of pages.
pub(super) fn check_map(map: BorrowedFd<'_>) -> io::Result<()> {
    check(map, PAGES, "this is no map of pages of the block list")
}

/// Refuses what is no page.
pub(in super::super) fn check_page(page: BorrowedFd<'_>) -> io::Result<()> {
    check(page, PAGE, "this is no page of the block list")
}

fn check(map: BorrowedFd<'_>, wanted: Shape, otherwise: &'static str) -> io::Result<()> {
    if object::shape(map)? == wanted {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, otherwise))
    }
}

/// Pages in memory, for one piece of work at a time: what stays mapped counts as the agent's own
/// memory. A page is mapped when it is first looked at, for the kernel enters all of it at once
/// (`remap_vmalloc_range`), and most work is about a few.
pub(super) struct Memory {
    pages: Vec<Arc<OwnedFd>>,
    mapped: Vec<OnceCell<MmapRaw>>,
}

impl Memory {
    pub(super) fn new(pages: &[Arc<OwnedFd>]) -> Self {
        Self {
            pages: pages.to_vec(),
            mapped: pages.iter().map(|_| OnceCell::new()).collect(),
        }
    }

    fn page(&self, number: usize) -> &MmapRaw {
        self.mapped[number].get_or_init(|| {
            let options = MmapOptions::new()
                .len(PAGE_BYTES)
                .map_raw(self.pages[number].as_raw_fd());
            // The descriptor is a page's and open; only a lack of memory is left.
            options.expect("a page of the block list can be mapped")
        })
    }

    /// The line of this number.
    ///
    /// # Panics
    ///
    /// There is no such line, or no memory to map its page.
    pub(super) fn line(&self, number: u32) -> *mut Line {
        let page = self.page((number / PAGE_LINES) as usize);
        let within = (number % PAGE_LINES) as usize;
        // SAFETY: within the mapping, which is a page long.
        unsafe { page.as_mut_ptr().cast::<Line>().add(within) }
    }
}

/// What becomes of an element of a map of pages.
#[derive(Clone, Copy)]
pub(super) enum Change<'page> {
    /// Holds this page from now on.
    Set(u32, BorrowedFd<'page>),
    /// Holds none any more.
    Clear(u32),
}

/// Changes elements of a map of pages, in no particular order. When it returns, no program uses
/// what was there before.
pub(super) fn change(map: BorrowedFd<'_>, changes: &[Change<'_>]) -> io::Result<()> {
    grace::each(changes, |change| match *change {
        Change::Set(slot, page) => object::put_in_slot(map, slot, page),
        Change::Clear(slot) => object::clear_slot(map, slot),
    })
    .map(drop)
}
