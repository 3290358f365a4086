//! Numbers of the kernel's objects: which map or program stands in a slot, and what a link is on.

pub(super) mod grace;

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use super::link::{self, bpf};

/// `BPF_MAP_LOOKUP_ELEM` of include/uapi/linux/bpf.h.
const MAP_LOOKUP_ELEM: libc::c_long = 1;
/// `BPF_MAP_UPDATE_ELEM`.
const MAP_UPDATE_ELEM: libc::c_long = 2;
/// `BPF_MAP_DELETE_ELEM`.
const MAP_DELETE_ELEM: libc::c_long = 3;
/// `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// A look into a slot that takes longer has waited for a grace period.
const LOOK: Duration = Duration::from_micros(500);

/// The part of `union bpf_attr` that the commands about one element read.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    /// Of an array of maps or programs: key and value are words. The pointers are the caller's to keep.
    fn new(map: BorrowedFd<'_>, key: *const u32, value: *const u32) -> Self {
        Self {
            map_fd: map.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: key as u64,
            value: value as u64,
            flags: 0,
        }
    }
}

/// The part of `union bpf_attr` that [`OBJ_GET_INFO_BY_FD`] reads.
#[repr(C)]
struct GetInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_map_info` and of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Identity {
    kind: u32,
    id: u32,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// `BPF_F_MMAPABLE` of include/uapi/linux/bpf.h.
pub(crate) const MMAPABLE: u32 = 1 << 10;

/// What a map is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Of `enum bpf_map_type`.
    pub(crate) kind: u32,
    /// Bytes of a key.
    pub(crate) key: u32,
    /// Bytes of a value.
    pub(crate) value: u32,
    /// How many it may have.
    pub(crate) entries: u32,
    /// Its values can be mapped into memory.
    pub(crate) is_mappable: bool,
}

/// The beginning of `struct bpf_link_info`, as far as links of interfaces and cgroups fill it in.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    /// The interface's index, or (with what follows) the cgroup's number.
    target: u32,
    more: u32,
}

/// What a link is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Number of its program.
    pub(crate) program: u32,
    /// Index of its interface, or the lower half of its cgroup's number; 0: it is on nothing.
    pub(crate) target: u32,
}

/// The number of what stands in a slot of an array of maps or programs; `None`: nothing does.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn in_slot(map: BorrowedFd<'_>, slot: u32) -> io::Result<Option<u32>> {
    let mut found = 0_u32;
    let element = Element::new(map, &raw const slot, &raw mut found);
    // SAFETY: key and value are words, as those of such maps are, and outlive the call.
    match unsafe { bpf(MAP_LOOKUP_ELEM, &element) } {
        Ok(_) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// [`in_slot`] for several of them, in their order; where the kernel waits each time, for all of
/// them at once.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn in_slots(map: BorrowedFd<'_>, slots: &[u32]) -> io::Result<Vec<Option<u32>>> {
    let Some((first, others)) = slots.split_first() else {
        return Ok(Vec::new());
    };
    let before = Instant::now();
    let mut found = vec![in_slot(map, *first)?];
    if before.elapsed() < LOOK {
        for slot in others {
            found.push(in_slot(map, *slot)?);
        }
    } else {
        found.extend(grace::each(others, |slot| in_slot(map, *slot))?);
    }
    Ok(found)
}

/// Puts a map or a program into a slot.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn put_in_slot(
    map: BorrowedFd<'_>,
    slot: u32,
    object: BorrowedFd<'_>,
) -> io::Result<()> {
    let fd = object.as_raw_fd().cast_unsigned();
    let element = Element::new(map, &raw const slot, &raw const fd);
    // SAFETY: key and value are words, as those of such maps are, and outlive the call.
    unsafe { bpf(MAP_UPDATE_ELEM, &element) }.map(drop)
}

/// Takes what stands in a slot out of it, if anything does.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn clear_slot(map: BorrowedFd<'_>, slot: u32) -> io::Result<()> {
    let element = Element::new(map, &raw const slot, std::ptr::null());
    // SAFETY: the key is a word, as that of such maps is, and outlives the call.
    match unsafe { bpf(MAP_DELETE_ELEM, &element) } {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The number of a map or a program.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn number(object: BorrowedFd<'_>) -> io::Result<u32> {
    let mut identity = Identity::default();
    info(object, &mut identity)?;
    Ok(identity.id)
}

/// What a map is like.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn shape(map: BorrowedFd<'_>) -> io::Result<Shape> {
    let mut told = MapInfo::default();
    info(map, &mut told)?;
    Ok(Shape {
        kind: told.kind,
        key: told.key_size,
        value: told.value_size,
        entries: told.max_entries,
        is_mappable: told.map_flags & MMAPABLE != 0,
    })
}

/// What the link pinned at `path` is about.
///
/// # Errors
///
/// There is no link at the path.
pub(crate) fn attachment(path: &Path) -> io::Result<Attachment> {
    use std::os::fd::AsFd as _;
    let link = open(path)?;
    let mut told = LinkInfo::default();
    info(link.as_fd(), &mut told)?;
    Ok(Attachment {
        program: told.program,
        target: told.target,
    })
}

/// A descriptor of what is pinned at `path`.
///
/// # Errors
///
/// Nothing is.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    link::open(path)
}

/// Has the kernel fill in the beginning of an object's description.
fn info<T>(object: BorrowedFd<'_>, into: &mut T) -> io::Result<()> {
    let get = GetInfo {
        fd: object.as_raw_fd().cast_unsigned(),
        length: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(into) as u64,
    };
    // SAFETY: the kernel writes no more than the length of the value, which outlives the call;
    // all of these are of plain words.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &get) }.map(drop)
}
