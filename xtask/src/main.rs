//! Build tool: everything a person or the CI types, as `cargo xtask …`. One file a subcommand.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod apt;
mod bench;
mod build_agent;
mod build_ebpf;
mod bullseye;
mod catalog;
mod compose;
mod demo;
mod kernels;
mod linker;
mod lint;
mod programs;
mod run;
mod setup;
mod suite;
mod test;
mod tidy;
mod toolchain;
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
    /// Show the agent at work in network namespaces of its own (as root)
    Demo(demo::Args),
    /// Run the tests: all of them, or one kind
    Test(test::Args),
    /// Run a benchmark (as root)
    Bench(bench::Args),
    /// Check formatting and clippy, both halves, warnings denied
    Lint,
    /// Check the layout rules of the source tree
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup => setup::run(),
        Task::BuildEbpf => build_ebpf::run(),
        Task::Build => build_agent::run(),
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Lint => lint::run(),
        Task::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
