//! Begins the process that holds sockets.

use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

use super::{ARGUMENT, link::Link};

/// Only the agent's user: who has the sockets has the requests.
const MODE: u32 = 0o600;

/// Begins a holder of sockets that listens on this one.
pub type Start = fn(OwnedFd) -> io::Result<Option<Child>>;

/// A holder that listens on `path`, and a connection to it.
pub(super) fn start(path: &Path, start: Start) -> io::Result<(Link, Option<Child>)> {
    // Left behind by one that has ended.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let listener = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    // Nobody can connect before it listens.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    listen(&listener, 16)?;
    let child = start(listener)?;
    Ok((Link::connect(path)?, child))
}

/// As a process of its own, of this same executable, even if its file has been replaced.
///
/// # Errors
///
/// It cannot be run.
pub fn as_a_process(listener: OwnedFd) -> io::Result<Option<Child>> {
    let child = Command::new("/proc/self/exe")
        .arg0("lb-agent")
        .arg(ARGUMENT)
        // What the service manager is told is the agent's affair.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_PID")
        .env_remove("WATCHDOG_USEC")
        .stdin(Stdio::from(listener))
        // Whoever reads what the agent prints should not wait for this one's end.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Some(child))
}
