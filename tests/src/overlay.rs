//! A copy of this machine's files that may be changed at will, for installing packages: what is
//! written goes into memory and away with it. Programs in it see the machine's processes and devices,
//! but not that it has a service manager.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    namespace::run_tool,
    process::{Process, wait_for},
    scratch::Scratch,
};

/// Mounts the copy in a namespace of its own, which lives as long as this shell: `$0` is a directory.
const KEEP: &str = r#"
set -e
mount -t tmpfs -o mode=0755 tmpfs "$0"
mkdir "$0/changes" "$0/work" "$0/root"
mount -t overlay -o "lowerdir=/,upperdir=$0/changes,workdir=$0/work" overlay "$0/root"
mount -t proc proc "$0/root/proc"
mount -t tmpfs tmpfs "$0/root/run"
mount -t tmpfs -o mode=1777 tmpfs "$0/root/tmp"
mount --rbind /dev "$0/root/dev"
touch "$0/root/run/ready"
exec sleep infinity
"#;

/// See the module's documentation.
#[derive(Debug)]
pub struct Overlay {
    keeper: Process,
    root: PathBuf,
    _scratch: Scratch,
}

impl Overlay {
    /// Mounts it. Needs root.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn mount() -> Result<Self> {
        let scratch = Scratch::new()?;
        let directory = scratch.join("overlay");
        std::fs::create_dir(&directory)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", KEEP]);
        command.arg(&directory);
        let keeper = Process::start("the overlay", command, &scratch.join("log"))?;
        let overlay = Self {
            keeper,
            root: directory.join("root"),
            _scratch: scratch,
        };
        wait_for("the overlay", Duration::from_secs(20), || {
            overlay.keeper.ensure_running()?;
            let ready = overlay.tool("test", &["-e", "/run/ready"]);
            Ok(ready.ok())
        })
        .with_context(|| overlay.keeper.tail())?;
        Ok(overlay)
    }

    /// A command that will run in it.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.keeper.pid());
        command.arg(namespace).arg("chroot").arg(&self.root);
        command.arg(program).args(args).env("LC_ALL", "C.UTF-8");
        command
    }

    /// Runs a command in it; what that writes to standard output.
    ///
    /// # Errors
    ///
    /// It does not end well.
    pub fn tool(&self, program: &str, args: &[&str]) -> Result<String> {
        run_tool(&mut self.command(program, args))
    }

    /// The same of a shell's script.
    ///
    /// # Errors
    ///
    /// As for [`Self::tool`].
    pub fn shell(&self, script: &str) -> Result<String> {
        self.tool("sh", &["-ec", script])
    }

    /// Copies a file of the machine's to a path in it.
    ///
    /// # Errors
    ///
    /// It cannot be read or written.
    pub fn put(&self, file: &std::path::Path, to: &str) -> Result<()> {
        let input = std::fs::File::open(file).with_context(|| file.display().to_string())?;
        let mut command = self.command("sh", &["-c", "cat > \"$0\"", to]);
        run_tool(command.stdin(input)).map(drop)
    }
}
