//! The block list: what a person wants, and its copy in the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use lb_common::maps::MAX_BLOCK_RULES;
use tracing::{info, warn};

use super::{BlockEntry, Controller, OperatorError};
use crate::domain::{
    block::{BlockRule, Vital},
    kernel::{Kernel, KernelError},
};

/// What is told of a rule that was found in the kernel and nowhere else.
const UNKNOWN_REASON: &str = "found in the kernel, reason and end unknown";

/// All rules, each with the number of its counter in the kernel.
#[derive(Debug, Default)]
pub struct Blocks {
    rules: BTreeMap<IpNet, (BlockRule, u32)>,
}

impl Blocks {
    /// Brings the kernel's list to `saved`: what has expired goes, what is missing comes. Rules
    /// that are there keep their counters.
    ///
    /// A rule that only the kernel knows stays, without an end and with a reason that says so:
    /// the saved list is lost, or the last agent was killed before it was on disk. Whoever blocked
    /// it was told that it is blocked.
    ///
    /// # Errors
    ///
    /// The kernel's list cannot be read or written.
    pub fn restore(
        kernel: &mut impl Kernel,
        saved: Vec<BlockRule>,
        now: SystemTime,
    ) -> Result<Self, KernelError> {
        let mut held = kernel.blocked()?;
        let mut blocks = Self::default();
        let (alive, expired): (Vec<_>, Vec<_>) = saved
            .into_iter()
            .partition(|rule| rule.expires.is_none_or(|at| at > now));
        for rule in &expired {
            info!(prefix = %rule.prefix, "a block rule ended while the agent was away");
        }
        for rule in &expired {
            if held.remove(&rule.prefix).is_some() {
                kernel.unblock(rule.prefix)?;
            }
        }
        let (known, missing): (Vec<_>, Vec<_>) = alive
            .into_iter()
            .partition(|rule| held.contains_key(&rule.prefix));
        for rule in known {
            if let Some(counter) = held.remove(&rule.prefix) {
                blocks.rules.insert(rule.prefix, (rule, counter));
            }
        }
        if !held.is_empty() {
            warn!(
                rules = held.len(),
                "blocked in the kernel but not in the saved state; they stay blocked"
            );
        }
        for (prefix, counter) in held {
            let rule = BlockRule {
                prefix,
                reason: UNKNOWN_REASON.to_owned(),
                added: now,
                expires: None,
            };
            blocks.rules.insert(prefix, (rule, counter));
        }
        let room: Vec<u32> = blocks.free_counters().take(missing.len()).collect();
        if room.len() < missing.len() {
            warn!(
                rules = missing.len() - room.len(),
                "the block list is full; these rules of the saved state are left out"
            );
        }
        for (rule, counter) in missing.into_iter().zip(room) {
            kernel.block(rule.prefix, counter)?;
            blocks.rules.insert(rule.prefix, (rule, counter));
        }
        Ok(blocks)
    }

    /// The rules, by prefix.
    pub fn rules(&self) -> impl Iterator<Item = &BlockRule> {
        self.rules.values().map(|(rule, _)| rule)
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether nothing is blocked.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// When the next rule ends by itself.
    pub fn next_expiry(&self) -> Option<SystemTime> {
        self.rules().filter_map(|rule| rule.expires).min()
    }

    fn free_counters(&self) -> impl Iterator<Item = u32> + use<> {
        let used: BTreeSet<u32> = self.rules.values().map(|(_, counter)| *counter).collect();
        (0..MAX_BLOCK_RULES).filter(move |counter| !used.contains(counter))
    }

    /// Adds rules, or gives existing ones another reason and end; then ends the flows of whoever
    /// is blocked now. All or none.
    ///
    /// # Errors
    ///
    /// Refused because it would hurt the node (unless `force`), because the list is full, or
    /// because the kernel will not have it.
    #[expect(clippy::too_many_arguments, reason = "each is one word of the command")]
    pub fn add(
        &mut self,
        kernel: &mut impl Kernel,
        prefixes: &[IpNet],
        ttl: Option<Duration>,
        reason: &str,
        force: bool,
        vital: &Vital,
        now: SystemTime,
    ) -> Result<Vec<BlockRule>, OperatorError> {
        let prefixes: BTreeSet<IpNet> = prefixes.iter().copied().collect();
        if !force {
            let objections: Vec<String> = prefixes
                .iter()
                .filter_map(|prefix| vital.objection(prefix))
                .collect();
            if !objections.is_empty() {
                return Err(OperatorError::Refused(format!(
                    "not blocked: {}; --force blocks it all the same",
                    objections.join("; ")
                )));
            }
        }
        let expires = ttl.and_then(|ttl| now.checked_add(ttl));
        let new: Vec<IpNet> = prefixes
            .iter()
            .filter(|prefix| !self.rules.contains_key(prefix))
            .copied()
            .collect();
        let counters: Vec<u32> = self.free_counters().take(new.len()).collect();
        if counters.len() < new.len() {
            return Err(OperatorError::Refused(format!(
                "the block list holds at most {MAX_BLOCK_RULES} rules and has {}; nothing was added",
                self.rules.len()
            )));
        }
        for (done, (prefix, counter)) in new.iter().zip(&counters).enumerate() {
            if let Err(error) = kernel.block(*prefix, *counter) {
                for prefix in &new[..done] {
                    if let Err(error) = kernel.unblock(*prefix) {
                        warn!(%error, "a rule of a failed batch could not be taken back");
                    }
                }
                return Err(OperatorError::Failed(format!("nothing was added: {error}")));
            }
        }
        let mut added = Vec::new();
        let mut counters = counters.into_iter();
        for prefix in &prefixes {
            let rule = BlockRule {
                prefix: *prefix,
                reason: reason.to_owned(),
                added: now,
                expires,
            };
            match self.rules.get_mut(prefix) {
                Some((former, _)) => {
                    former.reason = rule.reason;
                    former.expires = rule.expires;
                    added.push(former.clone());
                }
                None => {
                    if let Some(counter) = counters.next() {
                        self.rules.insert(*prefix, (rule.clone(), counter));
                        added.push(rule);
                    }
                }
            }
        }
        // The rule stands, so no new flow comes; now the old ones go.
        let cut = kernel
            .cut_clients(&new)
            .map_err(|error| OperatorError::Failed(format!("blocked, but flows go on: {error}")))?;
        info!(
            rules = prefixes.len(),
            new = new.len(),
            flows_cut = cut,
            reason,
            "blocked"
        );
        Ok(added)
    }

    /// Removes rules; all or none.
    ///
    /// # Errors
    ///
    /// One is not on the list, or the kernel will not have it.
    pub fn remove(
        &mut self,
        kernel: &mut impl Kernel,
        prefixes: &[IpNet],
    ) -> Result<usize, OperatorError> {
        let prefixes: BTreeSet<IpNet> = prefixes.iter().copied().collect();
        if let Some(missing) = prefixes
            .iter()
            .find(|prefix| !self.rules.contains_key(prefix))
        {
            return Err(OperatorError::NotBlocked(*missing));
        }
        for prefix in &prefixes {
            kernel
                .unblock(*prefix)
                .map_err(|error| OperatorError::Failed(error.to_string()))?;
            self.rules.remove(prefix);
        }
        info!(rules = prefixes.len(), "unblocked");
        Ok(prefixes.len())
    }

    /// Ends the rules whose time has come; answers with their number.
    ///
    /// # Errors
    ///
    /// The kernel will not have it; the rule stays and is tried again.
    pub fn expire(
        &mut self,
        kernel: &mut impl Kernel,
        now: SystemTime,
    ) -> Result<usize, KernelError> {
        let due: Vec<IpNet> = self
            .rules()
            .filter(|rule| rule.expires.is_some_and(|at| at <= now))
            .map(|rule| rule.prefix)
            .collect();
        for prefix in &due {
            kernel.unblock(*prefix)?;
            self.rules.remove(prefix);
            info!(%prefix, "a block rule has ended");
        }
        Ok(due.len())
    }

    /// All rules with what they have caught.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    pub fn list(&self, kernel: &impl Kernel) -> Result<Vec<BlockEntry>, OperatorError> {
        self.rules
            .values()
            .map(|(rule, counter)| {
                let dropped = kernel
                    .block_stats(*counter)
                    .map_err(|error| OperatorError::Failed(error.to_string()))?;
                Ok(BlockEntry {
                    rule: rule.clone(),
                    dropped,
                })
            })
            .collect()
    }
}

impl<K: Kernel> Controller<K> {
    /// What would be foolish to block: the node's own addresses, Consul's, the backends'.
    pub(super) fn vital(&self) -> Vital {
        let mut vital = (self.setup.vital)();
        for service in self.desired.snapshot().services.values() {
            for backend in &service.backends {
                let what = format!("a backend of service {}", service.spec.name);
                vital.addresses.push((backend.address().ip(), what));
            }
        }
        vital
    }
}
