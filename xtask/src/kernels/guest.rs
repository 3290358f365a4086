//! One boot of a kernel: an initramfs with the steps to take, and qemu around it.
//!
//! The kernel's own messages go to the first serial port, what the steps print to the second, each
//! into a file. Emulated, not virtualised: it works wherever the build does.

use std::{fmt::Write as _, fs, io::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{binaries::Binaries, image::Image, initramfs::Initramfs};
use crate::{
    qemu::{self, Machine},
    run, transcript,
};

/// How long a guest may take for all of its steps. They take a few minutes on two cores.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Programs that the tests call.
const TOOLS: [&str; 5] = ["ip", "ethtool", "curl", "nft", "mount"];

/// What the guest does, one step after the other.
pub(super) struct Step {
    /// Under which its output is found again.
    pub(super) name: &'static str,
    /// A line for the shell.
    pub(super) command: String,
}

/// What came of a boot.
pub(super) struct Outcome {
    /// What the steps printed.
    pub(super) transcript: String,
    /// What the kernel said.
    pub(super) console: String,
    /// From power-on to power-off.
    pub(super) took: Duration,
}

/// Boots the kernel, lets it take the steps, and waits until it powers off.
///
/// # Errors
/// The guest cannot be started, or takes longer than it may.
pub(super) fn boot(
    image: &Image,
    binaries: &Binaries,
    steps: &[Step],
    directory: &Path,
) -> Result<Outcome> {
    let initramfs = directory.join("initramfs");
    let archive = build(image, binaries, steps, directory)?;
    fs::write(&initramfs, archive)
        .with_context(|| format!("could not write {}", initramfs.display()))?;
    let (console, transcript) = (directory.join("console.log"), directory.join("steps.log"));
    for log in [&console, &transcript] {
        fs::write(log, "").with_context(|| format!("could not write {}", log.display()))?;
    }
    let mut machine = start(image, &initramfs, &console, &transcript)?;
    let mut shown = 0;
    let finished = machine.wait(LIMIT, |_| show_progress(&transcript, &mut shown))?;
    if !finished {
        bail!(
            "Linux {} did not get to the end in {} minutes; see {} and {}",
            image.release,
            LIMIT.as_secs() / 60,
            transcript.display(),
            console.display()
        );
    }
    Ok(Outcome {
        transcript: qemu::read_log(&transcript)?,
        console: qemu::read_log(&console)?,
        took: machine.age(),
    })
}

fn start(image: &Image, initramfs: &Path, console: &Path, transcript: &Path) -> Result<Machine> {
    let mut qemu = qemu::command();
    qemu.arg("-no-reboot")
        .arg("-kernel")
        .arg(&image.vmlinuz)
        .arg("-initrd")
        .arg(initramfs)
        // A panic is an early end, and there is no other source of chance to wait for.
        .args(["-append", "console=ttyS0 panic=-1 random.trust_cpu=on"])
        .args(qemu::serial_lines(&[console, transcript]));
    Machine::start(&mut qemu)
}

/// Prints the results of single tests as they come in.
fn show_progress(transcript: &Path, shown: &mut usize) {
    let Ok(text) = fs::read(transcript) else {
        return;
    };
    let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else {
        return;
    };
    let fresh = String::from_utf8_lossy(text.get(*shown..=end).unwrap_or_default());
    for line in fresh.lines().filter(|line| line.starts_with("test ")) {
        // Nobody may be there to read it.
        let _ = writeln!(std::io::stdout(), "    {}", line.trim_end());
    }
    *shown = end + 1;
}

fn build(image: &Image, binaries: &Binaries, steps: &[Step], scratch: &Path) -> Result<Vec<u8>> {
    let mut archive = Initramfs::default();
    for directory in ["bin", "proc", "sys", "dev", "tmp", "run", "root"] {
        archive.add_directory(directory);
    }
    archive.add("init", init(image, steps)?.as_bytes());
    archive.add(
        "bin/busybox",
        &fs::read(&binaries.busybox).context("could not read busybox")?,
    );
    archive.add_link("bin/sh", "busybox");
    // iproute2 names namespaces there.
    archive.add_link("var/run", "/run");
    for module in &image.modules {
        let name = file_name(module);
        let content = fs::read(module).with_context(|| format!("could not read {name}"))?;
        archive.add(&format!("modules/{name}"), &content);
    }
    for tool in TOOLS {
        let program = run::find_program(tool).with_context(|| format!("`{tool}` is missing"))?;
        archive.add_program(&format!("usr/sbin/{tool}"), &program, scratch)?;
    }
    // As they lie in cargo's target directory: the tests look for the others beside them.
    for (path, program) in [
        ("lb/lb-agent", &binaries.agent),
        ("lb/echo", &binaries.echo),
        ("lb/deps/datapath", &binaries.datapath),
        ("lb/deps/e2e", &binaries.e2e),
    ] {
        archive.add_program(path, program, scratch)?;
    }
    Ok(archive.finish())
}

/// The first program of the guest: makes it a machine, takes the steps, switches it off.
fn init(image: &Image, steps: &[Step]) -> Result<String> {
    let mut script = String::from(
        "#!/bin/sh\n\
         export PATH=/usr/sbin:/bin HOME=/root TMPDIR=/tmp\n\
         /bin/busybox --install -s /bin\n\
         busybox mount -t devtmpfs dev /dev\n\
         exec </dev/null >/dev/ttyS1 2>&1\n\
         busybox mount -t proc proc /proc\n\
         busybox mount -t sysfs sys /sys\n\
         busybox mount -t tmpfs tmp /tmp\n\
         busybox mount -t tmpfs run /run\n\
         busybox mount -t bpf bpf /sys/fs/bpf\n\
         busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup\n\
         ip link set lo up\n",
    );
    for module in &image.modules {
        writeln!(script, "insmod /modules/{}", file_name(module))?;
    }
    for step in steps {
        writeln!(script, "{}", transcript::begin(step.name))?;
        writeln!(script, "{}", step.command)?;
        writeln!(script, "{}", transcript::end(step.name))?;
    }
    script.push_str("poweroff -f\n");
    Ok(script)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
