//! Rules for the whole fleet: followed here as Consul has them.

use std::{collections::BTreeMap, time::SystemTime};

use ipnet::IpNet;
use tracing::{info, warn};

use super::{BlockOrder, Blocks, check_room, check_vital, cut};
use crate::{
    controller::{Controller, OperatorError},
    domain::{
        block::{BlockRule, Origin, Vital},
        fleet::FleetBlock,
        kernel::Kernel,
    },
};

impl Blocks {
    /// Refuses what would be foolish to block; answers with what exceptions count against it.
    pub(in crate::controller) fn check_fleet(
        &self,
        prefixes: &[IpNet],
        order: &BlockOrder,
        vital: &Vital,
    ) -> Result<Vec<String>, OperatorError> {
        check_vital(prefixes, order, vital)?;
        Ok(self.exceptions_from(prefixes))
    }

    /// What of the fleet's rules is not followed here, each a sentence.
    pub(in crate::controller) fn fleet_problems(&self) -> &[String] {
        &self.fleet_problems
    }

    fn fleet_rules(
        &self,
        wanted: &BTreeMap<IpNet, FleetBlock>,
        now: SystemTime,
    ) -> BTreeMap<IpNet, BlockRule> {
        let rule = |(prefix, block): (&IpNet, &FleetBlock)| {
            let former = self.rules.fleet().get(prefix).map(|former| former.added);
            let rule = BlockRule {
                prefix: *prefix,
                reason: block.reason.clone(),
                added: block.added().or(former).unwrap_or(now),
                expires: block.expires(),
                origin: Origin::Fleet,
            };
            let over = rule.expires.is_some_and(|at| at <= now);
            (!over).then_some((*prefix, rule))
        };
        wanted.iter().filter_map(rule).collect()
    }

    /// At the start: the rules as they were saved, before the kernel is compared with them.
    pub(super) fn remember_fleet(&mut self, saved: &BTreeMap<IpNet, FleetBlock>, now: SystemTime) {
        let rules = self.fleet_rules(saved, now);
        self.rules.set_fleet(rules);
    }

    /// Brings the fleet's rules to what the keys say; whether anything changed.
    ///
    /// # Errors
    ///
    /// The kernel will not have it; it is tried again at the next call.
    fn follow(
        &mut self,
        kernel: &mut impl Kernel,
        wanted: &BTreeMap<IpNet, FleetBlock>,
        vital: &Vital,
        now: SystemTime,
    ) -> Result<bool, OperatorError> {
        if self.followed == *wanted {
            return Ok(false);
        }
        let mut rules = self.fleet_rules(wanted, now);
        let mut problems = Vec::new();
        // A rule that was foolish where it was written was refused there. Here it is seen first.

        rules.retain(|prefix, _| {
            let forced = wanted.get(prefix).is_some_and(|block| block.force);
            match vital.objection(prefix).filter(|_| !forced) {
                None => true,
                Some(objection) => {
                    problems.push(format!(
                        "a rule for the whole fleet is not followed here: {objection}"
                    ));
                    false
                }
            }
        });
        let is_new = |prefix: &&IpNet| !self.rules.contains(prefix);
        let new: Vec<IpNet> = rules.keys().filter(is_new).copied().collect();
        check_room(self.rules.len() + new.len(), "added")?;
        let failed =
            |error: crate::domain::kernel::KernelError| OperatorError::Failed(error.to_string());
        if !new.is_empty() {
            kernel.block(&new).map_err(failed)?;
        }
        let former = self.rules.set_fleet(rules);
        let gone = former
            .into_keys()
            .filter(|prefix| !self.rules.contains(prefix));
        let gone: Vec<IpNet> = gone.collect();
        if !gone.is_empty() {
            kernel.unblock(&gone).map_err(failed)?;
        }
        self.followed.clone_from(wanted);
        let cut = match new.is_empty() {
            true => 0,
            false => cut(kernel)?,
        };
        info!(
            rules = self.rules.fleet().len(),
            new = new.len(),
            gone = gone.len(),
            flows_cut = cut,
            "the fleet's block rules are followed"
        );
        for problem in &problems {
            warn!("{problem}");
        }
        self.fleet_problems = problems;
        Ok(true)
    }
}

impl<K: Kernel> Controller<K> {
    /// Follows the fleet's rules, where the keys have changed.
    pub(in crate::controller) fn follow_fleet(&mut self) {
        if self.blocks.followed == *self.desired.fleet_blocks() {
            return;
        }
        let wanted = self.desired.fleet_blocks().clone();
        let vital = self.vital();
        let kernel = &mut self.kernel.kernel;
        let now = SystemTime::now();
        match self.blocks.follow(kernel, &wanted, &vital, now) {
            Ok(false) => {}
            Ok(true) => self.save(),
            Err(error) => {
                let problem = format!("the fleet's block rules are not followed: {error}");
                warn!("{problem}");
                self.blocks.fleet_problems = vec![problem];
            }
        }
    }
}
