//! Control groups (version 2): where the programs on socket calls are attached.

use std::{
    ffi::{CString, OsString},
    fs::{self, File},
    io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use crate::domain::kernel::KernelError;

/// Where the kernel lists what is mounted.
const MOUNTS: &str = "/proc/mounts";

/// A cgroup, open.
#[derive(Debug)]
pub(crate) struct Cgroup {
    pub(crate) path: PathBuf,
    pub(crate) dir: File,
    /// Its number, which no other cgroup gets as long as the machine runs.
    pub(crate) id: u64,
}

impl Cgroup {
    /// Opens the cgroup at `path`.
    ///
    /// # Errors
    ///
    /// There is nothing, or no cgroup of version 2.
    pub(crate) fn open(path: &Path) -> Result<Self, KernelError> {
        let what = || format!("opening the cgroup {} for local clients", path.display());
        let dir = File::open(path).map_err(|error| KernelError::new(what(), error))?;
        let kind = file_system(path).map_err(|error| KernelError::new(what(), error))?;
        let facts = dir
            .metadata()
            .map_err(|error| KernelError::new(what(), error))?;
        if kind != libc::CGROUP2_SUPER_MAGIC || !facts.is_dir() {
            return Err(KernelError::new(
                what(),
                "it is no cgroup of version 2; `cgroup` under [node] names a directory below the \
                 mount that `findmnt -t cgroup2` shows",
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            dir,
            id: facts.ino(),
        })
    }
}

/// The root of the cgroup v2 hierarchy: every process of the machine is below it.
///
/// # Errors
///
/// None is mounted.
pub fn cgroup_root() -> Result<PathBuf, KernelError> {
    let what = "looking for cgroup v2, which `local_clients` under [node] needs";
    let mounts = fs::read(MOUNTS).map_err(|error| KernelError::new(what, error))?;
    root_in(&mounts).ok_or_else(|| {
        KernelError::new(
            what,
            format!("{MOUNTS} lists no cgroup2; `mount -t cgroup2 none DIRECTORY` mounts it"),
        )
    })
}

/// The first mount of type `cgroup2` in a list as proc_pid_mounts(5) describes it.
fn root_in(mounts: &[u8]) -> Option<PathBuf> {
    mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == b"cgroup2").then(|| OsString::from_vec(unescape(path)).into())
    })
}

/// Blanks and backslashes are written as a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let code = match rest {
            [b'\\', digits @ ..] => digits
                .get(..3)
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 8).ok()),
            _ => None,
        };
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { &rest[4..] } else { tail };
    }
    plain
}

/// The type of the file system that a path lies on.
fn file_system(path: &Path) -> io::Result<libc::__fsword_t> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut facts = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: both pointers are valid for the call.
    if unsafe { libc::statfs(path.as_ptr(), facts.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above succeeded and filled it in.
    Ok(unsafe { facts.assume_init() }.f_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of what is mounted, and where version 2 is.
    #[test]
    fn the_root_is_found() {
        let hybrid = "proc /proc proc rw 0 0\n\
                      tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let rows = [
            (hybrid, Some("/sys/fs/cgroup/unified")),
            (
                "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n",
                Some("/sys/fs/cgroup"),
            ),
            (
                "none /a\\040b\\134c cgroup2 rw 0 0\nnone /d cgroup2 rw 0 0",
                Some("/a b\\c"),
            ),
            ("cgroup2 /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n", None),
            ("", None),
            ("cgroup2", None),
        ];
        for (mounts, root) in rows {
            assert_eq!(
                root_in(mounts.as_bytes()),
                root.map(PathBuf::from),
                "{mounts}"
            );
        }
        assert_eq!(unescape(b"a\\04"), b"a\\04");
        assert_eq!(unescape(b"\\999\\"), b"\\999\\");
    }

    #[test]
    fn what_is_no_cgroup_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let error = Cgroup::open(temporary.path()).unwrap_err().to_string();
        assert!(error.contains("no cgroup of version 2"), "{error}");
        let error = Cgroup::open(&temporary.path().join("missing"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("missing for local clients: No such file"),
            "{error}"
        );
    }
}
