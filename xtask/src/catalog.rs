//! Packages of suites that the machine does not follow, by an apt state of its own under
//! `target/`: the machine's sources, lists and preferences stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{apt, run, suite::Archive, workspace};

/// What apt knows of some suites and nothing else.
pub(crate) struct Catalog {
    directory: PathBuf,
    suites: String,
}

impl Catalog {
    /// Fetches the package lists of `suites`.
    ///
    /// # Errors
    /// Names the suites if one of them cannot be fetched.
    pub(crate) fn fetch(archive: &Archive, suites: &[&str]) -> Result<Self> {
        let catalog = Self {
            directory: workspace::kernels_dir().join("apt").join(suites.join("+")),
            suites: suites.join(" and "),
        };
        for directory in ["none", "lists/partial", "cache/archives/partial"] {
            let path = catalog.directory.join(directory);
            fs::create_dir_all(&path)
                .with_context(|| format!("could not create {}", path.display()))?;
        }
        let entry = archive.entry("packages of other suites, for the tests.", suites);
        catalog.write("suite.sources", &entry)?;
        // As if nothing were installed: the candidate is then what the suite has.
        catalog.write("status", "")?;
        println!("fetching the package lists of Debian's {}", catalog.suites);
        let options = catalog.options();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        apt::update(&options)
            .with_context(|| format!("Debian's suite {} cannot be reached", catalog.suites))?;
        Ok(catalog)
    }

    /// The packages that `package` depends on, by their names alone.
    ///
    /// # Errors
    /// The suite has no such package.
    pub(crate) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let mut show = Command::new("apt-cache");
        show.args(self.reading())
            .args(["show", "--no-all-versions", package]);
        let told = run::output(&format!("look up the package {package}"), &mut show)
            .with_context(|| format!("Debian's suite {} has no {package}", self.suites))?;
        Ok(dependencies_in(&told))
    }

    /// Downloads a package; answers with the file.
    ///
    /// # Errors
    /// The download fails.
    pub(crate) fn download(&self, package: &str) -> Result<PathBuf> {
        let into = self.directory.join("download");
        let _ = fs::remove_dir_all(&into);
        fs::create_dir_all(&into)
            .with_context(|| format!("could not create {}", into.display()))?;
        let mut get = Command::new("apt-get");
        get.args(self.reading())
            .args([
                "--quiet",
                "-o",
                "APT::Sandbox::User=root",
                "download",
                package,
            ])
            .current_dir(&into);
        run::run(&format!("download {package}"), &mut get)?;
        let mut files = fs::read_dir(&into)
            .with_context(|| format!("could not list {}", into.display()))?
            .flatten()
            .map(|entry| entry.path());
        match (files.next(), files.next()) {
            (Some(file), None) => Ok(file),
            _ => bail!("apt-get downloaded no file, or several, for {package}"),
        }
    }

    /// Downloads a package and unpacks it into `directory`, without installing it.
    ///
    /// # Errors
    /// The download fails, or the archive is broken.
    pub(crate) fn unpack(&self, package: &str, directory: &Path) -> Result<()> {
        let file = self.download(package)?;
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&file).arg(directory);
        run::run(&format!("unpack {package}"), &mut unpack)?;
        fs::remove_file(&file).with_context(|| format!("could not remove {}", file.display()))
    }

    /// Downloads packages with all that they need and that a machine lacks, whose `status` (dpkg's list of
    /// what is installed) is given; answers with the directory they are in.
    ///
    /// # Errors
    /// The suites do not have all of it, or the download fails.
    pub(crate) fn download_for(&self, status: &Path, packages: &[String]) -> Result<PathBuf> {
        let archives = self.directory.join("cache/archives");
        // What another call has left there is not of this machine.
        let _ = fs::remove_dir_all(&archives);
        fs::create_dir_all(archives.join("partial"))
            .with_context(|| format!("could not create {}", archives.display()))?;
        let mut get = Command::new("apt-get");
        get.args(self.options())
            .arg("-o")
            .arg(format!("Dir::State::status={}", status.display()))
            .args(["-o", "APT::Sandbox::User=root", "--quiet", "--yes"])
            .args(["--no-install-recommends", "--download-only", "install"])
            .args(packages);
        run::run(&format!("download {}", packages.join(", ")), &mut get)?;
        Ok(archives)
    }

    /// Installs a package on the machine, with what it needs, preferably from `release`.
    ///
    /// # Errors
    /// The installation fails.
    pub(crate) fn install(&self, package: &str, release: &str) -> Result<()> {
        let mut options = self.options();
        options.push(format!("--target-release={release}"));
        apt::install_with(&options, &[package.to_owned()])
    }

    /// Options that have apt see these suites and no others.
    fn options(&self) -> Vec<String> {
        let within = |name: &str| self.directory.join(name).display().to_string();
        [
            format!("Dir::Etc::sourcelist={}", within("suite.sources")),
            format!("Dir::Etc::sourceparts={}", within("none")),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            format!("Dir::Etc::preferencesparts={}", within("none")),
            format!("Dir::State::lists={}", within("lists")),
            format!("Dir::Cache={}", within("cache")),
            "Acquire::Languages=none".to_owned(),
            // Descriptions for software centres, half the download where they are asked for.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ]
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option])
        .collect()
    }

    /// The same, and blind to what is installed.
    fn reading(&self) -> Vec<String> {
        let mut options = self.options();
        options.push("-o".into());
        let status = self.directory.join("status");
        options.push(format!("Dir::State::status={}", status.display()));
        options
    }

    fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, content).with_context(|| format!("could not write {}", path.display()))
    }
}

/// The first of each group of alternatives in the field `Depends` of `apt-cache show`.
fn dependencies_in(told: &str) -> Vec<String> {
    told.lines()
        .filter_map(|line| line.strip_prefix("Depends: "))
        .flat_map(|field| field.split(','))
        .filter_map(|group| group.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_names() {
        let told = "Package: linux-image-7\nPre-Depends: linux-base (>= 4)\n\
                    Depends: dracut | initramfs-tools (>= 0.1), linux-binary-7 (= 7.2), kmod\n";
        assert_eq!(dependencies_in(told), ["dracut", "linux-binary-7", "kmod"]);
        assert!(dependencies_in("Package: busybox-static\n").is_empty());
    }
}
