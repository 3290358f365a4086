//! A real Consul server, alone, in a namespace.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    client::{Client, Response},
    namespace::{Entry, Namespace},
    process::{Process, Signal, installed, wait_for},
};

/// Where its HTTP API listens, inside the namespace.
pub const ADDRESS: &str = "127.0.0.1:8500";

/// How long the election, or the way of a change into the catalog, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Consul server. Dropping it ends it.
#[derive(Debug)]
pub struct Consul {
    process: Process,
    namespace: Entry,
    directory: PathBuf,
}

/// A service instance to register.
#[derive(Clone, Copy, Debug)]
pub struct Registration<'a> {
    /// Name of the service.
    pub service: &'a str,
    /// Unique id of the instance.
    pub id: &'a str,
    /// Address that the instance listens on.
    pub address: SocketAddr,
    /// Tags.
    pub tags: &'a [&'a str],
    /// Meta entries.
    pub meta: &'a [(&'a str, &'a str)],
    /// Weights while passing and while in warning; Consul's defaults are 1 and 1.
    pub weights: (u16, u16),
}

impl Consul {
    /// Starts a server with an empty catalog on `127.0.0.1:8500` of the namespace and waits
    /// until it leads. Data, configuration and log lie in `directory`.
    pub fn start(namespace: &Namespace, directory: &Path) -> Result<Self> {
        let directory = directory.join("consul");
        let namespace = namespace.entry();
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let consul = Self {
            process: launch(&namespace, &directory)?,
            namespace,
            directory,
        };
        consul.wait_until_ready()?;
        Ok(consul)
    }

    /// Registers an instance and waits until the catalog shows it.
    pub fn register(&self, instance: Registration<'_>) -> Result<()> {
        let meta: serde_json::Map<String, Value> = instance
            .meta
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        let body = json!({
            "Name": instance.service,
            "ID": instance.id,
            "Address": instance.address.ip(),
            "Port": instance.address.port(),
            "Tags": instance.tags,
            "Meta": meta,
            "Weights": {"Passing": instance.weights.0, "Warning": instance.weights.1},
        });
        self.put("/v1/agent/service/register", body.to_string())?;
        self.wait_for_instance(instance.id, true)
    }

    /// Removes an instance and waits until the catalog no longer shows it.
    pub fn deregister(&self, id: &str) -> Result<()> {
        self.put(&format!("/v1/agent/service/deregister/{id}"), "")?;
        self.wait_for_instance(id, false)
    }

    /// Puts an instance into maintenance, or takes it out.
    pub fn set_maintenance(&self, id: &str, enable: bool) -> Result<()> {
        let path = format!("/v1/agent/service/maintenance/{id}?enable={enable}");
        self.put(&path, "").map(drop)
    }

    /// Gives an instance a check of this status (`passing`, `warning` or `critical`), or changes
    /// the one given before.
    pub fn set_check(&self, id: &str, status: &str) -> Result<()> {
        let check = format!("test:{id}");
        let body = json!({"ID": check, "Name": "test", "ServiceID": id, "TTL": "10m"});
        self.put("/v1/agent/check/register", body.to_string())?;
        // A check that is registered anew keeps the status it had.
        let body = json!({"Status": status});
        let path = format!("/v1/agent/check/update/{check}");
        self.put(&path, body.to_string()).map(drop)
    }

    /// Writes a key.
    pub fn put_kv(&self, key: &str, value: &str) -> Result<()> {
        self.put(&format!("/v1/kv/{key}"), value.to_owned())
            .map(drop)
    }

    /// Deletes a key.
    pub fn delete_kv(&self, key: &str) -> Result<()> {
        self.delete(&format!("/v1/kv/{key}"))
    }

    /// Writes a configuration entry (with `Kind` and `Name`).
    pub fn put_entry(&self, entry: &Value) -> Result<()> {
        self.put("/v1/config", entry.to_string()).map(drop)
    }

    /// Deletes a configuration entry.
    pub fn delete_entry(&self, kind: &str, name: &str) -> Result<()> {
        self.delete(&format!("/v1/config/{kind}/{name}"))
    }

    /// `GET path`, decoded.
    pub fn get(&self, path: &str) -> Result<Value> {
        let body = self.get_bytes(path)?;
        serde_json::from_slice(&body)
            .with_context(|| format!("Consul's answer to GET {path} is not JSON"))
    }

    /// The whole state, for [`Consul::restore`].
    pub fn snapshot(&self) -> Result<Bytes> {
        self.get_bytes("/v1/snapshot")
    }

    /// Replaces the whole state by a snapshot. Instances that the server's own agent has
    /// registered come back by themselves when it next compares notes with the catalog.
    pub fn restore(&self, snapshot: Bytes) -> Result<()> {
        self.put("/v1/snapshot", snapshot).map(drop)
    }

    /// Ends the server; its data stay.
    pub fn stop(&self) -> Result<()> {
        self.process.stop().map(drop)
    }

    /// Starts it again with its data, after [`Consul::stop`].
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop()?;
        self.process = launch(&self.namespace, &self.directory)?;
        self.wait_until_ready()
    }

    /// Starts it again without its data: a server restored to nothing, which answers every
    /// question with an empty list.
    pub fn restart_empty(&mut self) -> Result<()> {
        self.process.stop()?;
        let data = self.directory.join("data");
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
        self.restart()
    }

    /// Freezes it: connections stay open, nothing is answered.
    pub fn pause(&self) -> Result<()> {
        self.process.freeze()
    }

    /// Ends the freeze.
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::Continue)
    }

    fn wait_until_ready(&self) -> Result<()> {
        wait_for("Consul to elect its leader", PATIENCE, || {
            self.process.ensure_running()?;
            let leads = self
                .get("/v1/status/leader")
                .is_ok_and(|leader| leader.as_str().is_some_and(|leader| !leader.is_empty()));
            // The server's own agent must be in the catalog before it takes services.
            let known = leads
                && self
                    .get("/v1/catalog/nodes")
                    .is_ok_and(|nodes| nodes.as_array().is_some_and(|nodes| !nodes.is_empty()));
            Ok(known.then_some(()))
        })
        .with_context(|| self.process.tail())
    }

    fn wait_for_instance(&self, id: &str, there: bool) -> Result<()> {
        let what = format!(
            "{id} to be {} Consul's catalog",
            if there { "in" } else { "out of" }
        );
        wait_for(&what, PATIENCE, || {
            let node = self.get(&format!("/v1/catalog/node/{NODE}"))?;
            let listed = node["Services"].get(id).is_some();
            Ok((listed == there).then_some(()))
        })
    }

    fn client(&self) -> Client {
        Client::at(self.namespace.clone())
    }

    fn get_bytes(&self, path: &str) -> Result<Bytes> {
        let response = self
            .client()
            .get(address(), path)
            .with_context(|| format!("Consul did not answer GET {path}"))?;
        accepted(response, path)
    }

    fn delete(&self, path: &str) -> Result<()> {
        let response = self
            .client()
            .delete(address(), path)
            .with_context(|| format!("Consul did not answer DELETE {path}"))?;
        accepted(response, path).map(drop)
    }

    fn put(&self, path: &str, body: impl Into<Bytes>) -> Result<Bytes> {
        let response = self
            .client()
            .put(address(), path, body)
            .with_context(|| format!("Consul did not answer PUT {path}"))?;
        accepted(response, path)
    }
}

/// Name of the server's own node.
const NODE: &str = "lb-node";

fn address() -> SocketAddr {
    ADDRESS.parse().expect("a valid address")
}

fn accepted(response: Response, path: &str) -> Result<Bytes> {
    ensure!(
        response.status == 200,
        "Consul answered {path} with status {}: {}",
        response.status,
        response.text().trim()
    );
    Ok(response.body)
}

fn launch(namespace: &Entry, directory: &Path) -> Result<Process> {
    if !installed("consul") {
        bail!("consul is not installed; `cargo xtask setup` installs it");
    }
    let address = address();
    // Heartbeats as quick as Consul knows, no word to the outside, loopback only.
    let config = json!({
        "server": true,
        "bootstrap_expect": 1,
        "node_name": NODE,
        "bind_addr": "127.0.0.1",
        "client_addr": address.ip(),
        "data_dir": directory.join("data"),
        "ports": {"http": address.port(), "dns": -1, "grpc": -1, "serf_wan": -1},
        "disable_update_check": true,
        "disable_keyring_file": true,
        "performance": {"raft_multiplier": 1},
        "log_level": "info",
    });
    let file = directory.join("consul.json");
    fs::write(&file, config.to_string())
        .with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = namespace.command("consul")?;
    command.arg("agent").arg("-config-file").arg(&file);
    Process::start("consul", command, &directory.join("consul.log"))
}

/// The installed Consul's version, as it tells it: "Consul v1.8.7".
pub fn version() -> Result<String> {
    let output = crate::namespace::run_tool(std::process::Command::new("consul").arg("version"))?;
    let line = output.lines().next();
    line.map(str::to_owned)
        .ok_or_else(|| anyhow!("`consul version` printed nothing"))
}
