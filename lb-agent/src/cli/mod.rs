//! The command line: `run` is the agent itself, everything else asks or steers a running one.
//!
//! Each command group has a file of its own, which holds its arguments, the call it makes and the
//! table it prints. `output` knows how things are printed, `failure` what is said and which
//! exit code is returned when they cannot be.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use self::{
    client::Agent,
    failure::Failure,
    output::{Format, Printer},
};
use crate::{api::DEFAULT_SOCKET, proxy::front::holder};

mod allow;
mod backend;
mod block;
mod capture;
mod check;
mod client;
mod detach;
mod doctor;
mod drain;
mod drain_wait;
mod drained;
mod explain;
mod failure;
mod flow;
mod generate;
mod history;
mod import;
mod output;
mod packets;
mod privilege;
mod reload;
mod run;
mod service;
mod shift;
mod split;
mod status;
mod table;
mod top;
mod trace;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed at run time
  2  wrong usage, or an invalid configuration or argument
  3  unhealthy: `status` lists problems
  4  the agent cannot be reached
  5  connections are left, or had to be cut: `drain --wait`";

/// Balances TCP and UDP services and blocks addresses inside the kernel of this node.
#[derive(Debug, Parser)]
#[command(name = "lb-agent", version, after_help = EXIT_CODES)]
struct Cli {
    /// Socket of the running agent (`run` itself takes it from its configuration)
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "PATH",
        env = "LB_AGENT_SOCKET",
        default_value = DEFAULT_SOCKET
    )]
    socket: PathBuf,

    /// Print text for people, or the agent's reply as one JSON document
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Global options",
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    output: Format,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent
    Run(run::Args),
    /// Validate a configuration; tells every fault with its line
    Check(check::Args),
    /// Tell whether this node has what the agent needs, and how to mend what it lacks
    Doctor(doctor::Args),
    /// Take the programs and maps off the node: traffic to the VIPs ends
    Detach(detach::Args),
    /// Hold the listening sockets of the proxy while the agent restarts, which begins this by itself
    #[command(name = holder::ARGUMENT, hide = true)]
    HoldSockets,
    /// Hand over to the agent's user what only root can; for units
    #[command(hide = true)]
    Prepare(run::Prepare),
    /// Write manual pages or completions of shells into a directory
    #[command(subcommand, hide = true)]
    Generate(generate::Generated),
    /// Ask or steer the running agent
    #[command(flatten)]
    Remote(Remote),
}

/// What needs a running agent.
#[derive(Debug, Subcommand)]
enum Remote {
    /// Show what the agent is doing, and what is wrong (then the exit code is 3)
    Status,
    /// Show what the agent is doing as it happens: rates, backends, drops, blocks, events
    ///
    /// On a terminal until `q` is pressed (`?` tells of the other keys); otherwise one look is
    /// printed, which takes an interval, for rates need two.
    Top(top::Args),
    /// Show services
    #[command(subcommand)]
    Service(service::Command),
    /// Show backends
    #[command(subcommand)]
    Backend(backend::Command),
    /// Show or shift the shares of a service's subsets
    #[command(subcommand)]
    Split(split::Command),
    /// Take a backend out for new connections, or the node; the existing ones go on
    ///
    /// A drain outlives the agent, with its deadline. To drain again what is drained changes
    /// nothing, unless it gives another deadline, which counts from now.
    Drain(drain::Args),
    /// Put back what is drained
    Undrain(drain::Subject),
    /// Tell why backends have their weights: each factor, who says it, what the kernel holds
    ///
    /// Of a service, of whatever has an address, or of those that ask for requests (by tags of fabio
    /// and Traefik, or service-router entries in Consul).
    Explain(explain::Args),
    /// Block addresses in the kernel
    #[command(subcommand)]
    Block(block::Command),
    /// Show single packets as they come, and what becomes of each
    ///
    /// Addresses are those the packet came in with; behind `=>` stand those it was sent on with.
    /// Ends after 1000 packets or a minute, unless told otherwise, or with Ctrl-C.
    Trace(trace::Args),
    /// Write packets into a file that Wireshark and tcpdump read; by default the dropped ones
    ///
    /// Each packet is written as it came in, with its verdict as the packet's comment (pcapng).
    Capture(capture::Args),
    /// Show the flows there are
    #[command(subcommand)]
    Flow(flow::Command),
    /// Let the agent read its configuration again; an invalid one changes nothing
    Reload,
}

/// What the command line is, for what is made of it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The whole program: reads the arguments, does what they say, prints, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and go to stdout; a closed pipe is no matter.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match execute(cli, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to be told if stderr is closed.
            let _ = failure.report(&mut io::stderr().lock());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn execute(cli: Cli, stdout: &mut dyn Write) -> Result<(), Failure> {
    let mut printer = Printer::new(cli.output, stdout);
    match cli.command {
        Command::Run(args) => run::execute(&args),
        Command::Check(args) => check::execute(args, &mut printer),
        Command::Doctor(args) => {
            runtime(Builder::new_current_thread())?.block_on(doctor::execute(args, &mut printer))
        }
        Command::Detach(args) => runtime(Builder::new_current_thread())?.block_on(detach::execute(
            args,
            &cli.socket,
            &mut printer,
        )),
        Command::HoldSockets => holder::run().map_err(Failure::Run),
        Command::Prepare(args) => run::prepare(&args),
        Command::Generate(generated) => generated.execute(),
        Command::Remote(command) => {
            let agent = Agent::at(&cli.socket);
            runtime(Builder::new_current_thread())?.block_on(command.execute(agent, &mut printer))
        }
    }
}

impl Remote {
    async fn execute(self, agent: Agent<'_>, printer: &mut Printer<'_>) -> Result<(), Failure> {
        match self {
            Remote::Status => status::execute(agent, printer).await,
            Remote::Top(args) => top::execute(args, agent, printer).await,
            Remote::Service(command) => command.execute(agent, printer).await,
            Remote::Backend(command) => command.execute(agent, printer).await,
            Remote::Split(command) => command.execute(agent, printer).await,
            Remote::Drain(args) => drain::drain(args, agent, printer).await,
            Remote::Undrain(args) => drain::undrain(&args, agent, printer).await,
            Remote::Explain(args) => explain::execute(args, agent, printer).await,
            Remote::Block(command) => command.execute(agent, printer).await,
            Remote::Trace(args) => trace::execute(args, agent, printer).await,
            Remote::Capture(args) => capture::execute(args, agent, printer).await,
            Remote::Flow(command) => command.execute(agent, printer).await,
            Remote::Reload => reload::execute(agent, printer).await,
        }
    }
}

fn runtime(mut builder: Builder) -> Result<Runtime, Failure> {
    builder
        .enable_all()
        .build()
        .map_err(|error| Failure::Run(anyhow::Error::new(error).context("cannot start threads")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that clap can find wrong with the definition itself.
    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Rows of command lines that must parse, and of such that must not.
    #[test]
    fn command_lines_parse_or_are_refused() {
        let good = [
            "run",
            "run --config x.toml",
            "run --replace-schema",
            "status -o json",
            "--socket /x status",
            "status --socket /x",
            "top",
            "top echo --interval 500ms --sort new-flows --reverse",
            "top --once -o json",
            "top -n 3",
            "service list",
            "service show echo",
            "backend list",
            "backend list echo",
            "backend history",
            "backend history echo --limit 0",
            "backend history 10.1.0.2:8080",
            "split set echo v1=90 v2=10",
            "split show",
            "split show echo",
            "split reset echo",
            "split shift echo v2 --to 50 --step 10 --every 30s",
            "split shift echo v2",
            "split promote echo",
            "split rollback echo",
            "split ack echo",
            "drain echo 10.1.0.2:8080",
            "drain echo 10.1.0.2:8080 --deadline 60s --wait --timeout 2m --force",
            "drain --node",
            "drain --node --grace 0s --deadline 10m --wait",
            "undrain echo 10.1.0.2:8080",
            "undrain --node",
            "explain echo",
            "explain 198.51.100.10:80/udp -o json",
            "explain web.example /admin",
            "block add 192.0.2.7 2001:db8::/32 --ttl 15m --reason scan --force",
            "block del 192.0.2.7",
            "block list",
            "block import - --ttl 1h",
            "block import list.txt --replace --reason weekly",
            "block allow add 192.0.2.7 2001:db8::/32",
            "block allow del 192.0.2.7",
            "block allow list",
            "trace",
            "trace --src 192.0.2.0/24 --dst ::1 --verdict drop,request --proto icmp --port 80",
            "trace --count 0 --seconds 0 --rate 5 --verbose",
            "capture -w drops.pcapng",
            "capture -w x --verdict pass --count 5 --seconds 5 --snaplen 64",
            "flow list",
            "flow list --service echo --backend 10.1.0.2 --client ::/0 --state reset --proto udp",
            "flow list --limit 0",
            "flow list --sort idle --limit 5",
            "flow count --by backend,state",
            "reload",
            "check config.toml",
            "doctor",
            "doctor --config x.toml -o json",
            "generate man x",
            "prepare --config x.toml",
            "generate completions x",
            "detach",
            "detach --bpf-dir /sys/fs/bpf/x --force",
        ];
        for line in good {
            let words = std::iter::once("lb-agent").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        let bad = [
            "",
            "frobnicate",
            "status -o yaml",
            "top --interval 0s",
            "top --once -n 2",
            "top --sort colour",
            "service",
            "service show",
            "split set echo",
            "drain",
            "explain",
            "explain a /b c",
            "split shift echo",
            "split shift echo v2 --to 101",
            "split shift echo v2 --to 0",
            "split shift echo v2 --step ten",
            "split shift echo v2 --every soon",
            "split promote",
            "split ack",
            "drain echo",
            "backend history --limit -1",
            "drain echo 10.1.0.2:8080 --deadline soon",
            "drain echo 10.1.0.2:8080 --timeout 1m",
            "drain echo 10.1.0.2:8080 --grace 1s",
            "drain echo 10.1.0.2:8080 --node",
            "drain --node --force",
            "undrain",
            "undrain echo",
            "undrain --node --wait",
            "block add",
            "block add 192.0.2.7 --ttl soon",
            "block del",
            "block import",
            "block allow",
            "block allow add",
            "trace --port 0",
            "trace --port 70000",
            "trace --count -1",
            "trace --proto sctp",
            "trace --rate 0",
            "capture",
            "capture -w x --count 0",
            "capture -w x --seconds 0",
            "capture -w x --snaplen 13",
            "capture -w x --snaplen 257",
            "flow",
            "flow list --sort age",
            "flow list --state open",
            "flow list --proto icmp",
            "flow count --by colour",
        ];
        for line in bad {
            let words = std::iter::once("lb-agent").chain(line.split_whitespace());
            let error = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
