//! What is asked before and after something is written for the whole fleet. The writing itself is
//! no matter of the controller, which waits for nobody.

use ipnet::IpNet;

use super::{
    Controller,
    blocks::BlockOrder,
    handle::{Command, Handle, OperatorError, Reply},
    respond,
};
use crate::domain::{fleet::KeyChange, kernel::Kernel, split::Shares};

/// What can be asked.
#[derive(Debug)]
pub enum FleetQuestion {
    /// Whether prefixes may be blocked for the whole fleet, as far as this node can tell; the
    /// answer says what exceptions count against them.
    Block(Vec<IpNet>, BlockOrder, Reply<Vec<String>>),
    /// Whether this node's view of the fleet's keys has these changes.
    Follows(Vec<KeyChange>, Reply<bool>),
    /// Whether a split could be set.
    Split(String, Shares, Reply<()>),
}

impl Handle {
    /// Refuses what would be foolish to block for the whole fleet; answers with what exceptions
    /// count against the others.
    pub async fn fleet_check(
        &self,
        prefixes: Vec<IpNet>,
        order: BlockOrder,
    ) -> Result<Vec<String>, OperatorError> {
        self.ask(|reply| Command::Fleet(FleetQuestion::Block(prefixes, order, reply)))
            .await
    }

    /// Whether this node's view of the fleet's keys has these changes.
    pub async fn fleet_follows(&self, changes: Vec<KeyChange>) -> Result<bool, OperatorError> {
        self.ask(|reply| Command::Fleet(FleetQuestion::Follows(changes, reply)))
            .await
    }

    /// Refuses a split that could not be set.
    pub async fn split_check(&self, service: &str, shares: Shares) -> Result<(), OperatorError> {
        self.ask(|reply| Command::Fleet(FleetQuestion::Split(service.into(), shares, reply)))
            .await
    }
}

impl<K: Kernel> Controller<K> {
    pub(super) fn answer(&self, question: FleetQuestion) {
        match question {
            FleetQuestion::Block(prefixes, order, reply) => {
                let answer = self.blocks.check_fleet(&prefixes, &order, &self.vital());
                respond(reply, answer);
            }
            FleetQuestion::Follows(changes, reply) => {
                let values = self.desired.keys.values();
                respond(
                    reply,
                    Ok(changes.iter().all(|change| change.is_done(values))),
                );
            }
            FleetQuestion::Split(service, shares, reply) => {
                let answer = self.desired.check_split(&service, &shares);
                // What this node saw fail is not given to all of them unseen.
                let answer = answer.and_then(|()| self.desired.check_latch(&service));
                respond(reply, answer);
            }
        }
    }
}
