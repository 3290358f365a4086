//! Interfaces that backends are behind and that the configuration does not name: bridges and veths
//! of containers. Replies come in there, so the tc programs are attached before the first request
//! is sent that way.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    classifier::{Classifiers, Owner, Role},
    pins,
};
use crate::domain::kernel::KernelError;

/// Where packets are looked at.
pub(crate) struct Coverage {
    classifiers: Arc<Mutex<Classifiers>>,
    configured: HashSet<u32>,
    attached: HashSet<u32>,
    /// Told of once.
    refused: HashSet<u32>,
}

impl Coverage {
    /// Over the `configured` interfaces, where programs are attached already. What a former agent
    /// attached elsewhere gets the new programs.
    ///
    /// # Errors
    ///
    /// A link that can neither be taken over nor removed.
    pub(crate) fn adopt(
        classifiers: Arc<Mutex<Classifiers>>,
        configured: &[u32],
    ) -> Result<Self, KernelError> {
        let attached = classifiers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .adopt(configured)?;
        Ok(Self {
            classifiers,
            configured: configured.iter().copied().collect(),
            attached: attached.into_iter().collect(),
            refused: HashSet::new(),
        })
    }

    /// Sees to it that replies on this interface are looked at; `false`: they would not be.
    /// `ethernet`: its frames begin with an Ethernet header.
    pub(crate) fn cover(&mut self, ifindex: u32, ethernet: bool) -> bool {
        if self.configured.contains(&ifindex) || self.attached.contains(&ifindex) {
            return true;
        }
        match self.attach(ifindex, ethernet) {
            Ok(name) => {
                tracing::info!(
                    interface = name,
                    "backends are behind this interface; tc programs attached"
                );
                self.attached.insert(ifindex);
                true
            }
            Err(error) => {
                if self.refused.insert(ifindex) {
                    tracing::error!(%error, "backends behind an interface get no packets, since their replies would not be seen");
                }
                false
            }
        }
    }

    fn attach(&self, ifindex: u32, ethernet: bool) -> Result<String, KernelError> {
        let what = || format!("attaching to interface {ifindex}");
        let name = pins::interface_name(ifindex)
            .ok_or_else(|| KernelError::new(what(), "it does not exist"))?;
        if !ethernet {
            let reason = format!("{name} is no Ethernet interface");
            return Err(KernelError::new(what(), reason));
        }
        let mut classifiers = self
            .classifiers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for role in [Role::Egress, Role::Ingress] {
            classifiers.attach(Owner::NextHop, role, &name, ifindex)?;
        }
        Ok(name)
    }

    /// Forgets interfaces that are gone, for others will come.
    pub(crate) fn retain(&mut self, exists: impl Fn(u32) -> bool) {
        self.refused.retain(|ifindex| exists(*ifindex));
        let classifiers = self
            .classifiers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.attached.retain(|ifindex| {
            let stays = exists(*ifindex);
            if !stays {
                for role in [Role::Ingress, Role::Egress] {
                    let path = classifiers.path(Owner::NextHop, role, *ifindex);
                    if let Err(error) = super::classifier::remove(&path) {
                        tracing::debug!(%error, "the link of an interface that is gone");
                    }
                }
            }
            stays
        });
    }
}
