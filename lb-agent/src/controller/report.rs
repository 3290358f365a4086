//! What the agent says about itself.

use std::time::{Duration, SystemTime};

use lb_common::verdict::Verdict;

use super::{Controller, FlowTableUse, LocalClientsStatus, OperatorError, Status};
use crate::domain::{
    kernel::Kernel, registration::RegistrarStatus, service::Forwarding, snapshot::ServiceState,
    sync::WatchStatus,
};

/// A watch whose last trusted answer is older than this is a problem even without an error: the
/// source should have answered a blocking query by now.
const STALE: Duration = Duration::from_secs(90);

impl<K: Kernel> Controller<K> {
    /// The agent at this moment.
    pub(super) fn status(&self) -> Result<Status, OperatorError> {
        let failed = |error| OperatorError::Failed(format!("{error}"));
        let verdicts = self.kernel.kernel.verdicts().map_err(failed)?;
        let census = self.kernel.census();
        let stats = self.kernel.kernel.local_stats().map_err(failed)?;
        let local_clients = self.setup.local_clients.clone();
        Ok(Status {
            version: self.desired.snapshot().version,
            started: self.started,
            interfaces: self.setup.interfaces.clone(),
            local_clients: local_clients.map(|local| LocalClientsStatus { stats, ..local }),
            consul: self
                .setup
                .config
                .consul
                .as_ref()
                .map(|consul| consul.address.clone()),
            docker: self.registrar(),
            watches: self.desired.catalog().watches.clone(),
            flows4: FlowTableUse {
                slots: census.slots,
                used: census.used4,
            },
            flows6: FlowTableUse {
                slots: census.slots,
                used: census.used6,
            },
            evictions: self.kernel.kernel.evictions().map_err(failed)?,
            verdicts: Verdict::ALL.iter().copied().zip(verdicts).collect(),
            blocks: self.blocks.len(),
            node_drain: self.desired.node_drain.clone(),
            drains: self.drain_views().map_err(failed)?,
            problems: self.problems(SystemTime::now()),
            drift: self.comparison.record.clone(),
            maglev_rebuilds: self.kernel.rebuilds,
            last_apply: self.kernel.last_apply,
        })
    }

    /// `None`: no container is to be registered.
    fn registrar(&self) -> Option<RegistrarStatus> {
        let configured = self.setup.config.docker.is_some();
        configured.then(|| self.channels.registrar.borrow().clone())
    }

    fn problems(&self, now: SystemTime) -> Vec<String> {
        let mut problems = self.setup.problems.clone();
        problems.extend(self.reload_problem.clone());
        problems.extend(self.channels.save_problem.borrow().clone());
        problems.extend(self.channels.proxy.borrow().problems.iter().cloned());
        problems.extend(self.registrar().iter().flat_map(RegistrarStatus::problems));
        if let Some(error) = self.kernel.last_error() {
            problems.push(format!("the kernel does not follow: {error}"));
        }
        problems.extend(self.comparison.record.problems.iter().cloned());
        for name in self.kernel.kernel.lost_interfaces() {
            problems.push(format!(
                "interface {name} is gone, so nothing arrives there; restart the agent once it is back, or take it out of `interfaces`"
            ));
        }
        for (name, watch) in &self.desired.catalog().watches {
            problems.extend(watch_problem(name, watch, now));
        }
        problems.extend(self.desired.returned());
        problems.extend(self.desired.idle_splits());
        problems.extend(self.desired.consul_problems());
        problems.extend(self.blocks.fleet_problems().iter().cloned());
        for (name, service) in &self.desired.snapshot().services {
            let held = service
                .backends
                .iter()
                .filter(|backend| backend.held.is_some())
                .count();
            if service.pending {
                problems.push(format!("service {name}: its backends are not known yet; what the kernel holds of it stays in use"));
            } else if service.panic {
                problems.push(format!(
                    "service {name}: too few backends are healthy, so all are used"
                ));
            } else if !service.spec.vips.is_empty()
                && service.backends.iter().all(|backend| backend.weight == 0)
            {
                problems.push(format!("service {name}: no backend takes new connections"));
            }
            problems.extend(self.out_of_reach(name, service));
            if held > 0 {
                problems.push(format!(
                    "service {name}: {held} backends vanished from Consul at once and are kept until their probes fail or the hold ends"
                ));
            }
        }
        problems
    }
}

impl<K: Kernel> Controller<K> {
    /// A backend that its link address alone does not lead to, if the service needs that.
    fn out_of_reach(&self, name: &str, service: &ServiceState) -> Option<String> {
        if service.spec.forwarding != Forwarding::DsrL2 {
            return None;
        }
        let mut backends = service.backends.iter();
        backends.find_map(|backend| {
            let address = backend.address();
            let router = self.kernel.kernel.router_towards(address.ip())?;
            Some(format!(
                "service {name}: backend {address} is behind the router {router}, which dsr-l2 cannot pass; use dsr-ipip, or a backend on a link of the node's"
            ))
        })
    }
}

fn watch_problem(name: &str, watch: &WatchStatus, now: SystemTime) -> Option<String> {
    let age = watch
        .last_success
        .map(|at| now.duration_since(at).unwrap_or_default());
    let answered = match age {
        Some(age) => format!(
            "last answer {} s ago, the last good backends are used",
            age.as_secs()
        ),
        None => "no answer since the agent started".to_owned(),
    };
    match (&watch.error, age) {
        (Some(error), _) => Some(format!("Consul watch {name}: {error} ({answered})")),
        (None, Some(age)) if age > STALE => {
            Some(format!("Consul watch {name}: silent ({answered})"))
        }
        _ => None,
    }
}
