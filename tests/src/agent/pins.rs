//! Where an agent under test pins its programs and maps.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use lb_agent::config::HELD_SOCKETS;

use crate::{
    cleanup::{self, Guard},
    namespace::{Entry, run_tool, stale, unique_name},
};

/// Where the kernel keeps pinned maps and links.
const BPFFS: &str = "/sys/fs/bpf";

/// How long taking the programs off may take.
const DETACH: Duration = Duration::from_secs(10);

/// A directory for pins on the BPF file system, emptied and removed when dropped; with it ends the
/// process that holds listening sockets.
#[derive(Debug)]
pub(super) struct Pins {
    pub(super) directory: PathBuf,
    _guard: Guard,
}

impl Pins {
    pub(super) fn new(binary: &Path, namespace: &Entry, socket: &Path) -> Result<Self> {
        mount_bpffs()?;
        let directory = Path::new(BPFFS).join(unique_name("pins"));
        let guard = cleanup::on_exit({
            let (directory, binary) = (directory.clone(), binary.to_owned());
            let (namespace, socket) = (namespace.clone(), socket.to_owned());
            move || {
                if (directory.exists() || socket.with_file_name(HELD_SOCKETS).exists())
                    && let Ok(mut command) = namespace.command(binary)
                {
                    command.arg("--socket").arg(&socket);
                    command.arg("detach").arg("--bpf-dir").arg(&directory);
                    run_briefly(&mut command);
                }
                // Whatever the agent made of it.
                let _ = fs::remove_dir_all(directory);
            }
        });
        Ok(Self {
            directory,
            _guard: guard,
        })
    }
}

/// Runs a command for at most [`DETACH`], and does not care how it ends.
fn run_briefly(command: &mut Command) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        return;
    };
    let deadline = Instant::now() + DETACH;
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Removes the pins of killed runs.
pub(crate) fn sweep_pins() {
    for path in stale(Path::new(BPFFS)) {
        // What cannot be removed is in nobody's way: names are unique.
        let _ = fs::remove_dir_all(path);
    }
}

/// Mounts the BPF file system where there is none.
pub fn mount_bpffs() -> Result<()> {
    let path = std::ffi::CString::new(Path::new(BPFFS).as_os_str().as_bytes())?;
    // SAFETY: statfs is plain data, for which all zeroes is a value.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a zero byte and `facts` is writable.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut facts) } != 0 {
        bail!("cannot look at {BPFFS}: {}", io::Error::last_os_error());
    }
    if facts.f_type != libc::BPF_FS_MAGIC {
        run_tool(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))?;
    }
    Ok(())
}
