//! `cargo xtask package`: a package for Debian and its kin, target/debian/lb-agent_VERSION_ARCH.deb.
//!
//! Nothing is compiled twice for it: the program itself writes its manual pages and completions,
//! [`tree`] puts them with the files of `lb-agent/packaging` where they belong, and dpkg-deb packs that.

mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use self::tree::Tree;
use crate::{build_agent, programs, run, setup, workspace};

/// What `cargo xtask package` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Pack this program instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Directory for the package
    #[arg(long, value_name = "DIR", default_value = "target/debian")]
    out: PathBuf,
    /// What of the version is the package's own: a package of the same program made anew has a higher
    /// one
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    revision: u32,
    /// Compress in a hurry, for a package that is only tried
    #[arg(long)]
    fast: bool,
}

/// Makes the package and prints where it is.
///
/// # Errors
/// A program is missing and cannot be installed, or the build or one of the steps fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    make(args).map(drop)
}

/// Builds the program and packs it for a test; answers with the package.
///
/// # Errors
/// As for [`run`].
pub(crate) fn build() -> Result<PathBuf> {
    make(&Args {
        binary: None,
        out: "target/debian".into(),
        revision: 1,
        fast: true,
    })
}

fn make(args: &Args) -> Result<PathBuf> {
    setup::ensure(setup::Purpose::Package)?;
    let binary = match &args.binary {
        Some(binary) => fs::canonicalize(binary)
            .with_context(|| format!("could not find {}", binary.display()))?,
        None => {
            build_agent::run()?;
            programs::find("lb-agent")
        }
    };
    let out = workspace::root().join(&args.out);
    let tree = Tree::lay_out(&out.join("root"), &binary)?;
    let control = Control {
        version: format!("{}-{}", env!("CARGO_PKG_VERSION"), args.revision),
        architecture: answer(Command::new("dpkg").arg("--print-architecture"))?,
        size: tree.kibibytes()?.to_string(),
        libraries: libraries(&out, &tree.program())?,
    };
    tree.describe(&control)?;
    let package = out.join(control.file_name());
    let mut pack = Command::new("dpkg-deb");
    pack.args([
        "--root-owner-group",
        "-Zxz",
        if args.fast { "-z0" } else { "-z6" },
        "--build",
    ])
    .arg(tree.path())
    .arg(&package);
    run::run("pack the package", &mut pack)?;
    println!("package: {}", package.display());
    Ok(package)
}

/// What is written into the control file.
struct Control {
    version: String,
    architecture: String,
    /// Installed, in KiB.
    size: String,
    /// Packages with the shared libraries, as a control file has them.
    libraries: String,
}

impl Control {
    fn file_name(&self) -> String {
        format!("lb-agent_{}_{}.deb", self.version, self.architecture)
    }

    /// Fills in a template.
    fn fill(&self, template: &str) -> String {
        [
            ("@VERSION@", self.version.as_str()),
            ("@ARCHITECTURE@", &self.architecture),
            ("@SIZE@", &self.size),
            ("@LIBRARIES@", &self.libraries),
            ("@HOMEPAGE@", env!("CARGO_PKG_REPOSITORY")),
        ]
        .into_iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
    }
}

/// The packages that hold the libraries which `program` is linked with.
fn libraries(out: &Path, program: &Path) -> Result<String> {
    // The tool insists on a source package's directory around it.
    let source = out.join("shlibs");
    fs::create_dir_all(source.join("debian"))
        .with_context(|| format!("could not create {}", source.display()))?;
    fs::write(
        source.join("debian/control"),
        "Source: lb-agent\n\nPackage: lb-agent\nArchitecture: any\n",
    )
    .with_context(|| format!("could not write into {}", source.display()))?;
    let mut ask = Command::new("dpkg-shlibdeps");
    ask.current_dir(&source).arg("-O").arg(program);
    let said = answer(&mut ask)?;
    said.strip_prefix("shlibs:Depends=")
        .map(str::to_owned)
        .with_context(|| format!("dpkg-shlibdeps says {said:?}"))
}

fn answer(command: &mut Command) -> Result<String> {
    Ok(run::output("make the package", command)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_file_has_no_gaps() {
        let control = Control {
            version: "0.1.0-3".into(),
            architecture: "amd64".into(),
            size: "12345".into(),
            libraries: "libc6 (>= 2.36)".into(),
        };
        let template = workspace::root().join("lb-agent/packaging/debian/control");
        let text = control.fill(&fs::read_to_string(template).unwrap());
        assert!(
            !text.contains('@') || text.matches('@').count() == 1,
            "{text}"
        );
        for line in [
            "Version: 0.1.0-3",
            "Architecture: amd64",
            "Installed-Size: 12345",
        ] {
            assert!(text.lines().any(|each| each == line), "{line} in {text}");
        }
        assert!(text.contains("\nDepends: libc6 (>= 2.36), "), "{text}");
        assert_eq!(control.file_name(), "lb-agent_0.1.0-3_amd64.deb");
    }
}
