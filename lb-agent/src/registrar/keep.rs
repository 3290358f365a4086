//! Looks at the engine and at Consul, and brings the latter to what the former says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::Instant};
use tracing::{debug, info, warn};

use super::{
    container::{Container, Network},
    diff::{Present, Step, own_count, plan},
    engine::{Engine, EngineError},
    registration::Registration,
    signal,
    translate::{Rules, Warning, translate},
};
use crate::{
    domain::registration::RegistrarStatus,
    source::consul_agent::{AgentError, AgentRegistry},
};

/// Looks at Consul until nothing is left to do: one to do it, one to see what came of it, and one
/// for what only then could be done.
const ROUNDS: usize = 3;

/// Who was told to stop and still runs after this time has taken it for something else.
const STOPPING: Duration = Duration::from_secs(600);

/// What is known of both sides.
pub(super) struct Keeper {
    engine: Engine,
    registry: AgentRegistry,
    rules: Rules,
    status: watch::Sender<RegistrarStatus>,
    /// Running containers by id, as they were inspected last.
    containers: BTreeMap<String, Container>,
    /// Of those, which were told to stop: in which run (by its start), and when.
    stopping: BTreeMap<String, (String, Instant)>,
    /// By id of the registration; `None`: the engine has not been asked yet.
    wanted: Option<BTreeMap<String, Registration>>,
    warned: BTreeSet<Warning>,
    refused: BTreeSet<String>,
    /// Healths are to be told again.
    renew: bool,
}

impl Keeper {
    pub(super) fn new(
        engine: Engine,
        registry: AgentRegistry,
        rules: Rules,
        status: watch::Sender<RegistrarStatus>,
    ) -> Self {
        Self {
            engine,
            registry,
            rules,
            status,
            containers: BTreeMap::new(),
            stopping: BTreeMap::new(),
            wanted: None,
            warned: BTreeSet::new(),
            refused: BTreeSet::new(),
            renew: false,
        }
    }

    /// Asks the engine for the containers that run, and for these in detail; `None`: for all.
    /// What is wanted follows.
    pub(super) async fn look(
        &mut self,
        changed: Option<&BTreeSet<String>>,
    ) -> Result<(), EngineError> {
        let ids = self.engine.running().await?;
        let mut containers = BTreeMap::new();
        for id in ids {
            let known = self.containers.get(&id);
            let unchanged = changed.is_some_and(|changed| !changed.contains(&id));
            let container = match known {
                Some(container) if unchanged => Some(container.clone()),
                _ => self.engine.inspect(&id).await?,
            };
            containers.extend(container.map(|container| (id, container)));
        }
        self.containers = containers;
        self.mark_stopping();
        self.renew |= changed.is_none();
        self.translate();
        Ok(())
    }

    /// Notes that a container was sent a signal.
    pub(super) fn note_signal(&mut self, id: &str, signal: i32) {
        if let Some(container) = self.containers.get(id)
            && signal::ends(container.stop_signal.as_deref(), signal)
        {
            let run = (container.started.clone(), Instant::now());
            self.stopping.entry(id.to_owned()).or_insert(run);
        }
    }

    fn mark_stopping(&mut self) {
        self.stopping.retain(|id, (run, since)| {
            let container = self.containers.get(id);
            container.is_some_and(|container| container.started == *run)
                && since.elapsed() < STOPPING
        });
        for (id, container) in &mut self.containers {
            container.stopping = self.stopping.contains_key(id);
        }
    }

    pub(super) fn note_engine_error(&self, error: &EngineError) {
        self.status.send_modify(|status| {
            status.engine_error = Some(error.to_string());
            status.engine_errors += 1;
        });
    }

    fn translate(&mut self) {
        let mut wanted = BTreeMap::<String, Registration>::new();
        let mut warnings = BTreeSet::new();
        let mut containers: Vec<&Container> = self.containers.values().collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        for container in containers {
            let host = match &container.network {
                Network::Of(id) => self.containers.get(id).unwrap_or(container),
                _ => container,
            };
            let (registrations, said) = translate(container, host, &self.rules);
            warnings.extend(said);
            for registration in registrations {
                let id = registration.id.clone();
                if let Some(other) = wanted.get(&id) {
                    warnings.insert(Warning {
                        container: container.name.clone(),
                        text: format!(
                            "SERVICE_ID: container {} has the id {id} already, so this one is not registered",
                            other.container
                        ),
                    });
                    continue;
                }
                wanted.insert(id, registration);
            }
        }
        for warning in warnings.difference(&self.warned) {
            warn!("{warning}");
        }
        self.status.send_modify(|status| {
            status.engine_error = None;
            status.containers = self.containers.len();
            status.wanted = Some(wanted.len());
            status.warnings = warnings.iter().map(ToString::to_string).collect();
        });
        self.wanted = Some(wanted);
        self.warned = warnings;
    }

    /// Compares Consul with what is wanted, and mends it. Whether both agree now.
    pub(super) async fn repair(&mut self) -> bool {
        let Some(wanted) = self.wanted.take() else {
            // Nothing is known, so nothing is wrong.
            return true;
        };
        let result = self.settle(&wanted).await;
        let known = self.status.borrow().engine_error.is_none();
        self.wanted = Some(wanted);
        match result {
            Ok(refusals) => {
                for refusal in refusals.difference(&self.refused) {
                    warn!("{refusal}");
                }
                self.refused = refusals.clone();
                let agreed = refusals.is_empty();
                self.status.send_modify(|status| {
                    if status.consul_error.take().is_some() {
                        info!("Consul takes registrations again");
                    }
                    status.refusals = refusals.into_iter().collect();
                    if agreed && known {
                        status.last_sync = Some(SystemTime::now());
                    }
                });
                agreed
            }
            Err(error) => {
                self.status.send_modify(|status| {
                    if status.consul_error.is_none() {
                        warn!("{error}");
                    }
                    status.consul_error = Some(error.to_string());
                    status.consul_errors += 1;
                });
                false
            }
        }
    }

    /// What stands in the way, once all that can be done is done.
    async fn settle(
        &mut self,
        wanted: &BTreeMap<String, Registration>,
    ) -> Result<BTreeSet<String>, AgentError> {
        let mut refusals = BTreeSet::new();
        for round in 1..=ROUNDS {
            let present = Present {
                services: self.registry.services().await?,
                checks: self.registry.checks().await?,
            };
            let renew = std::mem::take(&mut self.renew);
            let (steps, foreign) = plan(wanted, &present, &self.rules.prefix, renew);
            self.status.send_modify(|status| {
                status.registered = own_count(&present, &self.rules.prefix);
            });
            refusals.extend(foreign);
            if steps.is_empty() {
                break;
            }
            if round == ROUNDS {
                // Never twice in vain: what was done is not there, or not as it was done.
                let left = steps.first().map(Step::object).unwrap_or_default();
                refusals.insert(format!(
                    "Consul does not show {left} as it was registered; the token may lack service:read, or somebody else changes it"
                ));
                break;
            }
            let before = refusals.len();
            for step in &steps {
                match self.carry_out(step).await {
                    Ok(()) => {}
                    Err(error @ AgentError::Refused { .. }) => {
                        self.status.send_modify(|status| status.consul_errors += 1);
                        refusals.insert(format!("{}: {error}", step.object()));
                    }
                    Err(error) => return Err(error),
                }
            }
            if refusals.len() > before {
                break;
            }
        }
        Ok(refusals)
    }

    async fn carry_out(&self, step: &Step<'_>) -> Result<(), AgentError> {
        match step {
            Step::Register(registration) => {
                let body = registration.body(&self.rules.prefix);
                self.registry.register(&body).await?;
                info!(
                    container = registration.container,
                    service = registration.name,
                    id = registration.id,
                    address = %registration.address,
                    port = registration.port,
                    "registered in Consul"
                );
                self.status.send_modify(|status| status.registrations += 1);
            }
            Step::Deregister { id, name } => {
                self.registry.deregister(id).await?;
                info!(service = name, id, "deregistered from Consul");
                self.status
                    .send_modify(|status| status.deregistrations += 1);
            }
            Step::DropCheck { check } => self.registry.deregister_check(check).await?,
            Step::SetHealth {
                check,
                status,
                output,
            } => {
                self.registry.update_check(check, status, output).await?;
                debug!(check, status, "told Consul how a container is");
            }
            Step::SetMaintenance { id, reason } => {
                self.registry.set_maintenance(id, *reason).await?;
                info!(id, reason, "maintenance ordered, or ended");
            }
        }
        Ok(())
    }
}
