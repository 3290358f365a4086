//! The Unix socket: made with the right permissions, taken over from a dead agent, never from a
//! living one.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;
use tokio::net::UnixListener;

/// Mode of the socket: its owner and its group may ask and steer.
const SOCKET_MODE: u32 = 0o660;
/// Mode of the socket's directory, if it has to be made.
const DIRECTORY_MODE: u32 = 0o750;

/// Why there is no socket to listen on.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another agent listens on it.
    #[error(
        "another agent already answers on {}; stop it first, or give this one another socket",
        .0.display()
    )]
    InUse(PathBuf),
    /// The path is taken by something that must not be deleted.
    #[error("{} exists and is no socket; move it away", .0.display())]
    NotASocket(PathBuf),
    /// The system refused a step.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was tried, as in `cannot create`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Keeps other agents away from a socket, and removes it when dropped.
#[derive(Debug)]
pub struct SocketGuard {
    path: PathBuf,
    /// Locked as long as it is open; the kernel unlocks it even if the agent is killed.
    _lock: File,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        // If it is gone already, so much the better. The lock file stays: to delete it would let
        // two agents lock two files of the same name.
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens on `path`. Its directory is made (0750) if it is missing; a socket that a dead agent
/// left behind is replaced. The result has mode 0660. To be called within a tokio runtime.
///
/// Whether the former agent lives is decided by a lock on `PATH.lock`, not by trying to connect:
/// two agents that start at once would both find the old socket dead, and one would delete the
/// other's new one.
///
/// # Errors
///
/// Another agent holds the lock, the path is taken by something else, or the system refused.
pub fn bind(path: &Path) -> Result<(UnixListener, SocketGuard), BindError> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| BindError::Io { what, path, source }
    };
    if let Some(directory) = path.parent().filter(|dir| !dir.as_os_str().is_empty())
        && !directory.is_dir()
    {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .map_err(failed("cannot create the directory", directory))?;
        // Once more, because the umask may have taken the group's rights away.
        fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(failed("cannot set the mode of", directory))?;
    }
    let lock = lock(path)?;
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            fs::remove_file(path).map_err(failed("cannot remove the stale socket", path))?;
        }
        Ok(_) => return Err(BindError::NotASocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("cannot examine", path)(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed("cannot listen on", path))?;
    let guard = SocketGuard {
        path: path.to_owned(),
        _lock: lock,
    };
    // Until here the umask decides, which lets nobody but the owner write by default.
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))
        .map_err(failed("cannot set the mode of", path))?;
    Ok((listener, guard))
}

fn lock(socket: &Path) -> Result<File, BindError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |what| {
        let path = path.clone();
        move |source| BindError::Io { what, path, source }
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("cannot open the lock file"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(BindError::InUse(socket.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(failed("cannot lock")(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn made_with_its_directory_and_removed_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/agent.sock");
        let (_listener, guard) = bind(&path).unwrap();
        assert_eq!(mode(&path), SOCKET_MODE);
        assert_eq!(mode(path.parent().unwrap()), DIRECTORY_MODE);
        drop(guard);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the socket behind");

        let (_listener, guard) = bind(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert!(matches!(&error, BindError::InUse(taken) if *taken == path));
        assert!(path.exists(), "the living agent keeps its socket");

        drop(guard);
        bind(&path).expect("free again");
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        fs::write(&path, "precious").unwrap();
        let error = bind(&path).unwrap_err();
        assert!(matches!(error, BindError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_refusal_names_the_step_and_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = bind(&file.join("agent.sock")).unwrap_err().to_string();
        let expected = format!("cannot create the directory {}:", file.display());
        assert!(error.starts_with(&expected), "{error}");
    }
}
