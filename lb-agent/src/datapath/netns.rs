//! Network namespaces of this machine, told apart by their cookies: local clients may be in
//! containers, and sockets can be closed only from within their own namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    net::UdpSocket,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    thread,
};

/// `SO_NETNS_COOKIE` of include/uapi/asm-generic/socket.h, since Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Cookie of the calling thread's namespace.
///
/// # Errors
///
/// The kernel is too old, or there is no socket to ask.
pub(crate) fn cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the buffer has the length that goes with it.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

/// Namespaces by cookie, as far as they are wanted and some process is in them.
pub(crate) fn find(wanted: &BTreeSet<u64>) -> BTreeMap<u64, File> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let Ok(processes) = fs::read_dir("/proc") else {
        return found;
    };
    for process in processes.flatten() {
        if found.len() == wanted.len() {
            break;
        }
        let name = process.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // A process that ends meanwhile has no sockets left to close.
        let Some(file) = open(&process.path(), &mut seen) else {
            continue;
        };
        if let Ok(Ok(cookie)) = within(&file, cookie)
            && wanted.contains(&cookie)
        {
            found.insert(cookie, file);
        }
    }
    found
}

/// The namespace of a process; `None` for one that was `seen`, by inode, or cannot be opened.
fn open(process: &Path, seen: &mut BTreeSet<u64>) -> Option<File> {
    let path = process.join("ns/net");
    let inode = fs::metadata(&path).ok()?.ino();
    if !seen.insert(inode) {
        return None;
    }
    File::open(&path).ok()
}

/// Calls `f` within a namespace, on a thread of its own.
///
/// # Errors
///
/// It cannot be entered.
pub(crate) fn within<T: Send>(namespace: &File, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    use std::os::fd::AsFd as _;
    let descriptor: BorrowedFd<'_> = namespace.as_fd();
    thread::scope(|scope| {
        let inside = thread::Builder::new().spawn_scoped(scope, move || {
            // SAFETY: the descriptor is open; setns(2) changes nothing but the calling thread.
            if unsafe { libc::setns(descriptor.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(f())
        })?;
        inside
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Our own namespace is found among those of all processes, by whoever may enter it.
    #[test]
    fn the_own_namespace_is_found() {
        let own = cookie().unwrap();
        let here = File::open("/proc/self/ns/net").unwrap();
        let found: Vec<u64> = find(&[own, u64::MAX].into()).into_keys().collect();
        match within(&here, cookie) {
            Ok(inside) => {
                assert_eq!(inside.unwrap(), own);
                assert_eq!(found, [own]);
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
                assert!(found.is_empty());
            }
        }
    }
}
