//! Where the maps and links of a datapath are pinned that runs in the test's own process.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Result;
use lb_agent::datapath;

use crate::cleanup::{self, Guard};

/// Directory for the pins of one datapath; taken off and removed with all that is in it.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    _guard: Guard,
}

impl Pins {
    /// A directory that nobody else uses; a BPF file system is mounted where there is none.
    ///
    /// # Errors
    ///
    /// It cannot be mounted.
    pub fn new() -> Result<Self> {
        crate::agent::mount_bpffs()?;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            Path::new("/sys/fs/bpf").join(format!("lb-world-{}-{number}", std::process::id()));
        let undo = path.clone();
        let guard = cleanup::on_exit(move || drop(datapath::detach(&undo)));
        Ok(Self {
            path,
            _guard: guard,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
