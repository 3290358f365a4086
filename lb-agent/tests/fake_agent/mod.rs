//! An agent without kernel: the real API on a real socket, before a controller that keeps its
//! state in memory.

mod drains;
mod picture;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use self::{
    drains::Drained,
    picture::{counters, snapshot, status},
};
use ipnet::IpNet;
use lb_agent::{
    api,
    controller::{
        BackendCounters, BlockEntry, BlockOrder, Blocked, Command, FlowTableUse, Handle,
        InterfaceStatus, OperatorError, Status, handle::Counters,
    },
    domain::{
        backend::{CatalogHealth, Instance, InstanceId},
        block::{self, BlockRule, Exception},
        explain::{Explained, Subject},
        health::Observed,
        history::{Change, Source},
        service::{Catalog, Forwarding, Origin, Protocol, ServiceSpec, SubsetRule},
        snapshot::{BackendState, Drain, ServiceState, Snapshot},
        split::{ActiveSplit, Shares, SplitSource},
    },
};
use lb_common::{entry::Counter, verdict::Verdict};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

pub(crate) mod packets;

/// The program under test.
pub(crate) fn program() -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_lb-agent"));
    command
        .env_remove("LB_AGENT_SOCKET")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it exits by itself"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// What the controller does besides keeping state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mood {
    /// `status` lists a problem.
    pub(crate) troubled: bool,
    /// It has stopped answering, as on shutdown.
    pub(crate) leaving: bool,
}

/// A running agent; dropped, it is gone.
pub(crate) struct FakeAgent {
    pub(crate) dir: tempfile::TempDir,
    socket: PathBuf,
    shutdown: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), api::ServeError>>,
    controller: JoinHandle<()>,
    guard: api::socket::SocketGuard,
}

impl FakeAgent {
    pub(crate) fn start(mood: Mood) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/agent.sock");
        let (listener, guard) = api::socket::bind(&socket).unwrap();
        let (commands, inbox) = mpsc::channel(8);
        let (snapshots, latest) = watch::channel(Arc::new(snapshot(&BTreeMap::new(), None)));
        let handle = Handle::new(commands, latest);
        let controller = tokio::spawn(control(inbox, snapshots, mood));
        let (shutdown, stop) = oneshot::channel::<()>();
        let sources = packets::sources(handle);
        let server = tokio::spawn(api::serve(listener, sources, async {
            let _ = stop.await;
        }));
        Self {
            dir,
            socket,
            shutdown: Some(shutdown),
            server,
            controller,
            guard,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs the program against this agent, with `words` separated by blanks.
    pub(crate) async fn run(&self, words: &str) -> Ran {
        program()
            .arg("--socket")
            .arg(&self.socket)
            .args(words.split_whitespace())
            .output()
            .await
            .unwrap()
            .into()
    }

    /// Like [`Self::run`], for what must succeed; the reply as JSON.
    pub(crate) async fn json(&self, words: &str) -> serde_json::Value {
        let ran = self.run(&format!("-o json {words}")).await;
        assert_eq!(ran.code, 0, "{words}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// Shuts the server down and waits until it and the controller have ended.
    pub(crate) async fn stop(mut self) {
        drop(self.shutdown.take());
        self.server.await.unwrap().unwrap();
        self.controller.await.unwrap();
        drop(self.guard);
        assert!(!self.socket.exists());
    }
}

/// What the controller remembers.
#[derive(Default)]
struct Memory {
    split: Option<Shares>,
    drained: Drained,
    blocks: BTreeMap<IpNet, BlockRule>,
    allowed: BTreeMap<IpNet, SystemTime>,
}

impl Memory {
    fn known(service: &str) -> Result<(), OperatorError> {
        if service == "echo" || service == "dns" {
            return Ok(());
        }
        Err(OperatorError::UnknownService {
            name: service.into(),
            known: vec!["dns".into(), "echo".into()],
        })
    }

    fn add(
        &mut self,
        prefixes: Vec<IpNet>,
        order: &BlockOrder,
        origin: block::Origin,
    ) -> Result<Blocked, OperatorError> {
        if prefixes.iter().any(|prefix| prefix.prefix_len() == 0) && !order.force {
            return Err(OperatorError::Refused("0.0.0.0/0 is everybody".into()));
        }
        let added = SystemTime::now();
        let rules: Vec<BlockRule> = prefixes
            .into_iter()
            .map(|prefix| BlockRule {
                prefix,
                reason: order.reason.clone(),
                added,
                expires: order.ttl.map(|ttl| added + ttl),
                origin,
            })
            .collect();
        let entries = rules.iter().map(|rule| (rule.prefix, rule.clone()));
        self.blocks.extend(entries);
        Ok(Blocked {
            count: rules.len(),
            total: self.blocks.len(),
            notes: Vec::new(),
            rules,
        })
    }

    /// As many rules as are asked for, from behind a prefix on.
    fn list(&self, after: Option<IpNet>, most: usize) -> Vec<BlockEntry> {
        let behind = |prefix: &IpNet| after.is_none_or(|after| *prefix > after);
        let rules = self.blocks.iter().filter(|(prefix, _)| behind(prefix));
        let dropped = Counter {
            packets: 3,
            bytes: 180,
        };
        let entries = rules.map(|(_, rule)| BlockEntry {
            rule: rule.clone(),
            dropped,
        });
        entries.take(most).collect()
    }

    fn disallow(&mut self, prefixes: &[IpNet]) -> Result<usize, OperatorError> {
        let missing = |prefix: &&IpNet| !self.allowed.contains_key(prefix);
        if let Some(missing) = prefixes.iter().find(missing) {
            return Err(OperatorError::NotAllowed(*missing));
        }
        self.allowed.retain(|prefix, _| !prefixes.contains(prefix));
        Ok(prefixes.len())
    }

    fn delete(&mut self, prefixes: &[IpNet]) -> Result<usize, OperatorError> {
        let missing = |prefix: &&IpNet| !self.blocks.contains_key(prefix);
        if let Some(missing) = prefixes.iter().find(missing) {
            return Err(OperatorError::NotBlocked(*missing));
        }
        self.blocks.retain(|prefix, _| !prefixes.contains(prefix));
        Ok(prefixes.len())
    }
}

/// A service without anything to tell of.
fn explained(name: &str) -> Explained {
    Explained {
        service: name.into(),
        matched: "name",
        because: String::new(),
        layers: Vec::new(),
        backends: Vec::new(),
        ids: Vec::new(),
        held: Default::default(),
        considered: Vec::new(),
        treatment: Vec::new(),
    }
}

/// This agent has no traffic, and refuses to shift it.
fn nothing_shifted() -> OperatorError {
    OperatorError::Refused("not done: no traffic is being shifted".into())
}

async fn control(
    mut inbox: mpsc::Receiver<Command>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    mood: Mood,
) {
    if mood.leaving {
        return;
    }
    let mut memory = Memory::default();
    while let Some(command) = inbox.recv().await {
        // Who gives a command makes no difference to this agent.
        let command = match command {
            Command::By(_, command) => *command,
            command => command,
        };
        // Answers go out after the snapshot, as the agent's do.
        let answer: Box<dyn FnOnce() + Send> = match command {
            Command::SplitSet(service, shares, reply) => {
                let result = Memory::known(&service).map(|()| ActiveSplit {
                    shares: shares.clone(),
                    source: SplitSource::Cli,
                    origin: "split set".into(),
                    fallback: Vec::new(),
                });
                if result.is_ok() {
                    memory.split = Some(shares);
                }
                Box::new(move || drop(reply.send(result)))
            }
            Command::SplitReset(service, reply) => {
                let result = Memory::known(&service).map(|()| None);
                if result.is_ok() {
                    memory.split = None;
                }
                Box::new(move || drop(reply.send(result)))
            }
            Command::Drain(..)
            | Command::Undrain(..)
            | Command::DrainNode(..)
            | Command::UndrainNode(_)
            | Command::DrainView(..)
            | Command::NodeDrain(_) => memory.drained.carry_out(command),
            Command::By(..) => unreachable!("nobody gives a command by two persons"),
            Command::Explain(subject, reply) => {
                let result = match subject {
                    Subject::Service(name) => Memory::known(&name).map(|()| vec![explained(&name)]),
                    other => Err(OperatorError::NothingThere(format!(
                        "nothing is known of {other:?}"
                    ))),
                };
                Box::new(move || drop(reply.send(result)))
            }
            Command::Shift(_, order, reply) => {
                let checked = order.check().map_err(OperatorError::from);
                Box::new(move || drop(reply.send(checked.and_then(|()| Err(nothing_shifted())))))
            }
            Command::Promote(_, reply) => {
                Box::new(move || drop(reply.send(Err(nothing_shifted()))))
            }
            Command::Rollback(_, reply) | Command::Acknowledge(_, reply) => {
                Box::new(move || drop(reply.send(Err(nothing_shifted()))))
            }
            Command::PutDtab(_, _, reply) => {
                Box::new(move || drop(reply.send(Err(nothing_shifted()))))
            }
            // It has no Consul, so nobody asks before a key is written.
            Command::Fleet(question) => Box::new(move || drop(question)),
            Command::BlockAdd(prefixes, order, reply) => {
                let result = memory.add(prefixes, &order, block::Origin::Operator);
                Box::new(move || drop(reply.send(result)))
            }
            Command::BlockImport(prefixes, order, replace, reply) => {
                if replace {
                    let stays = |rule: &BlockRule| rule.origin == block::Origin::Operator;
                    memory.blocks.retain(|_, rule| stays(rule));
                }
                let result = memory.add(prefixes, &order, block::Origin::Import);
                Box::new(move || drop(reply.send(result)))
            }
            Command::BlockDel(prefixes, reply) => {
                let result = memory.delete(&prefixes);
                Box::new(move || drop(reply.send(result)))
            }
            Command::BlockList(after, most, reply) => {
                let entries = memory.list(after, most);
                Box::new(move || drop(reply.send(Ok(entries))))
            }
            // All have dropped as much.
            Command::BlockLeaders(most, reply) => {
                let entries = memory.list(None, most);
                Box::new(move || drop(reply.send(Ok(entries))))
            }
            Command::BlockTop(most, reply) => {
                let entries = memory.list(None, most).into_iter();
                let top = entries.map(|entry| (entry.rule.prefix, entry.dropped));
                let top = top.collect();
                Box::new(move || drop(reply.send(Ok(top))))
            }
            Command::Allow(prefixes, reply) => {
                let now = SystemTime::now();
                let entries = prefixes.into_iter().map(|prefix| (prefix, now));
                memory.allowed.extend(entries);
                Box::new(move || drop(reply.send(Ok(Vec::new()))))
            }
            Command::Disallow(prefixes, reply) => {
                let result = memory.disallow(&prefixes);
                Box::new(move || drop(reply.send(result)))
            }
            Command::AllowList(reply) => {
                let exceptions = memory.allowed.iter().map(|(prefix, added)| Exception {
                    prefix: *prefix,
                    configured: false,
                    added: Some(*added),
                });
                let exceptions = exceptions.collect();
                Box::new(move || drop(reply.send(Ok(exceptions))))
            }
            Command::Status(reply) => {
                let status = status(mood, memory.blocks.len());
                Box::new(move || drop(reply.send(Ok(status))))
            }
            Command::Names(reply) => Box::new(move || drop(reply.send(Ok(packets::names())))),
            Command::Counters(reply) | Command::CountersOf(_, reply) => {
                Box::new(move || drop(reply.send(Ok(counters()))))
            }
            Command::Signals(_, reply) | Command::Alive(reply) => {
                Box::new(move || drop(reply.send(Ok(()))))
            }
            Command::History(of, reply) => {
                let known = of.is_none_or(|of| of == "echo");
                let result = match known {
                    true => Ok(picture::history()),
                    false => Err(OperatorError::UnknownSubject("nope".into())),
                };
                Box::new(move || drop(reply.send(result)))
            }
            Command::Reload(reply) => Box::new(move || {
                let refusal = "config.toml:3: unknown key `intefaces`";
                drop(reply.send(Err(OperatorError::Refused(refusal.into()))));
            }),
        };
        snapshots.send_replace(Arc::new(snapshot(
            &memory.drained.backends,
            memory.split.as_ref(),
        )));
        answer();
    }
}
