//! Pages of the block list: made, put into a family's map of pages, and taken out of it.
//!
//! The kernel answers to each change of such a map only when no program uses the former page any
//! more (`maybe_wait_bpf_programs` of kernel/bpf/syscall.c), which takes milliseconds of sleep. So
//! pages are changed by several threads at once, which wait for the same moment.

use std::{
    cell::OnceCell,
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
    sync::Arc,
};

use aya::maps::MapData;
use aya_obj::generated::{bpf_cmd, bpf_map_type::BPF_MAP_TYPE_ARRAY};
use lb_common::block::{Line, PAGE_LINES};
use memmap2::{MmapOptions, MmapRaw};

/// `BPF_F_MMAPABLE`, as the pages are declared in the program.
const PAGE_FLAGS: u32 = 1 << 10;
/// Bytes of a page.
const PAGE_BYTES: usize = PAGE_LINES as usize * size_of::<Line>();
/// Threads that wait at the same time.
const WAITERS: usize = 16;

/// A new page, all zeros.
pub(super) fn create() -> io::Result<OwnedFd> {
    let page = MapData::create(
        aya_obj::Map::new_from_params(
            BPF_MAP_TYPE_ARRAY as u32,
            size_of::<u32>() as u32,
            size_of::<Line>() as u32,
            PAGE_LINES,
            PAGE_FLAGS,
        ),
        "block_page",
        None,
    )
    .map_err(io::Error::other)?;
    page.fd().as_fd().try_clone_to_owned()
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
pub(super) enum Change {
    /// Holds this page from now on.
    Set(u32, RawFd),
    /// Holds none any more.
    Clear(u32),
}

/// Changes elements of a map of pages, in no particular order. When it returns, no program uses
/// what was there before.
pub(super) fn change(map: RawFd, changes: &[Change]) -> io::Result<()> {
    let share = changes.len().div_ceil(WAITERS).max(1);
    std::thread::scope(|scope| {
        let waiters: Vec<_> = changes
            .chunks(share)
            .map(|chunk| scope.spawn(move || chunk.iter().try_for_each(|each| one(map, *each))))
            .collect();
        waiters.into_iter().try_for_each(|waiter| {
            waiter
                .join()
                .map_err(|_| io::Error::other("a thread ended early"))?
        })
    })
}

/// The part of `union bpf_attr` that changes elements (include/uapi/linux/bpf.h).
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn one(map: RawFd, change: Change) -> io::Result<()> {
    let (command, index, page) = match change {
        Change::Set(index, page) => (bpf_cmd::BPF_MAP_UPDATE_ELEM, index, page),
        Change::Clear(index) => (bpf_cmd::BPF_MAP_DELETE_ELEM, index, -1),
    };
    let attr = ElementAttr {
        map_fd: map as u32,
        padding: 0,
        key: (&raw const index) as u64,
        value: if page < 0 {
            0
        } else {
            (&raw const page) as u64
        },
        flags: 0,
    };
    // SAFETY: the attributes are those of the command, and key and value outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            &raw const attr,
            size_of::<ElementAttr>(),
        )
    };
    match (result, change) {
        (0, _) => Ok(()),
        (_, Change::Clear(_)) if last_error() == Some(libc::ENOENT) => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn last_error() -> Option<i32> {
    io::Error::last_os_error().raw_os_error()
}
