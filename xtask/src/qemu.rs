//! Machines that qemu emulates. Emulated, not virtualised: it works wherever the build does.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{catalog::Catalog, run, suite::Archive};

const PROGRAM: &str = "qemu-system-x86_64";

/// Installs qemu where it is missing: from the backports, for the release's own does not go with
/// the other parts of qemu that may be installed from there.
///
/// # Errors
/// Not Debian, or the installation fails.
pub(crate) fn ensure() -> Result<()> {
    if run::find_program(PROGRAM).is_some() {
        return Ok(());
    }
    let release =
        fs::read_to_string("/etc/os-release").context("could not read /etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no release of Debian; install qemu-system-x86 by hand")?;
    println!("installing qemu-system-x86: emulates other machines");
    let backports = format!("{codename}-backports");
    Catalog::fetch(&Archive::find()?, &[codename, &backports])?
        .install("qemu-system-x86", &backports)
}

/// An emulated machine with two processors and 2 GiB, still without kernel and devices.
pub(crate) fn command() -> Command {
    // It must not go on when this process is killed.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", PROGRAM])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
        .args(["-m", "2048", "-nodefaults", "-display", "none"]);
    qemu
}

/// Arguments for serial lines, each written into a file: the guest's ttyS0, ttyS1, …
pub(crate) fn serial_lines(files: &[&Path]) -> Vec<String> {
    files
        .iter()
        .flat_map(|file| ["-serial".to_owned(), format!("file:{}", file.display())])
        .collect()
}

/// What came over a serial line.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn read_log(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
    // Serial lines end in carriage return and line feed.
    Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
}

/// A machine that runs. It does not outlive this.
pub(crate) struct Machine {
    qemu: Child,
    begun: Instant,
}

impl Machine {
    /// Switches it on.
    ///
    /// # Errors
    /// qemu does not start.
    pub(crate) fn start(qemu: &mut Command) -> Result<Self> {
        let qemu = qemu
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("could not start `{PROGRAM}`"))?;
        Ok(Self {
            qemu,
            begun: Instant::now(),
        })
    }

    /// Waits until it is off, and calls `look` with its age now and then, and at the end. False if it
    /// is still on when it is older than `limit`.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub(crate) fn wait(&mut self, limit: Duration, mut look: impl FnMut(Duration)) -> Result<bool> {
        while self
            .qemu
            .try_wait()
            .context("could not wait for qemu")?
            .is_none()
        {
            if self.age() > limit {
                return Ok(false);
            }
            look(self.age());
            thread::sleep(Duration::from_millis(200));
        }
        look(self.age());
        Ok(true)
    }

    /// How long ago it was switched on.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
