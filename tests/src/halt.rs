//! One thread of another process made to stand still, as by a bug in it, while the others go on.

use std::{fs, io, marker::PhantomData, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::process::wait_for;

/// How long it may take until the name is that of one thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// Goes on when this is dropped.
#[derive(Debug)]
pub struct Halted {
    thread: libc::pid_t,
    // ptrace(2) answers only the thread that began with it.
    _here: PhantomData<*const ()>,
}

/// Halts the thread of process `pid` that has this name.
///
/// # Errors
///
/// There is not one alone, or the kernel refuses (somebody debugs it).
pub fn halt(pid: u32, name: &str) -> Result<Halted> {
    // A thread has the name of the one that began it until it gets its own.
    let thread = wait_for(
        &format!("one thread {name:?} of process {pid}"),
        PATIENCE,
        || {
            Ok(match named(pid, name)?.as_slice() {
                [thread] => Some(*thread),
                _ => None,
            })
        },
    )?;
    trace(libc::PTRACE_SEIZE, thread).context("cannot seize the thread")?;
    let halted = Halted {
        thread,
        _here: PhantomData,
    };
    trace(libc::PTRACE_INTERRUPT, thread).context("cannot interrupt the thread")?;
    let mut status = 0;
    // SAFETY: the status is writable.
    let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
    ensure!(
        waited == thread && libc::WIFSTOPPED(status),
        "the thread did not stop: {}",
        io::Error::last_os_error()
    );
    Ok(halted)
}

/// Threads of a process that have this name.
fn named(pid: u32, name: &str) -> Result<Vec<libc::pid_t>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
        let task = task?;
        // It may end while it is looked at.
        let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if comm.trim_end() == name {
            threads.push(task.file_name().to_string_lossy().parse()?);
        }
    }
    Ok(threads)
}

impl Drop for Halted {
    fn drop(&mut self) {
        // If it has ended, it need not go on.
        let _ = trace(libc::PTRACE_DETACH, self.thread);
    }
}

fn trace(request: libc::c_uint, thread: libc::pid_t) -> io::Result<()> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: none of the requests above takes an address or data.
    if unsafe { libc::ptrace(request, thread, nothing, nothing) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
