//! A cgroup (version 2) of a test's own, for processes that are to be told from all others.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    cleanup::{self, Guard},
    namespace::{stale, unique_name},
};

/// A child of the root cgroup. Removed when dropped, after its processes have ended.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    _guard: Guard,
}

impl Cgroup {
    /// Makes a cgroup whose name ends in `label`. Needs root and a cgroup2 mount.
    pub fn new(label: &str) -> Result<Self> {
        let root = lb_agent::datapath::cgroup_root()?;
        sweep(&root);
        let path = root.join(unique_name(label));
        let guard = cleanup::on_exit({
            let path = path.clone();
            move || remove(&path)
        });
        fs::create_dir(&path)
            .with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(Self {
            path,
            _guard: guard,
        })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Moves the calling process, with the sockets that it will make, into the cgroup at `path`.
pub fn join(path: &Path) -> Result<()> {
    let file = path.join("cgroup.procs");
    fs::write(&file, std::process::id().to_string())
        .with_context(|| format!("cannot join by {}", file.display()))
}

/// A process that has just ended may hold it for a moment.
fn remove(path: &Path) {
    for _ in 0..50 {
        if fs::remove_dir(path).is_ok() || !path.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Removes what killed runs left.
fn sweep(root: &Path) {
    for path in stale(root) {
        // What cannot be removed is in nobody's way: names are unique.
        let _ = fs::remove_dir(path);
    }
}
