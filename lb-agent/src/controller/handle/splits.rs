//! Commands about splits.

use super::{Command, Handle, OperatorError};
use crate::domain::{
    dtab::Dentry,
    shift::{ShiftOrder, ShiftState},
    split::{ActiveSplit, Shares},
};

impl Handle {
    /// Sets the split of a service; answers when the kernel follows it.
    pub async fn split_set(
        &self,
        service: &str,
        shares: Shares,
    ) -> Result<ActiveSplit, OperatorError> {
        self.ask(|reply| Command::SplitSet(service.into(), shares, reply))
            .await
    }

    /// Forgets the split set by [`Self::split_set`]; answers with the one that counts now.
    pub async fn split_reset(&self, service: &str) -> Result<Option<ActiveSplit>, OperatorError> {
        self.ask(|reply| Command::SplitReset(service.into(), reply))
            .await
    }

    /// Begins a shift, or gives one another goal; answers when the kernel follows its first step.
    pub async fn shift(
        &self,
        service: &str,
        order: ShiftOrder,
    ) -> Result<ShiftState, OperatorError> {
        self.ask(|reply| Command::Shift(service.into(), order, reply))
            .await
    }

    /// Gives the subset of a shift everything, for good.
    pub async fn promote(&self, service: &str) -> Result<ShiftState, OperatorError> {
        self.ask(|reply| Command::Promote(service.into(), reply))
            .await
    }

    /// Ends a shift; answers with what is in force instead.
    pub async fn roll_back(&self, service: &str) -> Result<Option<ActiveSplit>, OperatorError> {
        self.ask(|reply| Command::Rollback(service.into(), reply))
            .await
    }

    /// Takes note of traffic that was given back; answers with what is in force instead.
    pub async fn acknowledge(&self, service: &str) -> Result<Option<ActiveSplit>, OperatorError> {
        self.ask(|reply| Command::Acknowledge(service.into(), reply))
            .await
    }

    /// Splits services by a delegation table, all of it or nothing of it; only if the present one
    /// has this version, where one is given.
    pub async fn put_dtab(
        &self,
        dentries: Vec<Dentry>,
        version: Option<String>,
    ) -> Result<(), OperatorError> {
        self.ask(|reply| Command::PutDtab(dentries, version, reply))
            .await
    }
}
