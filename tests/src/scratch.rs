//! A directory for one run: configuration, state, logs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    cleanup::{self, Guard},
    namespace::{stale, unique_name},
};

/// A directory that is removed with everything in it, also when a signal ends the process.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _guard: Guard,
}

impl Scratch {
    /// Creates an empty one under the system's directory for temporary files.
    pub fn new() -> Result<Self> {
        let path = tempfile::Builder::new()
            .prefix(&format!("{}-", unique_name("run")))
            .tempdir()
            .context("cannot create a temporary directory")?
            .keep();
        let guard = cleanup::on_exit({
            let path = path.clone();
            move || drop(std::fs::remove_dir_all(path))
        });
        Ok(Self {
            path,
            _guard: guard,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

/// Removes the directories of killed runs.
pub(crate) fn sweep() {
    for path in stale(&std::env::temp_dir()) {
        crate::docker::sweep(&path);
        // What cannot be removed is in nobody's way: names are unique.
        let _ = std::fs::remove_dir_all(path);
    }
}
