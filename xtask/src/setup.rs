//! `cargo xtask setup`: finds out what is missing and installs that. Where nothing is missing it
//! asks apt nothing and is done at once.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{apt, bullseye, compose, linker, run, toolchain, toolchain::Toolchain};

/// What the machine is to be made ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building both halves.
    Build,
    /// Building, and clippy for the kernel half.
    Lint,
    /// Building, and the demo. Goes without Consul where it must.
    Demo,
    /// Building, and the benchmarks with the peers that they compare with.
    Bench,
    /// The package for Debian, of a program that is there or is yet to be built.
    Package,
    /// The same, and a machine to install it on.
    Guest,
    /// Building, and every test.
    Test,
    /// All of the above.
    Everything,
}

impl Purpose {
    /// Programs that must be there.
    fn programs(self) -> Vec<Program> {
        match self {
            Self::Build | Self::Lint => Vec::new(),
            Self::Demo => PROGRAMS.to_vec(),
            Self::Package => PACKAGE_PROGRAMS.to_vec(),
            Self::Guest => [&PACKAGE_PROGRAMS[..], &GUEST_PROGRAMS].concat(),
            // Among the tests is one of the package.
            Self::Test => [&PROGRAMS[..], &PACKAGE_PROGRAMS, &TEST_PROGRAMS].concat(),
            Self::Bench => [&PROGRAMS[..], &BENCH_PROGRAMS].concat(),
            Self::Everything => [
                &PROGRAMS[..],
                &PACKAGE_PROGRAMS,
                &GUEST_PROGRAMS,
                &TEST_PROGRAMS,
                &BENCH_PROGRAMS,
            ]
            .concat(),
        }
    }

    /// Whether something is built for BPF; who needs no more than a finished program asks for
    /// [`Self::Build`] where it has to be made.
    fn builds(self) -> bool {
        !matches!(self, Self::Package | Self::Guest)
    }

    fn runs_consul(self) -> bool {
        matches!(self, Self::Demo | Self::Test | Self::Everything)
    }

    fn runs_compose(self) -> bool {
        matches!(self, Self::Test | Self::Everything)
    }

    fn lints(self) -> bool {
        matches!(self, Self::Lint | Self::Everything)
    }
}

/// A package to install, and what for.
#[derive(Debug, PartialEq, Eq)]
struct Want {
    package: String,
    why: &'static str,
}

/// What is run: command, or path of a file that must be there; Debian package; what for.
type Program = (&'static str, &'static str, &'static str);

/// Programs that the tests, the demo and the benchmarks run.
const PROGRAMS: [Program; 12] = [
    ("ip", "iproute2", "lays out network namespaces"),
    ("ethtool", "ethtool", "sets offloads of test interfaces"),
    (
        "nft",
        "nftables",
        "filters in test namespaces, and translates what the programs are compared with",
    ),
    (
        "sysctl",
        "procps",
        "sets kernel parameters of test namespaces",
    ),
    ("curl", "curl", "is a client"),
    ("ping", "iputils-ping", "asks VIPs for an echo"),
    (
        "traceroute",
        "traceroute",
        "looks for the hops on the way to a VIP",
    ),
    ("tcpdump", "tcpdump", "records packets of failing tests"),
    ("tshark", "tshark", "reads the agent's captures"),
    ("prometheus", "prometheus", "scrapes the agent's counters"),
    ("wrk", "wrk", "makes load"),
    (
        "faketime",
        "faketime",
        "sets the clock of an agent under test",
    ),
];

/// What makes the package.
const PACKAGE_PROGRAMS: [Program; 4] = [
    ("dpkg-deb", "dpkg", "packs the package"),
    (
        "dpkg-shlibdeps",
        "dpkg-dev",
        "finds the libraries that the package needs",
    ),
    ("strip", "binutils", "makes the packed program small"),
    ("gzip", "gzip", "packs manual pages"),
];

/// What makes the machine that the provisioning is tested on.
const GUEST_PROGRAMS: [Program; 3] = [
    (
        "debootstrap",
        "debootstrap",
        "makes the root file system of a test's machine",
    ),
    (
        "dpkg-scanpackages",
        "dpkg-dev",
        "lists the packages of a test's machine",
    ),
    (
        "mkfs.ext4",
        "e2fsprogs",
        "makes the image of a test's machine",
    ),
];

/// What the tests run besides.
const TEST_PROGRAMS: [Program; 11] = [
    ("zsh", "zsh", "completes the agent's commands"),
    ("fish", "fish", "completes the agent's commands"),
    ("lintian", "lintian", "finds faults in the package"),
    ("systemd-analyze", "systemd", "judges the unit"),
    (
        "dockerd",
        "docker.io",
        "runs the containers that the agent registers, as an engine of the test's own",
    ),
    ("chromium", "chromium", "looks at the status page"),
    (
        "/etc/ssl/certs/ca-certificates.crt",
        "ca-certificates",
        "goes into the images of the demonstration",
    ),
    ("nghttp", "nghttp2-client", "is a client of HTTP/2"),
    ("haproxy", "haproxy", "stands before and behind the proxy"),
    ("nginx", "nginx", "is a server behind the proxy"),
    (
        "openssl",
        "openssl",
        "looks at the certificates of the proxy",
    ),
];

/// What the benchmarks run besides.
const BENCH_PROGRAMS: [Program; 4] = [
    ("h2load", "nghttp2-client", "makes load over HTTP/2"),
    ("haproxy", "haproxy", "is what lb-agent is compared with"),
    (
        "nginx",
        "nginx",
        "is what lb-agent is compared with, and the server behind",
    ),
    (
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "libnginx-mod-stream",
        "lets nginx proxy TCP",
    ),
];

/// What the distribution's way of building for BPF takes.
const TOOLCHAIN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Makes the machine ready for everything.
///
/// # Errors
/// Something is missing and cannot be installed; one sentence says what and what to do.
pub(crate) fn run() -> Result<()> {
    ensure(Purpose::Everything)?;
    if let Some(toolchain) = Toolchain::find() {
        println!(
            "setup: everything is here; BPF is built with {}",
            toolchain.describe()
        );
    }
    Ok(())
}

/// Makes the machine ready for `purpose`, silently where it already is.
///
/// # Errors
/// Something is missing and cannot be installed.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    let wants = missing(purpose);
    if !wants.is_empty() {
        install(&wants)?;
    }
    if purpose.builds() {
        let Some(toolchain) = Toolchain::find() else {
            bail!(no_toolchain(
                "its packages are installed, but hold no core for BPF"
            ));
        };
        if linker::find().is_none() {
            linker::install(toolchain)?;
        }
    }
    if purpose.runs_consul() && run::find_program("consul").is_none() {
        let got = install_consul();
        match (got, purpose) {
            (Err(error), Purpose::Demo) => {
                eprintln!("setup: {error:#}; the demo goes on with the file catalog alone");
            }
            (got, _) => got?,
        }
    }
    if purpose.runs_compose() {
        compose::ensure()?;
    }
    Ok(())
}

/// The packages to install for `purpose`, Consul aside.
fn missing(purpose: Purpose) -> Vec<Want> {
    let mut wants = Vec::new();
    let toolchain = Toolchain::find();
    if purpose.builds() && toolchain.is_none() {
        wants.extend(TOOLCHAIN_PACKAGES.map(|package| Want {
            package: package.into(),
            why: "builds for BPF (rustup has no nightly with rust-src here)",
        }));
    }
    // A toolchain that is yet to come is the distribution's; to nightly's, rustup itself says how
    // to add clippy.
    if purpose.lints()
        && toolchain != Some(Toolchain::Nightly)
        && !toolchain::distribution_has_clippy()
    {
        wants.push(Want {
            package: "rust-web-clippy".into(),
            why: "lints the programs for the kernel",
        });
    }
    // Without apt the names of packages mean nothing; bpf-linker's build says what it lacks.
    if purpose.builds() && linker::find().is_none() && apt::is_here() {
        let llvm = toolchain
            .and_then(|toolchain| toolchain.llvm_major().ok())
            .unwrap_or(toolchain::DISTRIBUTION_LLVM);
        let packages = apt::not_installed(linker::packages(llvm));
        wants.extend(packages.into_iter().map(|package| Want {
            package,
            why: "builds bpf-linker",
        }));
    }
    for (program, package, why) in purpose.programs() {
        let there = if program.starts_with('/') {
            Path::new(program).exists()
        } else {
            run::find_program(program).is_some()
        };
        // The tests and the benchmarks run some programs both.
        if !there && wants.iter().all(|want| want.package != package) {
            wants.push(Want {
                package: package.into(),
                why,
            });
        }
    }
    wants
}

fn install(wants: &[Want]) -> Result<()> {
    let packages: Vec<String> = wants.iter().map(|want| want.package.clone()).collect();
    let names_toolchain = |packages: &[String]| {
        packages
            .iter()
            .any(|p| TOOLCHAIN_PACKAGES.contains(&p.as_str()))
    };
    if !apt::is_here() {
        if names_toolchain(&packages) {
            bail!(no_toolchain("there is no apt here to install it with"));
        }
        bail!(
            "missing, and there is no apt here to install them with (names of Debian's packages): {}",
            packages.join(", ")
        );
    }
    if !run::is_root() {
        bail!(
            "{} missing and this is not root: run, as root, `{}`",
            packages.join(", "),
            apt::install_command(&packages)
        );
    }
    for want in wants {
        println!("setup: installing {}: {}", want.package, want.why);
    }
    apt::update(&[])?;
    let unavailable = apt::unavailable(&packages)?;
    if names_toolchain(&unavailable) {
        bail!(no_toolchain(&format!(
            "apt's sources have no {}",
            unavailable.join(", ")
        )));
    }
    if !unavailable.is_empty() {
        bail!(
            "apt's sources have no {}: add a source that has, or install by other means",
            unavailable.join(", ")
        );
    }
    apt::install(&packages)
}

fn install_consul() -> Result<()> {
    let consul = ["consul".to_string()];
    if !apt::is_here() || !run::is_root() {
        bail!(
            "Consul is missing: install it so that `consul` is in PATH, or run `cargo xtask setup` \
             as root on a Debian machine"
        );
    }
    println!("setup: installing consul: the tests and the demo run the real one");
    let from_bullseye = || {
        if apt::unavailable(&consul)?.is_empty() {
            return Ok(());
        }
        apt::update(&[])?;
        if apt::unavailable(&consul)?.is_empty() {
            return Ok(());
        }
        bullseye::add()?;
        if !apt::unavailable(&consul)?.is_empty() {
            bail!("Debian's bullseye suite has no package `consul` for this machine");
        }
        Ok(())
    };
    from_bullseye().and_then(|()| apt::install(&consul)).map_err(|error| {
        error.context("Consul is missing and could not be installed: install it so that `consul` is in PATH")
    })
}

fn no_toolchain(why_not_apt: &str) -> String {
    format!(
        "no Rust here can build for BPF: neither rustup (`rustup toolchain install nightly \
         --component rust-src`) nor the distribution ({}: {why_not_apt})",
        TOOLCHAIN_PACKAGES.join(", ")
    )
}
