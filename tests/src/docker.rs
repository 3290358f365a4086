//! A real Docker engine of a test's own, in a namespace: it makes its bridge there, keeps its files in
//! the test's directory, and touches neither the machine's engine nor its filters.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    backend::program,
    cleanup::{self, Guard},
    namespace::{Entry, Namespace, run_tool},
    process::{Process, installed, wait_for},
};

/// The image that holds the echo service of [`crate::echo`] as its entry point.
pub const IMAGE: &str = "lb-echo:test";

/// How long the engine may take to start, or a container to come or go.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running (or killed) engine. Dropping it ends it with its containers.
#[derive(Debug)]
pub struct Docker {
    process: Process,
    namespace: Entry,
    directory: PathBuf,
    // After the process: it unmounts what the engine has left behind.
    _guard: Guard,
}

impl Docker {
    /// Starts an engine without containers in the namespace, and gives it the image [`IMAGE`].
    /// Its files lie in `directory`.
    pub fn start(namespace: &Namespace, directory: &Path) -> Result<Self> {
        let docker = Self::without_images(namespace, directory)?;
        docker.import()?;
        Ok(docker)
    }

    /// The same without an image.
    pub fn without_images(namespace: &Namespace, directory: &Path) -> Result<Self> {
        let directory = directory.join("docker");
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let guard = cleanup::on_exit({
            let directory = directory.clone();
            move || sweep(&directory)
        });
        let namespace = namespace.entry();
        let docker = Self {
            process: launch(&namespace, &directory)?,
            namespace,
            directory,
            _guard: guard,
        };
        docker.wait_until_ready()?;
        Ok(docker)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("docker.sock")
    }

    /// Creates and starts a container of [`IMAGE`] with what `options` add to the engine's own
    /// description of one, and returns its id. The service in it is named like the container.
    pub fn run(&self, name: &str, options: &Value) -> Result<String> {
        let mut body = json!({
            "Image": IMAGE,
            "Cmd": ["--name", name, "--listen", "0.0.0.0:8080"],
        });
        merge(&mut body, options);
        let created = self.post(&format!("/containers/create?name={name}"), Some(&body))?;
        let id = created["Id"].as_str().context("the id of a container")?;
        self.post(&format!("/containers/{id}/start"), None)?;
        Ok(id.to_owned())
    }

    /// Starts a container that was stopped.
    pub fn start_again(&self, name: &str) -> Result<()> {
        self.post(&format!("/containers/{name}/start"), None)
            .map(drop)
    }

    /// Stops a container; it stays known.
    pub fn stop(&self, name: &str) -> Result<()> {
        self.post(&format!("/containers/{name}/stop?t=1"), None)
            .map(drop)
    }

    /// The same, with so many seconds to end by itself before it is killed.
    pub fn stop_within(&self, name: &str, seconds: u32) -> Result<()> {
        self.post(&format!("/containers/{name}/stop?t={seconds}"), None)
            .map(drop)
    }

    /// Sends a signal, named without `SIG`, to a container.
    pub fn signal(&self, name: &str, signal: &str) -> Result<()> {
        self.post(&format!("/containers/{name}/kill?signal={signal}"), None)
            .map(drop)
    }

    /// Freezes a container.
    pub fn pause(&self, name: &str) -> Result<()> {
        self.post(&format!("/containers/{name}/pause"), None)
            .map(drop)
    }

    /// Ends the freeze.
    pub fn unpause(&self, name: &str) -> Result<()> {
        self.post(&format!("/containers/{name}/unpause"), None)
            .map(drop)
    }

    /// Gives a container another name.
    pub fn rename(&self, name: &str, new: &str) -> Result<()> {
        self.post(&format!("/containers/{name}/rename?name={new}"), None)
            .map(drop)
    }

    /// Kills and removes a container.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = format!("/containers/{name}?force=true");
        self.ask("DELETE", &path, None).map(drop)
    }

    /// What the engine says of a container.
    pub fn inspect(&self, name: &str) -> Result<Value> {
        self.ask("GET", &format!("/containers/{name}/json"), None)
    }

    /// Kills the engine without a warning; its containers go on.
    pub fn kill9(&self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again after [`Docker::kill9`], and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop()?;
        self.process = launch(&self.namespace, &self.directory)?;
        self.wait_until_ready()
    }

    /// The engine's process, for signals and its output.
    pub fn process(&self) -> &Process {
        &self.process
    }

    fn wait_until_ready(&self) -> Result<()> {
        wait_for("the Docker engine to answer", PATIENCE, || {
            self.process.ensure_running()?;
            Ok(self.ask("GET", "/info", None).ok().map(drop))
        })
        .with_context(|| self.process.tail())
    }

    fn post(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        self.ask("POST", path, body)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(method, path, "application/json", body.as_bytes())
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Value> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60"])
            .arg("--unix-socket")
            .arg(self.socket())
            .args(["--request", method, "--write-out", "\n%{http_code}"])
            .args(["--header", &format!("content-type: {kind}")])
            .args(["--data-binary", "@-"])
            .arg(format!("http://docker{path}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = curl.spawn().context("cannot run curl")?;
        let mut stdin = child.stdin.take().context("curl's input")?;
        // A refusal may come before all was read.
        let _ = stdin.write_all(body);
        drop(stdin);
        let output = child.wait_with_output().context("cannot wait for curl")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "the Docker engine did not answer {method} {path}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let (text, status) = text.rsplit_once('\n').unwrap_or(("", &text));
        if !status.starts_with('2') {
            bail!(
                "the Docker engine answered {method} {path} with {status}: {}",
                text.trim()
            );
        }
        Ok(serde_json::from_str(text).unwrap_or_default())
    }

    /// Makes the image of the echo service, `cat` for health checks, and the libraries of both: an
    /// image that no registry has, and that is as large as it must be.
    fn import(&self) -> Result<()> {
        let root = self.directory.join("image");
        fs::create_dir_all(&root)?;
        for (from, to) in [(program("echo")?, "echo"), ("/bin/cat".into(), "cat")] {
            copy(&from, &root.join(to))?;
            let listed = run_tool(Command::new("ldd").arg(&from))?;
            let libraries = listed
                .split_whitespace()
                .filter(|word| word.starts_with('/'));
            for library in libraries {
                let to = root.join(library.trim_start_matches('/'));
                fs::create_dir_all(to.parent().context("a directory")?)?;
                copy(Path::new(library), &to)?;
            }
        }
        let archive = self.directory.join("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("--create")
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(&root)
            .arg(".");
        run_tool(&mut tar)?;
        let (repo, tag) = IMAGE.split_once(':').context("a tag")?;
        let changes = "changes=ENTRYPOINT%20%5B%22%2Fecho%22%5D&changes=EXPOSE%208080%2Ftcp";
        let path = format!("/images/create?fromSrc=-&repo={repo}&tag={tag}&{changes}");
        self.send("POST", &path, "application/x-tar", &fs::read(&archive)?)?;
        fs::remove_dir_all(&root)?;
        fs::remove_file(&archive)?;
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let containers = self.ask("GET", "/containers/json?all=true", None);
        for container in containers.iter().flat_map(|list| list.as_array()).flatten() {
            if let Some(id) = container["Id"].as_str() {
                let _ = self.remove(id);
            }
        }
        let _ = self.process.stop();
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Adds fields to an object, those of objects in it as well.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn launch(namespace: &Entry, directory: &Path) -> Result<Process> {
    if !installed("dockerd") {
        bail!("the Docker engine is not installed; `cargo xtask setup` installs it");
    }
    // One that was killed leaves these behind, and the next waits for processes of these numbers,
    // which may be others' by now, or dead and not yet waited for.
    for file in ["docker.pid", "exec/containerd/containerd.pid"] {
        let _ = fs::remove_file(directory.join(file));
    }
    let mut command = namespace.command("dockerd")?;
    command
        .args([
            "--host",
            &format!("unix://{}", directory.join("docker.sock").display()),
        ])
        .arg("--data-root")
        .arg(directory.join("data"))
        .arg("--exec-root")
        .arg(directory.join("exec"))
        .arg("--pidfile")
        .arg(directory.join("docker.pid"))
        // The test's own, not the machine's.
        .arg("--config-file")
        .arg(directory.join("none.json"))
        // No filters, no masquerading: published ports are carried by the engine's proxy.
        .args([
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
        ])
        .args(["--bip", "172.31.251.1/24"])
        // Containers outlive an engine that is killed.
        .arg("--live-restore")
        .arg("--cgroup-parent")
        .arg(format!(
            "/{}",
            cgroup(directory).context("a directory of a run's")?
        ));
    fs::write(directory.join("none.json"), "{}")?;
    Process::start("dockerd", command, &directory.join("dockerd.log"))
}

/// Ends what is left of an engine that kept its files in `directory`, its containers included, and
/// takes its mounts away. Nobody else's processes name such a directory: it is unique.
pub(crate) fn sweep(directory: &Path) {
    let name = directory.display().to_string();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.path();
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if !line.contains(&name) || !line.contains("containerd") {
            continue;
        }
        let Some(pid) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let children = fs::read_to_string(process.join("task").join(&pid).join("children"));
        let children = children.unwrap_or_default();
        for pid in children.split_whitespace().chain([pid.as_str()]) {
            let _ = Command::new("kill").args(["-9", pid]).output();
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let inside = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for mount in inside.filter(|mount| Path::new(mount).starts_with(directory)) {
        let _ = Command::new("umount").args(["--lazy", mount]).output();
    }
    let Some(cgroup) = cgroup(directory) else {
        return;
    };
    let hierarchies = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
    let hierarchies = hierarchies.map(|entry| entry.path());
    for hierarchy in hierarchies.chain([CGROUPS.into()]) {
        remove_cgroup(&hierarchy.join(&cgroup));
    }
}

/// Removes a cgroup, should it be there, with those in it. What was killed takes a moment to leave.
fn remove_cgroup(path: &Path) {
    let inside = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in inside.filter(|entry| entry.path().is_dir()) {
        remove_cgroup(&entry.path());
    }
    for _ in 0..50 {
        if !path.exists() || fs::remove_dir(path).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Where hosts have their cgroups, of whichever version.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Name of the cgroup of an engine's containers: that of the run's own directory.
fn cgroup(directory: &Path) -> Option<String> {
    let run = directory.ancestors().find(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("lb-"))
    })?;
    Some(run.file_name()?.to_str()?.to_owned())
}
