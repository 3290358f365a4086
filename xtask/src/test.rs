//! `cargo xtask test`: everything, or one kind. Ends with the test runner's own summary, and with what
//! each test that failed gave as the cause.

use std::io::{IsTerminal as _, Write as _, stdout};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;

use crate::{build_ebpf, guest, kernels, run, setup, test::failures::Failures};

mod failures;

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One kind of tests; without it, all
    kind: Option<Kind>,
    /// Of `kernels`: which of them, such as 6.1; without it, all. Of `guest`: Debian's release, such as
    /// trixie; without it, bookworm
    versions: Vec<String>,
    /// Passed on to the test runner: a part of a test's name, `--nocapture`, …
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// What needs neither root nor the network
    Unit,
    /// The programs, in the kernel (as root)
    Datapath,
    /// The agent among namespaces and real peers (as root)
    E2e,
    /// Both on other kernels, in emulated machines (as root); takes minutes, so only when asked
    Kernels,
    /// The provisioning of `vagrant/` and the service under systemd, in an emulated machine (as root);
    /// takes minutes, so only when asked
    Guest,
}

impl Kind {
    fn selection(kind: Option<Self>) -> &'static [&'static str] {
        match kind {
            // Without the examples in the documentation, of which there are none: their runner
            // would come last and sum up nothing.
            None => &["--workspace", "--lib", "--bins", "--tests"],
            Some(Self::Unit) => &[
                "--workspace",
                "--exclude",
                "lb-tests",
                "--lib",
                "--bins",
                "--tests",
            ],
            Some(Self::Datapath) => &["--package", "lb-tests", "--test", "datapath"],
            Some(Self::E2e) => &["--package", "lb-tests", "--test", "e2e"],
            // Guests run these, not cargo.
            Some(Self::Kernels | Self::Guest) => &[],
        }
    }
}

/// Sets up, builds and runs the tests.
///
/// # Errors
/// Not root where it is needed, a prerequisite cannot be installed, a build or a test fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(kind @ (Kind::Kernels | Kind::Guest)) = args.kind {
        ensure!(
            args.rest.is_empty(),
            "`cargo xtask test kernels` and `guest` pass nothing on"
        );
        return match kind {
            Kind::Guest => guest::run(&args.versions),
            _ => kernels::run(&args.versions),
        };
    }
    if let Some(version) = args.versions.first() {
        bail!(
            "`{version}`: only `cargo xtask test kernels` and `guest` take versions; filters follow `--`"
        );
    }
    let purpose = if args.kind == Some(Kind::Unit) {
        setup::Purpose::Build
    } else {
        run::require_root("this kind of test (all but `cargo xtask test unit`)")?;
        setup::Purpose::Test
    };
    setup::ensure(purpose)?;
    build_ebpf::build()?;
    if args.kind != Some(Kind::Unit) {
        // The tests start the agent's binary, which `cargo test` of another package would not
        // build.
        run::run(
            "build the workspace",
            run::cargo().args(["build", "--workspace"]),
        )?;
    }
    let mut command = run::cargo();
    command.args(arguments(args));
    if stdout().is_terminal() {
        // The runner sees a pipe, and would take it for a file.
        command.arg("--color=always");
    }
    let mut failures = Failures::default();
    let result = run::for_each_line("pass the tests", &mut command, |line| {
        failures.line(String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']));
        stdout().write_all(line)
    });
    eprint!("{}", failures.summary());
    result
}

fn arguments(args: &Args) -> Vec<&str> {
    let mut arguments = vec!["test"];
    arguments.extend(Kind::selection(args.kind));
    // One failure must not hide the others.
    arguments.push("--no-fail-fast");
    arguments.push("--");
    if args.kind != Some(Kind::Unit) {
        // Those that run real peers are after processor time, and many at once would time out.
        arguments.extend(["--test-threads", "2"]);
    }
    arguments.extend(args.rest.iter().map(String::as_str));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_selects_its_tests() {
        for (kind, expected) in [
            (
                None,
                "test --workspace --lib --bins --tests --no-fail-fast -- --test-threads 2 x",
            ),
            (
                Some(Kind::Unit),
                "test --workspace --exclude lb-tests --lib --bins --tests --no-fail-fast -- x",
            ),
            (
                Some(Kind::Datapath),
                "test --package lb-tests --test datapath --no-fail-fast -- --test-threads 2 x",
            ),
            (
                Some(Kind::E2e),
                "test --package lb-tests --test e2e --no-fail-fast -- --test-threads 2 x",
            ),
        ] {
            let args = Args {
                kind,
                versions: Vec::new(),
                rest: vec!["x".into()],
            };
            assert_eq!(arguments(&args).join(" "), expected);
        }
    }
}
