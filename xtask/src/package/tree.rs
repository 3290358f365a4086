//! The files of the package, where they will be installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::Control;
use crate::{run, workspace};

/// Files of `lb-agent/packaging`, and their places.
const FILES: [(&str, &str); 7] = [
    ("config.toml", "etc/lb-agent/config.toml"),
    ("lb-agent.logrotate", "etc/logrotate.d/lb-agent"),
    (
        "lb-agent-prepare.service",
        "usr/lib/systemd/system/lb-agent-prepare.service",
    ),
    (
        "lb-agent.service",
        "usr/lib/systemd/system/lb-agent.service",
    ),
    ("lb-agent.sysusers", "usr/lib/sysusers.d/lb-agent.conf"),
    ("debian/copyright", "usr/share/doc/lb-agent/copyright"),
    (
        "debian/changelog",
        "usr/share/doc/lb-agent/changelog.Debian",
    ),
];

/// Completions as the program names them, and their places.
const COMPLETIONS: [(&str, &str); 3] = [
    (
        "lb-agent.bash",
        "usr/share/bash-completion/completions/lb-agent",
    ),
    ("_lb-agent", "usr/share/zsh/vendor-completions/_lb-agent"),
    (
        "lb-agent.fish",
        "usr/share/fish/vendor_completions.d/lb-agent.fish",
    ),
];

/// Scripts that dpkg runs.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// The directory that becomes the package.
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Puts everything but what describes the package at its place under `root`, which is emptied before.
    pub(super) fn lay_out(root: &Path, binary: &Path) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(root)
                .with_context(|| format!("could not empty {}", root.display()))?;
        }
        let tree = Self {
            root: root.to_owned(),
        };
        for (from, to) in FILES {
            tree.copy(&packaging().join(from), to, 0o644)?;
        }
        tree.copy(binary, "usr/bin/lb-agent", 0o755)?;
        run::run(
            "strip the program",
            Command::new("strip")
                .arg("--strip-unneeded")
                .arg(tree.program()),
        )?;
        tree.generate()?;
        tree.compress("usr/share/doc/lb-agent/changelog.Debian")?;
        Ok(tree)
    }

    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    pub(super) fn program(&self) -> PathBuf {
        self.root.join("usr/bin/lb-agent")
    }

    /// Manual pages and completions, written by the program.
    fn generate(&self) -> Result<()> {
        let scratch = self.root.with_extension("generated");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)
                .with_context(|| format!("could not empty {}", scratch.display()))?;
        }
        for what in ["man", "completions"] {
            run::run(
                &format!("generate {what}"),
                Command::new(self.program())
                    .args(["generate", what])
                    .arg(scratch.join(what)),
            )?;
        }
        for page in files(&scratch.join("man"))? {
            let name = page.file_name().unwrap_or_default().to_string_lossy();
            let section = name.rsplit('.').next().unwrap_or_default();
            let to = format!("usr/share/man/man{section}/{name}");
            self.copy(&page, &to, 0o644)?;
            self.compress(&to)?;
        }
        for (from, to) in COMPLETIONS {
            self.copy(&scratch.join("completions").join(from), to, 0o644)?;
        }
        Ok(())
    }

    /// Installed size in KiB, as dpkg-gencontrol counts it: whole KiB for each file.
    pub(super) fn kibibytes(&self) -> Result<u64> {
        let mut sum = 0;
        for file in walk(&self.root)? {
            let length = fs::metadata(&file)
                .with_context(|| format!("could not look at {}", file.display()))?
                .len();
            sum += length.div_ceil(1024).max(1);
        }
        Ok(sum)
    }

    /// Writes what describes the package.
    pub(super) fn describe(&self, control: &Control) -> Result<()> {
        let template = packaging().join("debian/control");
        let text = fs::read_to_string(&template)
            .with_context(|| format!("could not read {}", template.display()))?;
        // Before there are others that are not to be in it.
        let mut sums = Command::new("md5sum");
        sums.current_dir(&self.root);
        for file in walk(&self.root)? {
            sums.arg(file.strip_prefix(&self.root).unwrap_or(&file));
        }
        let sums = run::output("sum up the files", &mut sums)?;
        self.write("DEBIAN/md5sums", &sums)?;
        self.write("DEBIAN/control", &control.fill(&text))?;
        self.copy(
            &packaging().join("debian/conffiles"),
            "DEBIAN/conffiles",
            0o644,
        )?;
        for script in SCRIPTS {
            let to = format!("DEBIAN/{script}");
            self.copy(&packaging().join("debian").join(script), &to, 0o755)?;
        }
        Ok(())
    }

    fn copy(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let path = self.place(to)?;
        fs::copy(from, &path)
            .and_then(|_| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("could not copy {} to {}", from.display(), path.display()))
    }

    fn write(&self, to: &str, text: &str) -> Result<()> {
        let path = self.place(to)?;
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .with_context(|| format!("could not write {}", path.display()))
    }

    /// A path in the tree whose directories exist, open to everybody whatever the umask is.
    fn place(&self, to: &str) -> Result<PathBuf> {
        let path = self.root.join(to);
        let above = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(above)
            .with_context(|| format!("could not create {}", above.display()))?;
        for directory in above
            .ancestors()
            .take_while(|each| each.starts_with(&self.root))
        {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("could not set the mode of {}", directory.display()))?;
        }
        Ok(path)
    }

    /// Without a name or a time in it, so that the same files make the same package.
    fn compress(&self, path: &str) -> Result<()> {
        run::run(
            "compress a document",
            Command::new("gzip").arg("-9n").arg(self.root.join(path)),
        )
    }
}

fn packaging() -> PathBuf {
    workspace::root().join("lb-agent/packaging")
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(|| format!("could not list {}", directory.display()))?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    Ok(paths)
}

/// All files below a directory, in order.
fn walk(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in files(directory)? {
        match path.is_dir() {
            true => found.extend(walk(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}
