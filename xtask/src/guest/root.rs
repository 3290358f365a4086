//! A plain Debian machine to boot: root file system, kernel and initramfs. Made once by debootstrap and
//! kept under `target/guests/SUITE` as long as its recipe is the same.
//!
//! It has no network to the outside. What `vagrant/provision.sh` installs lies in a local archive in it,
//! under the suites' own names, so that the script's ordinary calls of apt work.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::archive;
use crate::{catalog::Catalog, run, suite::Archive, workspace};

/// What a virtual machine of Debian has, beyond the least that boots.
const PACKAGES: [&str; 14] = [
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "procps",
    "sudo",
    "ca-certificates",
    "curl",
    "iproute2",
    "python3",
    "adduser",
];

/// Files of the machine's, path and content.
const FILES: [(&str, &str); 8] = [
    ("etc/hostname", "guest\n"),
    ("etc/hosts", "127.0.0.1 localhost guest\n"),
    // What is tested, and the steps to take.
    ("etc/fstab", "/dev/vdb /given ext4 ro 0 0\n"),
    // As Vagrant sets up a private network.
    (
        "etc/systemd/network/private.network",
        "[Match]\nName=eth0\n\n[Network]\nAddress=192.168.56.10/24\nLinkLocalAddressing=no\n",
    ),
    // The local archive is not signed.
    (
        "etc/apt/apt.conf.d/guest",
        "Acquire::AllowInsecureRepositories \"true\";\nAPT::Get::AllowUnauthenticated \"true\";\n\
         Acquire::Languages \"none\";\n",
    ),
    // Nobody needs this machine after a crash.
    ("etc/dpkg/dpkg.cfg.d/guest", "force-unsafe-io\n"),
    (
        "etc/systemd/system/steps.service",
        "[Unit]\nAfter=multi-user.target\n\n[Service]\nType=exec\nExecStart=/bin/sh /given/steps\n\n\
         [Install]\nWantedBy=multi-user.target\n",
    ),
    ("given/.keep", ""),
];

/// What would only cost time.
const MASKED: [&str; 7] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "serial-getty@ttyS0.service",
    "getty@tty1.service",
];

/// A machine that is ready to be booted; nothing is to be written into its files.
pub(super) struct Root {
    pub(super) image: PathBuf,
    pub(super) vmlinuz: PathBuf,
    pub(super) initrd: PathBuf,
}

impl Root {
    fn in_directory(directory: &Path) -> Self {
        Self {
            image: directory.join("root.img"),
            vmlinuz: directory.join("vmlinuz"),
            initrd: directory.join("initrd.img"),
        }
    }
}

/// Finds the machine of this suite, or makes it: with `installed` to be had from its archive.
///
/// # Errors
/// The suite cannot be reached, or one of the steps fails.
pub(super) fn get(suite: &str, installed: &[String]) -> Result<Root> {
    let directory = workspace::guests_dir().join(suite);
    let recipe = directory.join("recipe");
    let wanted = format!("{PACKAGES:?}\n{FILES:?}\n{MASKED:?}\n{installed:?}\n");
    if fs::read_to_string(&recipe).is_ok_and(|present| present == wanted) {
        return Ok(Root::in_directory(&directory));
    }
    println!("guest: making a machine of Debian's {suite} (minutes, once)");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory)
        .with_context(|| format!("could not create {}", directory.display()))?;
    let unpacked = directory.join("unpacked");
    bootstrap(suite, &unpacked)?;
    let catalog = Catalog::fetch(&Archive::find()?, &[suite, archive::OLD_SUITE])?;
    let packages = catalog.download_for(&unpacked.join("var/lib/dpkg/status"), installed)?;
    archive::lay_out(&unpacked, suite, &packages)?;
    configure(&unpacked)?;
    let root = Root::in_directory(&directory);
    take_kernel(&unpacked, &root)?;
    make_image(&unpacked, &root.image, "2G")?;
    fs::remove_dir_all(&unpacked)
        .with_context(|| format!("could not remove {}", unpacked.display()))?;
    write(&recipe, &wanted)?;
    Ok(root)
}

fn bootstrap(suite: &str, into: &Path) -> Result<()> {
    let archive = Archive::find()?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .arg("--variant=minbase")
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(suite)
        .arg(into)
        .arg(archive.uri());
    run::output("make a root file system", &mut debootstrap).map(drop)
}

fn configure(root: &Path) -> Result<()> {
    for (path, content) in FILES {
        write(&root.join(path), content)?;
    }
    for (verb, units) in [
        ("enable", &["systemd-networkd.service", "steps.service"][..]),
        ("mask", &MASKED[..]),
    ] {
        let mut systemctl = Command::new("chroot");
        systemctl.arg(root).args(["systemctl", "--quiet", verb]);
        run::output(&format!("{verb} units of the guest"), systemctl.args(units))?;
    }
    Ok(())
}

/// The kernel and its initramfs, as their package has put them there.
fn take_kernel(root: &Path, taken: &Root) -> Result<()> {
    let boot = root.join("boot");
    for (prefix, to) in [("vmlinuz-", &taken.vmlinuz), ("initrd.img-", &taken.initrd)] {
        let mut found = fs::read_dir(&boot)
            .with_context(|| format!("could not list {}", boot.display()))?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        let from = found
            .next()
            .with_context(|| format!("no {prefix}* in {}", boot.display()))?
            .path();
        ensure!(
            found.next().is_none(),
            "several kernels in {}",
            boot.display()
        );
        fs::copy(&from, to).with_context(|| format!("could not copy {}", from.display()))?;
    }
    Ok(())
}

/// An image with the files of a directory. No mount is needed for it.
pub(super) fn make_image(directory: &Path, image: &Path, size: &str) -> Result<()> {
    let _ = fs::remove_file(image);
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-O", "^has_journal", "-d"])
        .arg(directory)
        .arg(image)
        .arg(size);
    run::output(&format!("make {}", image.display()), &mut mkfs).map(drop)
}

pub(super) fn write(path: &Path, content: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("could not create {}", directory.display()))?;
    }
    fs::write(path, content).with_context(|| format!("could not write {}", path.display()))
}
