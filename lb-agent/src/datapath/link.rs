//! What pinned links need besides what aya does: detaching at once, and another program behind
//! the link of a cgroup.
//!
//! To remove the pin alone is not enough: the kernel lets go of the interface on a work queue
//! (kernel/bpf/syscall.c, `bpf_link_put`), after the link's id has gone. Until then the interface
//! takes no program in another mode. `BPF_LINK_DETACH` returns when it is free.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// `BPF_OBJ_GET` of include/uapi/linux/bpf.h.
const OBJ_GET: libc::c_long = 7;
/// `BPF_LINK_UPDATE`, since Linux 5.7.
const LINK_UPDATE: libc::c_long = 29;
/// `BPF_LINK_DETACH`, since Linux 5.9.
const LINK_DETACH: libc::c_long = 34;

/// The part of `union bpf_attr` that [`OBJ_GET`] reads.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part of `union bpf_attr` that [`LINK_DETACH`] reads.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that [`LINK_UPDATE`] reads.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Takes the program of the link pinned at `path` off its interface, which may be gone. The pin
/// stays.
///
/// # Errors
///
/// There is no link at the path, or the kernel refuses.
pub(crate) fn detach(path: &Path) -> io::Result<()> {
    let link = open(path)?;
    let detach = LinkDetach {
        link_fd: link.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    // SAFETY: the attributes hold no pointer.
    unsafe { bpf(LINK_DETACH, &detach) }.map(drop)
}

/// Puts another program of the same kind behind the link pinned at `path`, in one step.
///
/// # Errors
///
/// There is no link at the path, or what it was attached to is gone.
pub(crate) fn replace(path: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let link = open(path)?;
    let update = LinkUpdate {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_prog_fd: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the attributes hold no pointer.
    unsafe { bpf(LINK_UPDATE, &update) }.map(drop)
}

/// A descriptor of what is pinned at `path`.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let pathname = CString::new(path.as_os_str().as_bytes())?;
    let get = ObjGet {
        pathname: pathname.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the path is a C string that outlives the call.
    let fd = unsafe { bpf(OBJ_GET, &get) }?;
    // SAFETY: the kernel has just given us the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The system call bpf(2), which answers with a descriptor or zero.
///
/// # Safety
///
/// `attributes` are those of the command, and what they point to is valid.
pub(super) unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: pointer and size are those of one value; the caller answers for the rest.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match i32::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_or_no_pin_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let missing = temporary.path().join("missing");
        // Who is not root is refused before the path is looked at.
        let kind = detach(&missing).unwrap_err().kind();
        let expected = [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied];
        assert!(expected.contains(&kind), "{kind}");
        let file = temporary.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(detach(&file).is_err());
    }
}
