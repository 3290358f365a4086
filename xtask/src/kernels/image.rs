//! A kernel of Debian's to boot: its image, and the modules that the tests need, ready to load.
//! Unpacked from its packages into `target/kernels/VERSION`, never installed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::Kernel;
use crate::{catalog::Catalog, suite::Archive, workspace};

/// The package whose dependencies lead to the suite's present kernel.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// What the packages of one kernel are called; sid's are in several parts.
const PARTS: [&str; 4] = [
    "linux-image-",
    "linux-binary-",
    "linux-modules-",
    "linux-base-",
];

/// Modules to load, and what for. A kernel has each, as a module or built in.
const MODULES: [(&str, &str); 10] = [
    ("veth", "cables between the hosts"),
    ("sch_ingress", "programs in tc"),
    ("cls_bpf", "programs in tc, before tcx"),
    (
        "nf_tables",
        "filters, and the kernel's own translation as an oracle",
    ),
    ("nft_chain_nat", "the oracle"),
    ("nft_ct", "the oracle"),
    ("nft_nat", "the oracle"),
    ("nft_masq", "the oracle"),
    ("ipip", "direct server return through a tunnel"),
    ("ip6_tunnel", "the same over IPv6"),
];

/// A kernel that is ready to be booted.
pub(super) struct Image {
    /// Its release, as `uname -r` says.
    pub(super) release: String,
    /// The kernel itself.
    pub(super) vmlinuz: PathBuf,
    /// Modules, uncompressed, in the order in which they can be loaded.
    pub(super) modules: Vec<PathBuf>,
}

/// Finds the kernel under `target/kernels`, or fetches it; one that is there stays until it is
/// removed by hand.
///
/// # Errors
/// The suite cannot be reached, or has no such kernel any more.
pub(super) fn get(kernel: &Kernel) -> Result<Image> {
    let directory = workspace::kernels_dir().join(kernel.version);
    if let Some(image) = read(&directory) {
        return Ok(image);
    }
    let archive = Archive::find()?;
    let catalog = Catalog::fetch(&archive, &[kernel.suite])?;
    let partial = workspace::kernels_dir().join(format!("{}.partial", kernel.version));
    let _ = fs::remove_dir_all(&partial);
    let _ = fs::remove_dir_all(&directory);
    let unpacked = partial.join("unpacked");
    fs::create_dir_all(&unpacked)
        .with_context(|| format!("could not create {}", unpacked.display()))?;
    for package in packages(&catalog)? {
        catalog.unpack(&package, &unpacked)?;
    }
    let release = release(&unpacked)?;
    if !is_of_version(&release, kernel.version) {
        bail!(
            "Debian's {} has Linux {release} by now, not {}",
            kernel.suite,
            kernel.version
        );
    }
    take(&unpacked, &release, &partial)?;
    fs::remove_dir_all(&unpacked)
        .with_context(|| format!("could not remove {}", unpacked.display()))?;
    fs::rename(&partial, &directory)
        .with_context(|| format!("could not create {}", directory.display()))?;
    read(&directory).with_context(|| format!("{} lacks a file", directory.display()))
}

/// What [`take`] has left in the directory.
fn read(directory: &Path) -> Option<Image> {
    let order = fs::read_to_string(directory.join("order")).ok()?;
    let vmlinuz = directory.join("vmlinuz");
    Some(Image {
        release: fs::read_to_string(directory.join("release")).ok()?,
        vmlinuz: vmlinuz.exists().then_some(vmlinuz)?,
        modules: order.lines().map(|name| directory.join(name)).collect(),
    })
}

/// The packages that the suite's present kernel is in.
fn packages(catalog: &Catalog) -> Result<Vec<String>> {
    let mut found = vec![META_PACKAGE.to_owned()];
    let mut next = 0;
    while let Some(package) = found.get(next).cloned() {
        next += 1;
        for dependency in catalog.dependencies(&package)? {
            if PARTS.iter().any(|part| dependency.starts_with(part)) && !found.contains(&dependency)
            {
                found.push(dependency);
            }
        }
    }
    found.remove(0);
    Ok(found)
}

/// Where packages put modules: the older ones before all of it moved under /usr.
const MODULE_ROOTS: [&str; 2] = ["lib/modules", "usr/lib/modules"];

fn release(unpacked: &Path) -> Result<String> {
    MODULE_ROOTS
        .iter()
        .filter_map(|root| fs::read_dir(unpacked.join(root)).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .next()
        .context("the packages hold no modules")
}

/// Whether a release such as `6.1.0-50-cloud-amd64` belongs to a version such as `6.1` or `6`.
fn is_of_version(release: &str, version: &str) -> bool {
    release
        .strip_prefix(version)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Copies the kernel and the modules that are wanted, each after those that it needs.
fn take(unpacked: &Path, release: &str, into: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    let mut built_in = String::new();
    let mut vmlinuz = unpacked.join("boot").join(format!("vmlinuz-{release}"));
    for root in MODULE_ROOTS {
        let root = unpacked.join(root).join(release);
        find_modules(&root, &mut files);
        built_in += &fs::read_to_string(root.join("modules.builtin")).unwrap_or_default();
        if root.join("vmlinuz").exists() {
            vmlinuz = root.join("vmlinuz");
        }
    }
    let copied = into.join("vmlinuz");
    fs::copy(&vmlinuz, &copied)
        .with_context(|| format!("could not copy the kernel {}", vmlinuz.display()))?;
    let mut order = Vec::new();
    for (module, _) in MODULES {
        let is_built_in = built_in
            .lines()
            .any(|path| module_name(Path::new(path)).as_deref() == Some(module));
        if !is_built_in {
            take_module(module, &files, into, &mut order)?;
        }
    }
    for (name, content) in [("order", order.join("\n")), ("release", release.to_owned())] {
        fs::write(into.join(name), content).with_context(|| format!("could not write {name}"))?;
    }
    Ok(())
}

fn take_module(
    module: &str,
    files: &BTreeMap<String, PathBuf>,
    into: &Path,
    order: &mut Vec<String>,
) -> Result<()> {
    let name = format!("{module}.ko");
    if order.contains(&name) {
        return Ok(());
    }
    let file = files
        .get(module)
        .with_context(|| format!("this kernel has no module {module}"))?;
    let bytes = decompressed(file)?;
    for needed in needed_by(&bytes) {
        take_module(&needed, files, into, order)?;
    }
    fs::write(into.join(&name), bytes).with_context(|| format!("could not write {name}"))?;
    order.push(name);
    Ok(())
}

fn decompressed(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|extension| extension == "xz") {
        let mut xz = Command::new("xz");
        let output = xz
            .args(["--decompress", "--stdout"])
            .arg(file)
            .output()
            .context("could not run `xz`")?;
        if !output.status.success() {
            bail!("could not decompress {}", file.display());
        }
        return Ok(output.stdout);
    }
    fs::read(file).with_context(|| format!("could not read {}", file.display()))
}

/// The modules that a module needs, by the line `depends=` of its section `.modinfo`.
fn needed_by(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&rest[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn find_modules(directory: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        // The link `build` leads out of the tree.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_modules(&path, files);
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
}

/// The name of the module in a file such as `nf-tables.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let (stem, _) = name.split_once(".ko")?;
    Some(stem.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_belongs_to_its_version_only() {
        assert!(is_of_version("6.1.0-50-cloud-amd64", "6.1"));
        assert!(is_of_version("7.2.13+deb14-cloud-amd64", "7"));
        assert!(!is_of_version("6.12.117+deb13-cloud-amd64", "6.1"));
        assert!(!is_of_version("8.0-cloud-amd64", "7"));
    }

    #[test]
    fn modules_say_what_they_need() {
        let module = b"\x7fELF\0license=GPL\0depends=nf-tables,nf_nat\0name=nft_nat\0";
        assert_eq!(needed_by(module), ["nf_tables", "nf_nat"]);
        assert!(needed_by(b"\0depends=\0name=veth\0").is_empty());
    }

    #[test]
    fn modules_are_called_as_the_kernel_calls_them() {
        let name = |path: &str| module_name(Path::new(path));
        assert_eq!(name("kernel/net/sch_ingress.ko.xz").unwrap(), "sch_ingress");
        assert_eq!(name("kernel/crypto/sha1-ssse3.ko").unwrap(), "sha1_ssse3");
        assert_eq!(name("modules.builtin"), None);
    }
}
