//! Questions and commands about what is taken out.

use std::time::Duration;

use super::{Command, Handle, OperatorError};
use crate::{
    controller::DrainView,
    domain::{
        backend::InstanceId,
        drain::{DrainOrder, NodeDrain},
    },
};

impl Handle {
    /// Takes a backend, named by id or address, out without cutting its connections.
    pub async fn drain(&self, service: &str, backend: &str) -> Result<InstanceId, OperatorError> {
        self.drain_by(service, backend, DrainOrder::default()).await
    }

    /// The same with a deadline, by somebody, or by force.
    pub async fn drain_by(
        &self,
        service: &str,
        backend: &str,
        order: DrainOrder,
    ) -> Result<InstanceId, OperatorError> {
        self.ask(|reply| Command::Drain(service.into(), backend.into(), order, reply))
            .await
    }

    /// Takes the node out; answers with how it is drained now.
    pub async fn drain_node(
        &self,
        order: DrainOrder,
        grace: Duration,
    ) -> Result<NodeDrain, OperatorError> {
        self.ask(|reply| Command::DrainNode(order, grace, reply))
            .await
    }

    /// Puts the node back.
    pub async fn undrain_node(&self) -> Result<(), OperatorError> {
        self.ask(Command::UndrainNode).await
    }

    /// How far a drained backend is.
    pub async fn drain_view(
        &self,
        service: &str,
        backend: &str,
    ) -> Result<DrainView, OperatorError> {
        self.ask(|reply| Command::DrainView(service.into(), backend.into(), reply))
            .await
    }

    /// How the node is drained, if it is.
    pub async fn node_drain(&self) -> Result<Option<NodeDrain>, OperatorError> {
        self.ask(Command::NodeDrain).await
    }

    /// Puts a drained backend back.
    pub async fn undrain(&self, service: &str, backend: &str) -> Result<InstanceId, OperatorError> {
        self.ask(|reply| Command::Undrain(service.into(), backend.into(), reply))
            .await
    }
}
