//! Where a world's maps are pinned.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Result;
use lb_agent::datapath;

use crate::cleanup::{self, Guard};

/// Directory for the pins of one world; removed with all that is in it.
pub(crate) struct Pins {
    pub(crate) path: PathBuf,
    _guard: Guard,
}

impl Pins {
    pub(crate) fn new() -> Result<Self> {
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
}
