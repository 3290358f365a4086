//! The demonstration of `compose/`, on an engine of a test's own: what its README has people type is
//! typed here, in the namespace of that engine.

use std::{
    fs, iter,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    backend::program,
    docker::Docker,
    namespace::{Entry, Namespace, run_tool},
    scratch::Scratch,
};

/// How long a command may take, in seconds.
const PATIENCE: &str = "240";

/// An engine, and a place to type commands at. Dropped from the top down: the engine needs its files
/// and its host to end well.
#[derive(Debug)]
pub struct Demonstration {
    docker: Docker,
    host: Namespace,
    scratch: Scratch,
}

impl Demonstration {
    /// Starts an engine without an image or container.
    pub fn new() -> Result<Self> {
        let (host, scratch) = (Namespace::new("compose")?, Scratch::new()?);
        let demonstration = Self {
            docker: Docker::without_images(&host, scratch.path())?,
            host,
            scratch,
        };
        demonstration.offer_compose()?;
        Ok(demonstration)
    }

    /// Types this into a shell in `compose/`, and returns what it printed; fails if the last command or
    /// one in a pipe does. Images are those of `compose.local.yml`.
    pub fn shell(&self, script: &str) -> Result<String> {
        run_tool(&mut self.command(script)?)
    }

    /// The same as a command, to be run beside others.
    pub fn command(&self, script: &str) -> Result<Command> {
        shell(
            &self.host.entry(),
            self.scratch.path(),
            &self.docker.socket(),
            script,
        )
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// The whole of `compose.yml` with every profile, as Compose understands it, and nothing over it.
    pub fn full(&self) -> Result<Value> {
        let told =
            self.shell("docker compose -f compose.yml --profile '*' config --format json")?;
        serde_json::from_str(&told).context("what Compose makes of compose.yml")
    }

    /// Shows Docker the Compose that `cargo xtask setup` has brought, if it had to.
    fn offer_compose(&self) -> Result<()> {
        let brought = directory().join("../target/tools/bin/docker-compose");
        if brought.is_file() {
            let plugins = self.scratch.path().join("client/cli-plugins");
            fs::create_dir_all(&plugins)?;
            symlink(brought.canonicalize()?, plugins.join("docker-compose"))?;
        }
        if self.shell("docker compose version").is_err() {
            bail!("Docker has no Compose; `cargo xtask setup` installs it");
        }
        Ok(())
    }
}

impl Drop for Demonstration {
    fn drop(&mut self) {
        // Names and volumes of containers that are left. The engine's own end takes the rest along.
        let _ = self.shell("docker compose --profile '*' down --volumes --timeout 1");
    }
}

/// The directory of the compose files.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose")
}

fn shell(host: &Entry, scratch: &Path, socket: &Path, script: &str) -> Result<Command> {
    let mut command = host.command("timeout")?;
    command
        .args([PATIENCE, "bash", "-euo", "pipefail", "-c", script])
        .current_dir(directory())
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .env("DOCKER_CONFIG", scratch.join("client"))
        .env("COMPOSE_FILE", "compose.yml:compose.local.yml")
        .env("LB_DOCKER_SOCKET", socket)
        .env("LB_PROFILE", profile()?);
    Ok(command)
}

/// The directory below `target` that the programs of this build are in.
fn profile() -> Result<String> {
    let echo = program("echo")?;
    let directory = echo.parent().and_then(Path::file_name);
    let name = directory.and_then(|name| name.to_str());
    Ok(name.context("the directory of the programs")?.to_owned())
}

/// Commands of `compose/README.md`, block by block.
#[derive(Debug)]
pub struct Steps(std::vec::IntoIter<String>);

impl Steps {
    /// Reads them.
    pub fn read() -> Result<Self> {
        let path = directory().join("README.md");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let blocks = text.split("```sh\n").skip(1);
        let blocks = blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned());
        Ok(Self(blocks.collect::<Vec<_>>().into_iter()))
    }

    /// The next block, in which these words have to be: what a test is about to look at.
    pub fn next(&mut self, words: &str) -> Result<String> {
        let block = self.0.next().context("the README has no more commands")?;
        if !block.contains(words) {
            bail!("the README's next commands are not about `{words}` but these:\n{block}");
        }
        Ok(block)
    }

    /// Those that nobody has asked for.
    pub fn left(mut self) -> Vec<String> {
        iter::from_fn(|| self.0.next()).collect()
    }
}
