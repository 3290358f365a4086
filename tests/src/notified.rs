//! The service manager's end of sd_notify(3): what the agent tells, in order, each with its moment.

use std::{
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// A socket for `NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct Notified {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notified {
    /// Listens on `path`, as whom anybody may tell something.
    ///
    /// # Errors
    ///
    /// The path is taken.
    pub fn listen(path: &Path) -> Result<Self> {
        use std::{fs, os::unix::fs::PermissionsExt as _};
        let socket = UnixDatagram::bind(path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        Ok(Self {
            socket,
            path: path.to_owned(),
        })
    }

    /// The value of `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next message within this time, without its last line's end; `None`: there was none.
    ///
    /// # Errors
    ///
    /// The socket fails.
    pub fn next(&self, within: Duration) -> Result<Option<String>> {
        self.socket.set_read_timeout(Some(within))?;
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                Ok(Some(text.trim_end().to_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The next message that begins with `start`; those that come before it begin with one of
    /// `others`.
    ///
    /// # Errors
    ///
    /// It does not come in time, or another comes first.
    pub fn expect(&self, start: &str, others: &[&str], within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let next = self.next(left.max(Duration::from_millis(1)))?;
            let message = next.with_context(|| format!("no {start} came"))?;
            if message.starts_with(start) {
                return Ok(message);
            }
            if !others.iter().any(|other| message.starts_with(other)) {
                bail!("{message:?} came before {start}");
            }
        }
    }
}
