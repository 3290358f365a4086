//! What is drained, and how far it is: one backend has all the flows there are, the other none.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use lb_agent::{
    controller::{Command, DrainView, OperatorError},
    domain::{
        backend::InstanceId,
        drain::{Drain, NodeDrain},
    },
};

use super::Memory;

/// What a person has taken out.
#[derive(Default)]
pub(crate) struct Drained {
    pub(crate) backends: BTreeMap<InstanceId, Drain>,
    node: Option<NodeDrain>,
}

impl Drained {
    /// Carries out a command about drains, and answers when it is called.
    pub(crate) fn carry_out(&mut self, command: Command) -> Box<dyn FnOnce() + Send> {
        match command {
            Command::Drain(service, name, _, reply) => {
                let result = backend(&service, &name);
                if let Ok(id) = &result {
                    let since = SystemTime::now();
                    self.backends.insert(id.clone(), Drain::begun(since));
                }
                Box::new(move || drop(reply.send(result)))
            }
            Command::Undrain(service, name, reply) => {
                let result = backend(&service, &name);
                if let Ok(id) = &result {
                    self.backends.remove(id);
                }
                Box::new(move || drop(reply.send(result)))
            }
            Command::DrainNode(order, grace, reply) => {
                let drain = NodeDrain {
                    since: SystemTime::now(),
                    grace,
                    deadline: None,
                    by: order.by,
                };
                self.node = Some(drain.clone());
                Box::new(move || drop(reply.send(Ok(drain))))
            }
            Command::UndrainNode(reply) => {
                let taken = self.node.take();
                let refused = || OperatorError::Refused("the node is not drained".into());
                let result = taken.map(drop).ok_or_else(refused);
                Box::new(move || drop(reply.send(result)))
            }
            Command::NodeDrain(reply) => {
                let drain = self.node.clone();
                Box::new(move || drop(reply.send(Ok(drain))))
            }
            Command::DrainView(service, name, reply) => {
                let view = self.view(service, &name);
                Box::new(move || drop(reply.send(view)))
            }
            other => unreachable!("{other:?} is not about drains"),
        }
    }

    fn view(&self, service: String, name: &str) -> Result<DrainView, OperatorError> {
        let id = backend(&service, name)?;
        let drain = self.backends.get(&id).cloned();
        let refused = || OperatorError::Refused(format!("{name} is not drained"));
        Ok(DrainView {
            drain: drain.ok_or_else(refused)?,
            address: name.parse().ok(),
            kernel_ids: BTreeSet::from([if name == "10.1.0.2:8080" { 7 } else { 8 }]),
            local_sockets: 0,
            flows: 0,
            service,
            id,
        })
    }
}

fn backend(service: &str, name: &str) -> Result<InstanceId, OperatorError> {
    Memory::known(service)?;
    if ["10.1.0.2:8080", "10.1.0.3:8080"].contains(&name) {
        return Ok(InstanceId(name.into()));
    }
    Err(OperatorError::UnknownBackend {
        service: service.into(),
        name: name.into(),
    })
}
