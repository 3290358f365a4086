//! The block list: what people want, and its copy in the kernel.

mod allow;
mod fleet;
mod restore;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use lb_common::{entry::Counter, maps::MAX_BLOCK_RULES};
use tracing::{info, warn};

use super::{BlockEntry, Controller, OperatorError};
use crate::domain::{
    block::{BlockRule, Origin, Vital},
    block_list::{BlockRules, Section, Terms},
    fleet::FleetBlock,
    kernel::{Kernel, KernelError},
};

/// Rules that end one by one are told one by one, up to so many at once.
const TOLD: usize = 10;

/// All rules, and what is excepted from them.
#[derive(Debug, Default)]
pub struct Blocks {
    rules: BlockRules,
    /// From the configuration.
    configured: BTreeSet<IpNet>,
    /// By commands, and since when.
    allowed: BTreeMap<IpNet, SystemTime>,
    /// What the fleet's keys said when they were last followed.
    followed: BTreeMap<IpNet, FleetBlock>,
    /// What of it is not followed, each a sentence.
    fleet_problems: Vec<String>,
}

/// How rules are to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockOrder {
    /// When they end by themselves, from now; `None`: never.
    pub ttl: Option<Duration>,
    /// Why; may be empty.
    pub reason: String,
    /// Even if it hurts the node itself.
    pub force: bool,
}

/// What has become of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// The rules as they stand on the list now; of an import none, for there may be a million.
    pub rules: Vec<BlockRule>,
    /// How many rules were added or renewed.
    pub count: usize,
    /// How many rules there are now.
    pub total: usize,
    /// What the person should know, each a sentence.
    pub notes: Vec<String>,
}

impl Blocks {
    /// The rules.
    pub fn rules(&self) -> &BlockRules {
        &self.rules
    }

    /// Exceptions by commands, and since when.
    pub fn allowed(&self) -> &BTreeMap<IpNet, SystemTime> {
        &self.allowed
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
        self.rules.next_expiry()
    }

    /// Adds rules, or gives existing ones another reason and end; then ends the flows of whoever
    /// is blocked now. All or none.
    ///
    /// # Errors
    ///
    /// Refused because it would hurt the node (unless forced), because the list is full, or
    /// because the kernel will not have it.
    pub fn add(
        &mut self,
        kernel: &mut impl Kernel,
        prefixes: &[IpNet],
        order: &BlockOrder,
        vital: &Vital,
        now: SystemTime,
    ) -> Result<Blocked, OperatorError> {
        check_vital(prefixes, order, vital)?;
        let prefixes: BTreeSet<IpNet> = prefixes.iter().copied().collect();
        let is_new = |prefix: &&IpNet| !self.rules.contains(prefix);
        let new: Vec<IpNet> = prefixes.iter().filter(is_new).copied().collect();
        check_room(self.rules.len() + new.len(), "added")?;
        if let Err(error) = kernel.block(&new) {
            // Of two address families one may have been written.
            if let Err(error) = kernel.unblock(&new) {
                warn!(%error, "rules of a failed batch could not be taken back");
            }
            return Err(OperatorError::Failed(format!("nothing was added: {error}")));
        }
        let expires = order.ttl.and_then(|ttl| now.checked_add(ttl));
        let mut rules = Vec::new();
        for prefix in &prefixes {
            let former = self.rules.get(prefix);
            let rule = BlockRule {
                prefix: *prefix,
                reason: order.reason.clone(),
                added: former.map_or(now, |former| former.added),
                expires,
                origin: Origin::Operator,
            };
            self.rules.insert(rule.clone());
            rules.push(rule);
        }
        let cut = cut(kernel)?;
        let reason = &order.reason;
        info!(
            rules = prefixes.len(),
            new = new.len(),
            flows_cut = cut,
            reason,
            "blocked"
        );
        Ok(Blocked {
            count: rules.len(),
            total: self.rules.len(),
            notes: self.exceptions_from(&prefixes),
            rules,
        })
    }

    /// Adds the rules of a list, or (`replace`) puts them in the place of all that were imported:
    /// in one step, so that whoever is on both lists is blocked all the time. All or none.
    ///
    /// # Errors
    ///
    /// As for [`Self::add`].
    pub fn import(
        &mut self,
        kernel: &mut impl Kernel,
        prefixes: &[IpNet],
        order: &BlockOrder,
        replace: bool,
        vital: &Vital,
        now: SystemTime,
    ) -> Result<Blocked, OperatorError> {
        check_vital(prefixes, order, vital)?;
        let terms = Terms {
            reason: order.reason.clone(),
            added: now,
            expires: order.ttl.and_then(|ttl| now.checked_add(ttl)),
        };
        let section = Section::new(terms, prefixes.iter().copied());
        let rules = self.rules.with_import(rand::random(), section, replace);
        check_room(rules.len(), if replace { "replaced" } else { "added" })?;
        if replace {
            let all: Vec<IpNet> = rules.prefixes().collect();
            kernel.replace_blocked(&all).map_err(|error| {
                OperatorError::Failed(format!("the list was not replaced: {error}"))
            })?;
        } else {
            let is_new = |prefix: &&IpNet| !self.rules.contains(prefix);
            let new: Vec<IpNet> = prefixes.iter().filter(is_new).copied().collect();
            if let Err(error) = kernel.block(&new) {
                if let Err(error) = kernel.unblock(&new) {
                    warn!(%error, "rules of a failed import could not be taken back");
                }
                return Err(OperatorError::Failed(format!("nothing was added: {error}")));
            }
        }
        let former = std::mem::replace(&mut self.rules, rules);
        let cut = cut(kernel)?;
        info!(
            rules = prefixes.len(),
            replace,
            before = former.len(),
            now = self.rules.len(),
            flows_cut = cut,
            mebibytes = kernel.block_mebibytes(),
            "block list imported"
        );
        Ok(Blocked {
            rules: Vec::new(),
            count: prefixes.len(),
            total: self.rules.len(),
            notes: self.exceptions_from(prefixes),
        })
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
        let missing = prefixes
            .iter()
            .find(|prefix| !self.rules.contains_own(prefix));
        if let Some(missing) = missing {
            if self.rules.fleet().contains_key(missing) {
                return Err(OperatorError::Refused(format!(
                    "{missing} is blocked for the whole fleet; `lb-agent block del --fleet {missing}` ends that on all nodes"
                )));
            }
            return Err(OperatorError::NotBlocked(*missing));
        }
        // What the fleet blocks as well stays blocked.
        let stays = |prefix: &&IpNet| self.rules.fleet().contains_key(*prefix);
        let all: Vec<IpNet> = prefixes
            .iter()
            .filter(|each| !stays(each))
            .copied()
            .collect();
        kernel
            .unblock(&all)
            .map_err(|error| OperatorError::Failed(error.to_string()))?;
        for prefix in &prefixes {
            self.rules.remove(prefix);
        }
        info!(rules = prefixes.len(), "unblocked");
        Ok(prefixes.len())
    }

    /// Ends the rules whose time has come; answers with their number.
    ///
    /// # Errors
    ///
    /// The kernel will not have it; the rules stay and are tried again.
    pub fn expire(
        &mut self,
        kernel: &mut impl Kernel,
        now: SystemTime,
    ) -> Result<usize, KernelError> {
        if self.rules.next_expiry().is_none_or(|at| at > now) {
            return Ok(0);
        }
        let mut rules = self.rules.clone();
        let due = rules.take_expired(rand::random(), now);
        kernel.unblock(&due)?;
        self.rules = rules;
        for prefix in due.iter().take(TOLD) {
            info!(%prefix, "a block rule has ended");
        }
        if due.len() > TOLD {
            info!(rules = due.len(), "block rules have ended");
        }
        Ok(due.len())
    }

    /// The `most` rules that follow `after` (or the first ones), with what they have caught.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    pub fn list(
        &self,
        kernel: &impl Kernel,
        after: Option<IpNet>,
        most: usize,
    ) -> Result<Vec<BlockEntry>, OperatorError> {
        let rules = self.rules.after(after, most);
        let prefixes: Vec<IpNet> = rules.iter().map(|rule| rule.prefix).collect();
        let dropped = kernel
            .block_stats(&prefixes)
            .map_err(|error| OperatorError::Failed(error.to_string()))?;
        let entries = rules.into_iter().zip(dropped);
        Ok(entries
            .map(|(rule, dropped)| BlockEntry { rule, dropped })
            .collect())
    }

    /// The rules that have caught most.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    pub fn top(
        &self,
        kernel: &impl Kernel,
        most: usize,
    ) -> Result<Vec<(IpNet, Counter)>, OperatorError> {
        kernel
            .block_top(most)
            .map_err(|error| OperatorError::Failed(error.to_string()))
    }

    /// So many rules, those that have caught most first.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    pub fn leaders(
        &self,
        kernel: &impl Kernel,
        most: usize,
    ) -> Result<Vec<BlockEntry>, OperatorError> {
        let entries = self.top(kernel, most)?.into_iter();
        let known = |(prefix, dropped)| {
            let rule = self.rules.get(&prefix)?;
            Some(BlockEntry { rule, dropped })
        };
        Ok(entries.filter_map(known).collect())
    }
}

/// The rules stand, so no new flow comes; now the old ones go.
fn cut(kernel: &mut impl Kernel) -> Result<u64, OperatorError> {
    kernel
        .cut_blocked()
        .map_err(|error| OperatorError::Failed(format!("blocked, but flows go on: {error}")))
}

fn check_room(rules: usize, done: &str) -> Result<(), OperatorError> {
    if rules <= MAX_BLOCK_RULES as usize {
        return Ok(());
    }
    Err(OperatorError::Refused(format!(
        "the block list holds at most {MAX_BLOCK_RULES} rules, and this would make {rules}; \
         nothing was {done}"
    )))
}

fn check_vital(prefixes: &[IpNet], order: &BlockOrder, vital: &Vital) -> Result<(), OperatorError> {
    let objections = if order.force {
        Vec::new()
    } else {
        vital.objections(prefixes)
    };
    if objections.is_empty() {
        return Ok(());
    }
    let shown = objections[..objections.len().min(TOLD)].join("; ");
    let more = match objections.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Err(OperatorError::Refused(format!(
        "not blocked: {shown}{more}; --force blocks it all the same"
    )))
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
