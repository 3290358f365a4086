//! Exceptions from the block list: who is never dropped, whatever it says.

use std::{collections::BTreeSet, time::SystemTime};

use ipnet::IpNet;
use lb_common::maps::MAX_ALLOW_RULES;
use tracing::info;

use super::{Blocks, TOLD};
use crate::{
    controller::OperatorError,
    domain::{
        block::{Exception, PrefixSet},
        kernel::{Kernel, KernelError},
    },
};

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

impl Blocks {
    /// All exceptions, in the order of prefixes.
    pub fn exceptions(&self) -> Vec<Exception> {
        self.all_allowed()
            .into_iter()
            .map(|prefix| Exception {
                prefix,
                configured: self.configured.contains(&prefix),
                added: self.allowed.get(&prefix).copied(),
            })
            .collect()
    }

    pub(super) fn all_allowed(&self) -> BTreeSet<IpNet> {
        let by_command = self.allowed.keys().copied();
        self.configured.iter().copied().chain(by_command).collect()
    }

    /// What the configuration excepts from now on.
    ///
    /// # Errors
    ///
    /// The kernel will not have it.
    pub fn configure(
        &mut self,
        kernel: &mut impl Kernel,
        configured: &[IpNet],
    ) -> Result<(), KernelError> {
        let former = std::mem::replace(&mut self.configured, configured.iter().copied().collect());
        if former == self.configured {
            return Ok(());
        }
        self.put_in_force(kernel)
            .inspect_err(|_| self.configured = former)
    }

    /// Excepts prefixes; answers with what that overrides.
    ///
    /// # Errors
    ///
    /// There is no room for them, or the kernel will not have it.
    pub fn allow(
        &mut self,
        kernel: &mut impl Kernel,
        prefixes: &[IpNet],
        now: SystemTime,
    ) -> Result<Vec<String>, OperatorError> {
        let former = self.allowed.clone();
        for prefix in prefixes {
            self.allowed.entry(*prefix).or_insert(now);
        }
        let all = self.all_allowed();
        let v4 = all.iter().filter(|prefix| prefix.addr().is_ipv4()).count();
        if v4.max(all.len() - v4) > MAX_ALLOW_RULES as usize {
            self.allowed = former;
            return Err(OperatorError::Refused(format!(
                "the allow list holds at most {MAX_ALLOW_RULES} prefixes of each address family; \
                 nothing was added"
            )));
        }
        if let Err(error) = self.put_in_force(kernel) {
            self.allowed = former;
            return Err(OperatorError::Failed(format!(
                "nothing was allowed: {error}"
            )));
        }
        info!(prefixes = prefixes.len(), "allowed");
        Ok(self.overridden_by(prefixes))
    }

    /// Takes exceptions back; all or none. Flows of whoever is blocked then end.
    ///
    /// # Errors
    ///
    /// One is not on the list or stands in the configuration, or the kernel will not have it.
    pub fn disallow(
        &mut self,
        kernel: &mut impl Kernel,
        prefixes: &[IpNet],
    ) -> Result<usize, OperatorError> {
        let prefixes: BTreeSet<&IpNet> = prefixes.iter().collect();
        for prefix in &prefixes {
            if self.allowed.contains_key(prefix) {
                continue;
            }
            return Err(if self.configured.contains(prefix) {
                OperatorError::Refused(format!(
                    "{prefix} is allowed by the configuration; take it out of `allow` under \
                     [block] and run `lb-agent reload`"
                ))
            } else {
                OperatorError::NotAllowed(**prefix)
            });
        }
        let former = self.allowed.clone();
        self.allowed.retain(|prefix, _| !prefixes.contains(prefix));
        if let Err(error) = self.put_in_force(kernel) {
            self.allowed = former;
            return Err(OperatorError::Failed(format!(
                "nothing was deleted: {error}"
            )));
        }
        info!(prefixes = prefixes.len(), "no longer allowed");
        Ok(prefixes.len())
    }

    fn put_in_force(&self, kernel: &mut impl Kernel) -> Result<(), KernelError> {
        kernel.allow(&self.all_allowed())?;
        // Where an exception has gone, somebody may be blocked that was not.
        kernel.cut_blocked().map(drop)
    }

    /// For each exception that some of these prefixes do not count for: a sentence.
    pub(super) fn exceptions_from<'a>(
        &self,
        prefixes: impl IntoIterator<Item = &'a IpNet>,
    ) -> Vec<String> {
        let allowed = self.all_allowed();
        if allowed.is_empty() {
            return Vec::new();
        }
        let mut notes = Vec::new();
        for prefix in prefixes {
            for exception in allowed
                .iter()
                .filter(|exception| overlap(exception, prefix))
            {
                notes.push(if exception.contains(prefix) {
                    format!("{prefix} is not dropped: {exception} is allowed, which comes first")
                } else {
                    format!("{prefix} is dropped except for {exception}, which is allowed")
                });
            }
        }
        shorten(notes)
    }

    /// For each rule that does not count any more, or not for all: a sentence.
    fn overridden_by(&self, allowed: &[IpNet]) -> Vec<String> {
        let set: PrefixSet = allowed.iter().collect();
        let mut notes = Vec::new();
        for prefix in self.rules.prefixes() {
            // A prefix is covered by a shorter exception if and only if its first address is.
            let near = set.contains(prefix.network())
                || allowed.iter().any(|exception| prefix.contains(exception));
            if !near {
                continue;
            }
            for exception in allowed
                .iter()
                .filter(|exception| overlap(exception, &prefix))
            {
                notes.push(format!(
                    "the rule {prefix} is on the block list; {exception} is allowed all the same"
                ));
            }
        }
        shorten(notes)
    }
}

/// The first ones, and how many there are more.
fn shorten(mut notes: Vec<String>) -> Vec<String> {
    let more = notes.len().saturating_sub(TOLD);
    notes.truncate(TOLD);
    if more > 0 {
        notes.push(format!(
            "and {more} more rules that exceptions count against"
        ));
    }
    notes
}
