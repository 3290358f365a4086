//! A real Consul server in a namespace, alone or with two others.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
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

mod acl;
mod catalog;
mod shared;

/// Where its HTTP API listens, inside the namespace.
pub const ADDRESS: &str = "127.0.0.1:8500";

/// How long the election, or the way of a change into the catalog, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Consul server. Dropping it ends it.
#[derive(Debug)]
pub struct Consul {
    process: Process,
    /// The other servers of its cluster.
    others: Vec<Process>,
    namespace: Entry,
    directory: PathBuf,
    shape: Shape,
}

/// What kind of servers there are.
#[derive(Clone, Debug)]
struct Shape {
    servers: u8,
    /// Without it nobody may do anything.
    token: Option<String>,
    /// Where the first is asked as well, besides on loopback.
    also: Option<IpAddr>,
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
        let shape = Shape {
            servers: 1,
            token: None,
            also: None,
        };
        Self::shaped(namespace, directory, shape)
    }

    /// The same, where nobody may do anything without this token (a UUID).
    pub fn with_acl(namespace: &Namespace, directory: &Path, token: &str) -> Result<Self> {
        let shape = Shape {
            servers: 1,
            token: Some(token.to_owned()),
            also: None,
        };
        Self::shaped(namespace, directory, shape)
    }

    /// Three servers, of which the first is asked.
    pub fn cluster(namespace: &Namespace, directory: &Path) -> Result<Self> {
        let shape = Shape {
            servers: 3,
            token: None,
            also: None,
        };
        Self::shaped(namespace, directory, shape)
    }

    fn shaped(namespace: &Namespace, directory: &Path, shape: Shape) -> Result<Self> {
        let directory = directory.join("consul");
        let namespace = namespace.entry();
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let others = (2..=shape.servers)
            .map(|number| launch(&namespace, &directory, number, &shape))
            .collect::<Result<_>>()?;
        let consul = Self {
            process: launch(&namespace, &directory, 1, &shape)?,
            others,
            namespace,
            directory,
            shape,
        };
        consul.wait_until_ready()?;
        Ok(consul)
    }

    /// Kills the other servers of the cluster, and waits until the one that is asked has no leader.
    pub fn lose_leader(&self) -> Result<()> {
        for other in &self.others {
            other.kill()?;
        }
        wait_for("Consul to lose its leader", PATIENCE, || {
            Ok(self.get("/v1/catalog/nodes").is_err().then_some(()))
        })
    }

    /// Starts the other servers again, and waits until there is a leader.
    pub fn regain_leader(&mut self) -> Result<()> {
        self.others = (2..=self.shape.servers)
            .map(|number| launch(&self.namespace, &self.directory, number, &self.shape))
            .collect::<Result<_>>()?;
        self.wait_until_ready()
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

    /// `PUT path` without a body.
    pub fn order(&self, path: &str) -> Result<()> {
        self.put(path, "").map(drop)
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
        self.process = launch(&self.namespace, &self.directory, 1, &self.shape)?;
        self.wait_until_ready()
    }

    /// Starts it again without its data: a server restored to nothing, which answers every
    /// question with an empty list.
    pub fn restart_empty(&mut self) -> Result<()> {
        self.process.stop()?;
        let data = self.directory.join("data-1");
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

    /// The path with the token, if there is one.
    fn signed(&self, path: &str) -> String {
        let separator = if path.contains('?') { '&' } else { '?' };
        match &self.shape.token {
            Some(token) => format!("{path}{separator}token={token}"),
            None => path.to_owned(),
        }
    }

    fn get_bytes(&self, path: &str) -> Result<Bytes> {
        let response = self
            .client()
            .get(address(), &self.signed(path))
            .with_context(|| format!("Consul did not answer GET {path}"))?;
        accepted(response, path)
    }

    fn delete(&self, path: &str) -> Result<()> {
        let response = self
            .client()
            .delete(address(), &self.signed(path))
            .with_context(|| format!("Consul did not answer DELETE {path}"))?;
        accepted(response, path).map(drop)
    }

    fn put(&self, path: &str, body: impl Into<Bytes>) -> Result<Bytes> {
        let response = self
            .client()
            .put(address(), &self.signed(path), body)
            .with_context(|| format!("Consul did not answer PUT {path}"))?;
        accepted(response, path)
    }
}

/// Name of the server's own node.
const NODE: &str = "lb-node";

/// The name of a server's node.
fn node(number: u8) -> String {
    match number {
        1 => NODE.to_owned(),
        _ => format!("{NODE}-{number}"),
    }
}

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

/// Starts a server by its number: each on an address of its own.
fn launch(namespace: &Entry, directory: &Path, number: u8, shape: &Shape) -> Result<Process> {
    if !installed("consul") {
        bail!("consul is not installed; `cargo xtask setup` installs it");
    }
    let address = address();
    // Heartbeats as quick as Consul knows, no word to the outside, loopback only.
    let mut config = json!({
        "server": true,
        "bootstrap_expect": shape.servers,
        "node_name": node(number),
        "bind_addr": format!("127.0.0.{number}"),
        "client_addr": format!("127.0.0.{number}"),
        "retry_join": ["127.0.0.1"],
        "retry_interval": "1s",
        "data_dir": directory.join(format!("data-{number}")),
        "ports": {"http": address.port(), "dns": -1, "grpc": -1, "serf_wan": -1},
        "disable_update_check": true,
        "disable_keyring_file": true,
        "performance": {"raft_multiplier": 1},
        "log_level": "info",
    });
    if let Some(also) = &shape.also {
        config["client_addr"] = json!(format!("127.0.0.{number} {also}"));
    }
    if let Some(token) = &shape.token {
        let tokens = json!({"master": token, "agent": token});
        config["acl"] = json!({
            "enabled": true, "default_policy": "deny", "tokens": tokens,
            // What is revoked counts at once.
            "token_ttl": "0s", "policy_ttl": "0s",
        });
    }
    let file = directory.join(format!("consul-{number}.json"));
    fs::write(&file, config.to_string())
        .with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = namespace.command("consul")?;
    command.arg("agent").arg("-config-file").arg(&file);
    let log = directory.join(format!("consul-{number}.log"));
    Process::start("consul", command, &log)
}

/// The installed Consul's version, as it tells it: "Consul v1.8.7".
pub fn version() -> Result<String> {
    let output = crate::namespace::run_tool(std::process::Command::new("consul").arg("version"))?;
    let line = output.lines().next();
    line.map(str::to_owned)
        .ok_or_else(|| anyhow!("`consul version` printed nothing"))
}
