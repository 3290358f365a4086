//! A backend: the echo service of [`crate::echo`] as a process in a namespace.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};

use crate::{
    authority::CERTIFICATE,
    client::Client,
    namespace::{Entry, Namespace},
    process::{Process, wait_for},
};

/// Port of the plain TCP echo.
pub const TCP_ECHO_PORT: u16 = 8081;
/// Port of HTTPS, where an authority was founded in the run's directory before the start.
pub const HTTPS_PORT: u16 = 8443;
/// Port of gRPC health.
pub const GRPC_PORT: u16 = 8082;

/// A running (or killed) echo service.
#[derive(Debug)]
pub struct Backend {
    name: String,
    addresses: Vec<SocketAddr>,
    namespace: Entry,
    log: PathBuf,
    process: Process,
}

impl Backend {
    /// Starts the service in `namespace` and waits until it answers on every address. Its output
    /// goes into `directory`.
    pub fn start(
        namespace: &Namespace,
        name: &str,
        addresses: &[SocketAddr],
        directory: &Path,
    ) -> Result<Self> {
        let log = directory.join(format!("echo-{name}.log"));
        let process = launch(&namespace.entry(), name, addresses, &log)?;
        let backend = Self {
            name: name.to_owned(),
            addresses: addresses.to_vec(),
            namespace: namespace.entry(),
            log,
            process,
        };
        backend.wait_until_ready()?;
        Ok(backend)
    }

    /// The name in its answers.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The process, for signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Starts it anew, whether it runs or has been killed, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop()?;
        self.process = launch(&self.namespace, &self.name, &self.addresses, &self.log)?;
        self.wait_until_ready()
    }

    /// Makes `GET /health` answer 503, or 200 again; everything else goes on as before.
    pub fn set_failing(&self, failing: bool) -> Result<()> {
        let path = if failing { "/fail" } else { "/heal" };
        let response = Client::at(self.namespace.clone()).post(self.address(), path)?;
        ensure!(
            response.status == 200,
            "{} answered POST {path} with status {}",
            self.name,
            response.status
        );
        Ok(())
    }

    fn wait_until_ready(&self) -> Result<()> {
        let client = Client::at(self.namespace.clone());
        for address in &self.addresses {
            let what = format!("{} to answer on {address}", self.name);
            wait_for(&what, Duration::from_secs(10), || {
                self.process.ensure_running()?;
                Ok(client.get(*address, "/").ok())
            })?;
        }
        Ok(())
    }
}

fn launch(namespace: &Entry, name: &str, addresses: &[SocketAddr], log: &Path) -> Result<Process> {
    let mut command = namespace.command(program("echo")?)?;
    command.args(["--name", name, "--tcp-echo", &TCP_ECHO_PORT.to_string()]);
    command.args(["--grpc", &GRPC_PORT.to_string()]);
    if let Some(directory) = log.parent().filter(|path| path.join(CERTIFICATE).exists()) {
        command.args(["--https", &HTTPS_PORT.to_string(), "--authority"]);
        command.arg(directory);
    }
    for address in addresses {
        command.args(["--listen", &address.to_string()]);
    }
    Process::start(&format!("the echo service {name}"), command, log)
}

/// A program built along with the running one: tests lie in `deps` below it.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            anyhow!(
                "the program `{name}` is not beside {}; `cargo xtask build` builds it",
                own.display()
            )
        })
}
