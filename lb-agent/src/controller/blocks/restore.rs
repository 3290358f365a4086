//! The block list at the start: what was saved and what the kernel holds, brought together.

use std::{collections::BTreeSet, time::SystemTime};

use ipnet::IpNet;
use lb_common::maps::MAX_BLOCK_RULES;
use tracing::{info, warn};

use super::Blocks;
use crate::{
    domain::{
        block::{BlockRule, Origin},
        block_list::{BlockRules, Section, Terms},
        fleet::Fleet,
        kernel::{Kernel, KernelError},
    },
    state::PersistedState,
};

/// What is told of a rule that was found in the kernel and nowhere else.
const UNKNOWN_REASON: &str = "found in the kernel, reason and end unknown";
/// So many of them count as added by people, more as a list that was imported.
const ONE_BY_ONE: usize = 1000;

impl Blocks {
    /// Brings the kernel's lists to what was saved and configured: what has expired goes, what is
    /// missing comes. Rules that are there keep their counters.
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
        saved: &PersistedState,
        configured: &[IpNet],
        now: SystemTime,
    ) -> Result<Self, KernelError> {
        let unlisted = if saved.unlisted.list == saved.imported.id {
            saved.unlisted.prefixes.clone()
        } else {
            Vec::new()
        };
        let mut blocks = Self {
            rules: BlockRules::new(saved.blocks.clone(), saved.imported.clone(), unlisted),
            configured: configured.iter().copied().collect(),
            allowed: saved.allowed.clone(),
            ..Self::default()
        };
        blocks.remember_fleet(&Fleet::read(saved.keys.values()).blocks, now);
        // Before rules come: who is allowed is not dropped for a moment either.
        kernel.allow(&blocks.all_allowed())?;
        let expired = blocks.rules.take_expired(rand::random(), now);
        if !expired.is_empty() {
            info!(
                rules = expired.len(),
                "block rules ended while the agent was away"
            );
            kernel.unblock(&expired)?;
        }
        let mut held = kernel.blocked()?;
        held.sort_unstable();
        let mut wanted: Vec<IpNet> = blocks.rules.prefixes().collect();
        wanted.sort_unstable();
        let mut missing: Vec<IpNet> = wanted
            .iter()
            .filter(|prefix| held.binary_search(prefix).is_err())
            .copied()
            .collect();
        held.retain(|prefix| wanted.binary_search(prefix).is_err());
        if !held.is_empty() {
            warn!(
                rules = held.len(),
                "blocked in the kernel but not in the saved state; they stay blocked"
            );
            blocks.adopt(held, now);
        }
        let room = (MAX_BLOCK_RULES as usize + missing.len()).saturating_sub(blocks.rules.len());
        if missing.len() > room {
            let left_out: BTreeSet<IpNet> = missing.split_off(room).into_iter().collect();
            warn!(
                rules = left_out.len(),
                "the block list is full; these rules of the saved state are left out"
            );
            for prefix in &left_out {
                blocks.rules.remove(prefix);
            }
        }
        if !missing.is_empty() {
            kernel.block(&missing)?;
        }
        Ok(blocks)
    }

    /// Makes rules of what only the kernel knows.
    fn adopt(&mut self, held: Vec<IpNet>, now: SystemTime) {
        if held.len() > ONE_BY_ONE {
            let terms = Terms {
                reason: UNKNOWN_REASON.to_owned(),
                added: now,
                expires: None,
            };
            let section = Section::new(terms, held);
            self.rules = self.rules.with_import(rand::random(), section, false);
            return;
        }
        for prefix in held {
            self.rules.insert(BlockRule {
                prefix,
                reason: UNKNOWN_REASON.to_owned(),
                added: now,
                expires: None,
                origin: Origin::Operator,
            });
        }
    }
}
