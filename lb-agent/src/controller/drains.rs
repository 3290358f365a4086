//! Backends, and the node itself, that a person takes out: orders, deadlines, and how far it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use tracing::{error, info};

use super::{Controller, OperatorError};
use crate::domain::{
    backend::InstanceId,
    drain::{Drain, DrainOrder, NodeDrain},
    kernel::{Kernel, KernelBackend, KernelError},
};

/// What is drained, and what of it the kernel still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainView {
    /// The service.
    pub service: String,
    /// The backend.
    pub id: InstanceId,
    /// Where it listens; `None`: it has left its catalog and is not known.
    pub address: Option<SocketAddr>,
    /// How it is drained.
    pub drain: Drain,
    /// Its ids in the kernel, whose flows count.
    pub kernel_ids: BTreeSet<u32>,
    /// Connected sockets of local clients.
    pub local_sockets: u64,
    /// Flows that the last count of all found.
    pub flows: u64,
}

impl<K: Kernel> Controller<K> {
    /// Takes a backend out. Who drains it already may be given another deadline.
    pub(super) async fn drain(
        &mut self,
        service: &str,
        backend: &str,
        order: DrainOrder,
    ) -> Result<InstanceId, OperatorError> {
        let now = SystemTime::now();
        let desired = &mut self.desired;
        let (id, address) = desired.find_to_drain(service, backend, order.force, now)?;
        let drains = self.desired.drains.entry(service.to_owned()).or_default();
        let drain = drains.entry(id.clone()).or_insert_with(|| Drain {
            by: order.by.clone(),
            ..Drain::begun(now)
        });
        drain.address = Some(address);
        if let Some(deadline) = order.deadline {
            drain.set_deadline(now + deadline);
        }
        let by = order.by.as_deref().unwrap_or("somebody");
        info!(service, backend = %id, by, deadline = ?order.deadline, "drained on the command line");
        self.after_change(service, |_, _| ()).await?;
        Ok(id)
    }

    /// Puts a backend back.
    pub(super) async fn undrain(
        &mut self,
        service: &str,
        backend: &str,
    ) -> Result<InstanceId, OperatorError> {
        let id = self.desired.find_drained(service, backend)?;
        info!(service, backend = %id, "put back on the command line");
        if let Some(drains) = self.desired.drains.get_mut(service) {
            drains.remove(&id);
        }
        self.desired.drains.retain(|_, drains| !drains.is_empty());
        self.after_change(service, |_, _| ()).await?;
        Ok(id)
    }

    /// Takes the node out, or gives a drain that there is another deadline and grace.
    pub(super) fn drain_node(&mut self, order: DrainOrder, grace: Duration) -> NodeDrain {
        let now = SystemTime::now();
        let drain = self.desired.node_drain.get_or_insert(NodeDrain {
            since: now,
            grace,
            deadline: None,
            by: order.by,
        });
        drain.grace = grace;
        drain.deadline = order.deadline.map(|span| now + span).or(drain.deadline);
        let drain = drain.clone();
        info!(?drain, "the node is drained: /readyz fails from now on");
        self.save();
        drain
    }

    /// Puts the node back: it is ready, and announces its VIPs.
    pub(super) fn undrain_node(&mut self) -> Result<(), OperatorError> {
        if self.desired.node_drain.take().is_none() {
            return Err(OperatorError::Refused("the node is not drained".into()));
        }
        info!("the node is put back");
        self.save();
        self.announce_or_not(SystemTime::now())
            .map_err(|error| OperatorError::Failed(error.to_string()))
    }

    /// A backend that is drained, or in maintenance in Consul, and what is left of it.
    pub(super) fn drain_view(
        &self,
        service: &str,
        backend: &str,
    ) -> Result<DrainView, OperatorError> {
        let (id, drain) = self.desired.find_taken_out(service, backend)?;
        self.view_of(service, &id, drain)
            .map_err(|error| OperatorError::Failed(error.to_string()))
    }

    /// All such backends of the services there are.
    pub(super) fn drain_views(&self) -> Result<Vec<DrainView>, KernelError> {
        let snapshot = self.desired.snapshot();
        self.desired
            .taken_out()
            .filter(|(service, ..)| snapshot.services.contains_key(*service))
            .map(|(service, id, drain)| self.view_of(service, id, drain))
            .collect()
    }

    fn view_of(
        &self,
        service: &str,
        id: &InstanceId,
        drain: &Drain,
    ) -> Result<DrainView, KernelError> {
        let address = self.desired.address_of(service, id).or(drain.address);
        // Where another instance listens at the same address, its flows count, too: they are not
        // told apart.
        let held = address.map(|address| self.kernel.held(service, address));
        let held = held.unwrap_or_default();
        let census = self.kernel.census();
        let flows = |id| census.backends.get(id).copied().unwrap_or(0);
        Ok(DrainView {
            service: service.to_owned(),
            id: id.clone(),
            address,
            drain: drain.clone(),
            flows: held.keys().map(flows).sum(),
            local_sockets: self.kernel.kernel.local_sockets(&held)?,
            kernel_ids: held.into_keys().collect(),
        })
    }

    /// What may be cut of a backend: nothing while another instance at the same address is in use.
    fn may_be_cut(
        &self,
        service: &str,
        address: Option<SocketAddr>,
    ) -> BTreeMap<u32, KernelBackend> {
        let held = address.map(|address| self.kernel.held(service, address));
        let held = held.unwrap_or_default();
        match held.values().any(|backend| backend.active) {
            true => BTreeMap::new(),
            false => held,
        }
    }

    /// When the next drain comes to its end, or the node stops announcing its VIPs.
    pub(super) fn next_drain(&self) -> Option<SystemTime> {
        let drains = self.desired.taken_out();
        let node = self.desired.node_drain.as_ref();
        let leaves = node.filter(|_| self.announcing).map(NodeDrain::leaves);
        let due = drains.filter_map(|(_, _, drain)| drain.due());
        due.chain(leaves).min()
    }

    /// Cuts what is left where the deadline has passed.
    pub(super) fn end_drains(&mut self, now: SystemTime) {
        let mut due = Vec::new();
        for (service, id, drain) in self.desired.taken_out() {
            if drain.due().is_some_and(|deadline| deadline <= now) {
                let address = self.desired.address_of(service, id).or(drain.address);
                let held = self.may_be_cut(service, address);
                due.push((service.clone(), id.clone(), held));
            }
        }
        for (service, id, held) in due {
            let ids: BTreeSet<u32> = held.keys().copied().collect();
            let kernel = &mut self.kernel.kernel;
            let cut = kernel
                .cut_backends(&ids)
                .and_then(|flows| Ok(flows + kernel.close_local(&held)? as u64));
            let cut = match cut {
                Ok(cut) => cut,
                Err(error) => {
                    error!(service, backend = %id, %error, "what is left after the drain's deadline could not be cut");
                    continue;
                }
            };
            info!(service, backend = %id, flows = cut, "the drain's deadline has passed; what was left is cut");
            self.desired.set_cut(&service, &id, cut);
        }
        if let Err(error) = self.announce_or_not(now) {
            error!(%error, "the announcement of VIPs could not be changed");
        }
    }

    /// Forgets who was in maintenance, has left Consul and has nothing left.
    pub(super) fn forget_maintained(&mut self) {
        let kernel = &self.kernel;
        self.desired.forget_maintained(|service, drain| {
            drain
                .address
                .is_none_or(|address| kernel.held(service, address).is_empty())
        });
    }

    /// Announces the VIPs unless the node is drained and its grace is over.
    pub(super) fn announce_or_not(&mut self, now: SystemTime) -> Result<(), KernelError> {
        let node = self.desired.node_drain.as_ref();
        let on = !node.is_some_and(|drain| drain.has_left(now));
        if on == self.announcing {
            return Ok(());
        }
        self.kernel.announce_vips(on)?;
        self.announcing = on;
        Ok(())
    }
}
