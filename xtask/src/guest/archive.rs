//! An archive of packages inside a guest, at `/srv/apt`, which looks to apt like Debian's.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::root::write;
use crate::run;

/// The suite that the script adds for Consul's sake.
pub(super) const OLD_SUITE: &str = "bullseye";

/// Where it is, as seen in the guest.
const PLACE: &str = "srv/apt";

/// Puts the packages of a directory into the archive of the guest with this root, whose only source it
/// becomes. Packages of the old suite are listed there alone.
pub(super) fn lay_out(root: &Path, suite: &str, packages: &Path) -> Result<()> {
    let place = root.join(PLACE);
    for (suite, is_ours) in [(suite, true), (OLD_SUITE, false)] {
        let pool = place.join("pool").join(suite);
        fs::create_dir_all(&pool)
            .with_context(|| format!("could not create {}", pool.display()))?;
        for package in fs::read_dir(packages)
            .with_context(|| format!("could not list {}", packages.display()))?
            .flatten()
        {
            let name = package.file_name().to_string_lossy().into_owned();
            if name.ends_with(".deb") && name.starts_with("consul_") != is_ours {
                fs::copy(package.path(), pool.join(&name))
                    .with_context(|| format!("could not copy {name}"))?;
            }
        }
        index(&place, suite)?;
    }
    write(
        &root.join("etc/apt/sources.list"),
        &format!("deb file:/{PLACE} {suite} main\n"),
    )
}

/// Writes the lists that apt reads.
fn index(place: &Path, suite: &str) -> Result<()> {
    let mut scan = Command::new("dpkg-scanpackages");
    scan.current_dir(place)
        .args(["--multiversion", &format!("pool/{suite}")]);
    let packages = run::output("list the packages of the guest's archive", &mut scan)?;
    let directory = place.join("dists").join(suite);
    let list = "main/binary-amd64/Packages";
    write(&directory.join(list), &packages)?;
    let mut sum = Command::new("sha256sum");
    let sum = run::output("sum up a list", sum.arg(directory.join(list)))?;
    let sum = sum.split_whitespace().next().unwrap_or_default();
    let mut date = Command::new("date");
    let date = run::output("tell the date", date.args(["--utc", "--rfc-email"]))?;
    write(
        &directory.join("Release"),
        &format!(
            "Origin: Debian\nLabel: Debian\nSuite: {suite}\nCodename: {suite}\nDate: {}\n\
             Architectures: amd64\nComponents: main\nSHA256:\n {sum} {} {list}\n",
            date.trim(),
            packages.len()
        ),
    )
}
