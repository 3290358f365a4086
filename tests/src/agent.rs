//! The agent under test, as a process on the node, with everything it keeps in places of its own.

mod pins;

use std::{
    fmt::Write,
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_agent::proxy::front::holder::ARGUMENT;

use self::pins::Pins;
pub use self::pins::mount_bpffs;
pub(crate) use self::pins::sweep_pins;
use crate::{
    backend::program,
    client::Client,
    namespace::{Entry, Namespace},
    process::{Process, wait_for},
    topology::Topology,
};

/// Variable that names another `lb-agent` than the one built along with the running program.
pub const BINARY_VARIABLE: &str = "LB_AGENT_BIN";

/// Variable that names a user whom every agent is to become: all stories must come out the same.
/// Without it they stay root.
pub const USER_VARIABLE: &str = "LB_AGENT_USER";

/// How long the agent may take until it answers.
const READY: Duration = Duration::from_secs(20);

/// What to start: the topology's node, plus configuration.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    host: &'a Namespace,
    directory: PathBuf,
    binary: Option<PathBuf>,
    interfaces: Vec<String>,
    node: String,
    config: String,
    environment: Vec<(String, String)>,
    user: String,
}

impl<'a> Setup<'a> {
    /// An agent for the topology's node, on all of its interfaces.
    pub fn new(topology: &'a Topology) -> Self {
        Self {
            host: topology.node(),
            directory: topology.directory().to_owned(),
            binary: None,
            interfaces: topology.node_interfaces(),
            node: String::new(),
            config: String::new(),
            environment: Vec::new(),
            user: std::env::var(USER_VARIABLE).unwrap_or_else(|_| "root".to_owned()),
        }
    }

    /// Has the agent become this user.
    pub fn user(mut self, name: &str) -> Self {
        name.clone_into(&mut self.user);
        self
    }

    /// Puts the agent on another host of the topology, with files of its own under this name.
    pub fn host(mut self, host: &'a Namespace, name: &str) -> Self {
        self.host = host;
        self.directory.push(name);
        self
    }

    /// Uses this program instead of the one of [`BINARY_VARIABLE`] or the one beside the test.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Configures these interfaces instead.
    pub fn interfaces(mut self, names: &[&str]) -> Self {
        self.interfaces = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Adds lines to the table `[node]`, besides the interfaces and directories given there. Without
    /// `xdp_mode` among them it is `native`: the hosts' cables stand in for network cards.
    pub fn node(mut self, lines: &str) -> Self {
        self.node.push_str(lines);
        self.node.push('\n');
        self
    }

    /// Adds tables: services, `[consul]`, `[metrics]`.
    pub fn config(mut self, tables: &str) -> Self {
        self.config.push_str(tables);
        self.config.push('\n');
        self
    }

    /// Gives the agent, not its commands, a variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes the configuration, starts the agent and waits until it answers.
    pub fn start(self) -> Result<Agent> {
        let binary = match self
            .binary
            .or_else(|| std::env::var_os(BINARY_VARIABLE).map(PathBuf::from))
        {
            Some(path) => path,
            None => program("lb-agent")?,
        };
        let namespace = self.host.entry();
        let directory = self.directory.as_path();
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let files = Files {
            config: directory.join("lb-agent.toml"),
            socket: directory.join("run/agent.sock"),
            log: directory.join("lb-agent.log"),
            environment: self.environment,
        };
        let pins = Pins::new(&binary, &namespace, &files.socket)?;
        if self.user != "root" {
            let_pass(directory)?;
        }
        let mut text = format!("[node]\nuser = {:?}\n", self.user);
        let path = |path: &Path| format!("{:?}", path.display().to_string());
        writeln!(text, "interfaces = {:?}", self.interfaces)?;
        writeln!(text, "state_dir = {}", path(&directory.join("state")))?;
        writeln!(text, "runtime_dir = {}", path(&directory.join("run")))?;
        writeln!(text, "bpf_dir = {}", path(&pins.directory))?;
        if !self.node.contains("xdp_mode") {
            writeln!(text, "xdp_mode = \"native\"")?;
        }
        writeln!(text, "{}\n{}", self.node, self.config)?;
        write_config(&files.config, &text)?;
        let agent = Agent {
            process: launch(&binary, &namespace, &files, &[])?,
            binary,
            namespace,
            files,
            pins,
        };
        agent.wait_until_ready()?;
        Ok(agent)
    }
}

/// A running (or killed) agent. Dropping it ends it and takes its programs and maps off the node.
#[derive(Debug)]
pub struct Agent {
    // Ends before the pins go.
    process: Process,
    binary: PathBuf,
    namespace: Entry,
    files: Files,
    pins: Pins,
}

#[derive(Debug)]
struct Files {
    config: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
}

/// What a command of the agent's printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Agent {
    /// Runs `lb-agent ARGS` against this agent. That the command fails is no error here.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        let output = self
            .prepare(args)?
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The same command, not started yet.
    pub fn prepare(&self, args: &[&str]) -> Result<Command> {
        let mut command = command(&self.namespace, &self.binary)?;
        command.arg("--socket").arg(&self.files.socket).args(args);
        Ok(command)
    }

    /// As [`Agent::cli`], and an error unless it ends with exit code 0. Returns standard output.
    pub fn command(&self, args: &[&str]) -> Result<String> {
        let output = self.cli(args)?;
        ensure!(
            output.code == 0,
            "`lb-agent {}` ended with exit code {}: {}",
            args.join(" "),
            output.code,
            output.stderr.trim()
        );
        Ok(output.stdout)
    }

    /// Kills it without a warning; programs and maps stay in the kernel.
    pub fn kill9(&self) -> Result<()> {
        self.process.kill()
    }

    /// Asks it to end; programs and maps stay in the kernel.
    pub fn stop(&self) -> Result<()> {
        let status = self.process.stop()?;
        ensure!(
            status.success(),
            "the agent did not end well ({status}); {}",
            self.process.tail()
        );
        Ok(())
    }

    /// Starts it again after [`Agent::kill9`] or [`Agent::stop`], and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.restart_with(&[])
    }

    /// The same with further arguments for `lb-agent run`.
    pub fn restart_with(&mut self, args: &[&str]) -> Result<()> {
        self.process.stop()?;
        self.process = launch(&self.binary, &self.namespace, &self.files, args)?;
        self.wait_until_ready()
    }

    /// What `GET /metrics` answers on `address` inside the node.
    pub fn metrics(&self, address: SocketAddr) -> Result<String> {
        let response = Client::at(self.namespace.clone()).get(address, "/metrics")?;
        ensure!(
            response.status == 200,
            "GET /metrics answered with status {}",
            response.status
        );
        Ok(response.text())
    }

    /// The process, for signals and its output.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its configuration file.
    pub fn config_file(&self) -> &Path {
        &self.files.config
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.files.socket
    }

    /// Where it pins programs and maps.
    pub fn pins(&self) -> &Path {
        &self.pins.directory
    }

    /// Processes that hold its listening sockets: at most one.
    pub fn holders(&self) -> Result<Vec<u32>> {
        let ours = self.namespace.id()?;
        let mut holders = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let pid = entry.file_name().to_string_lossy().parse::<u32>();
            // It may end while it is looked at.
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_holder = line.split(|byte| *byte == 0).nth(1) == Some(ARGUMENT.as_bytes());
            let namespace = fs::metadata(entry.path().join("ns/net"));
            if let (Ok(pid), Ok(namespace), true) = (pid, namespace, is_holder)
                && namespace.ino() == ours
            {
                holders.push(pid);
            }
        }
        Ok(holders)
    }

    /// It is ready as soon as it answers, whether it likes what it has to say (0) or not (3).
    fn wait_until_ready(&self) -> Result<()> {
        wait_for("the agent to answer `status`", READY, || {
            self.process.ensure_running()?;
            Ok(matches!(self.cli(&["status"])?.code, 0 | 3).then_some(()))
        })
        .with_context(|| self.process.tail())
    }
}

fn launch(binary: &Path, namespace: &Entry, files: &Files, args: &[&str]) -> Result<Process> {
    let mut command = command(namespace, binary)?;
    command.arg("run").arg("--config").arg(&files.config);
    command.args(args);
    let environment = files.environment.iter();
    command.envs(environment.map(|(name, value)| (name, value)));
    Process::start("lb-agent", command, &files.log)
}

/// The agent's program, inside the node, without settings that the caller's shell may hold for
/// another agent or for another Consul.
fn command(namespace: &Entry, binary: &Path) -> Result<Command> {
    let mut command = namespace.command(binary)?;
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CONSUL_") || text.starts_with("LB_AGENT_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Lets anybody pass through the directory of the run, to what is theirs in it.
fn let_pass(directory: &Path) -> Result<()> {
    for each in directory.ancestors() {
        let mode = fs::metadata(each)?.permissions().mode();
        if mode & 0o001 != 0 {
            break;
        }
        fs::set_permissions(each, fs::Permissions::from_mode(mode | 0o011))
            .with_context(|| format!("cannot let others pass through {}", each.display()))?;
    }
    Ok(())
}

fn write_config(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
