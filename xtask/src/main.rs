//! Build tool: everything a person or the CI types, as `cargo xtask …`. One file a subcommand.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod apt;
mod audit;
mod bench;
mod build_agent;
mod build_ebpf;
mod bullseye;
mod catalog;
mod compose;
mod dashboards;
mod demo;
mod fuzz;
mod guest;
mod kernels;
mod linker;
mod lint;
mod package;
mod programs;
mod qemu;
mod reference;
mod run;
mod sbom;
mod setup;
mod suite;
mod test;
mod tidy;
mod tool;
mod toolchain;
mod train;
mod transcript;
mod workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, build, demo and tests of lb-agent"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, the demo and the tests need (Debian and its kin, as root)
    Setup,
    /// Build the programs for the kernel: target/ebpf/lb-ebpf.o
    BuildEbpf,
    /// Build the programs for the kernel and the agent: target/release/lb-agent
    Build,
    /// Write the profile that release builds are laid out by: lb-agent/default.profdata (as root; its
    /// loads take the place of figures in target/bench)
    Train,
    /// Make a package for Debian and its kin: target/debian/lb-agent_VERSION_ARCH.deb
    Package(package::Args),
    /// Show the agent at work in network namespaces of its own (as root)
    Demo(demo::Args),
    /// Run the tests: all of them, or one kind
    Test(test::Args),
    /// Write Grafana's dashboards anew from compose/grafana/source
    Dashboards,
    /// Run a benchmark (as root)
    Bench(bench::Args),
    /// Check formatting and clippy, both halves, warnings denied
    Lint,
    /// Check the layout rules of the source tree
    Tidy,
    /// Write docs/reference from the code
    Reference,
    /// Check licences, sources, duplicates and known vulnerabilities of all crates (cargo-deny)
    Audit(audit::Args),
    /// Write the bill of materials of agent and programs: target/sbom (CycloneDX)
    Sbom,
    /// Run the tests that make their input by chance with other seeds
    Fuzz(fuzz::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup => setup::run(),
        Task::BuildEbpf => build_ebpf::run(),
        Task::Build => build_agent::run(),
        Task::Train => train::run(),
        Task::Package(args) => package::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Dashboards => dashboards::run(),
        Task::Bench(args) => bench::run(&args),
        Task::Lint => lint::run(),
        Task::Tidy => tidy::run(),
        Task::Reference => reference::run(),
        Task::Audit(args) => audit::run(&args),
        Task::Sbom => sbom::run(),
        Task::Fuzz(args) => fuzz::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
