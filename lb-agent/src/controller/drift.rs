//! The kernel is compared with what was written there, a part at a time, and mended: somebody may
//! have written into the maps, or taken a program off.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use ipnet::IpNet;
use tracing::{error, warn};

use super::{Controller, reconcile::Reconciler};
use crate::domain::{
    drift::{self, Difference, DriftRecord, Part, Place},
    kernel::{Kernel, KernelError},
};

/// Into how many parts the comparison is divided.
pub(super) const PARTS: u32 = 10;
/// A complete comparison that somebody asks for is not done again before that.
const AGAIN: Duration = Duration::from_millis(200);
/// Rules of a block list that is compared rule by rule; of a longer one the pages are.
const FEW_RULES: usize = 10_000;

/// Where the comparison stands.
#[derive(Debug)]
pub(super) struct Comparison {
    next: Part,
    complete: Option<Instant>,
    pub(super) record: DriftRecord,
}

impl Default for Comparison {
    fn default() -> Self {
        Self {
            next: Part {
                index: 0,
                count: PARTS,
            },
            complete: None,
            record: DriftRecord::default(),
        }
    }
}

impl<K: Kernel> Controller<K> {
    /// Compares the next part.
    pub(super) fn compare_next(&mut self) {
        let part = self.comparison.next;
        self.comparison.next = part.next();
        self.compare(part);
        if self.comparison.next.index == 0 {
            self.comparison.record.compared = Some(SystemTime::now());
        }
    }

    /// Compares everything, unless that has just been done.
    pub(super) fn compare_all(&mut self) {
        let comparison = &mut self.comparison;
        if comparison.complete.is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        comparison.complete = Some(Instant::now());
        self.compare(Part::ALL);
        self.comparison.record.compared = Some(SystemTime::now());
    }

    fn compare(&mut self, part: Part) {
        if part.index == 0 {
            // Each is tried again, and told of again if it fails.
            self.comparison.record.problems.clear();
        }
        let found = self.kernel.differences(part);
        let found = found.and_then(|mut found| {
            if part.index == 0 {
                found.extend(self.missing_blocks()?);
            }
            Ok(found)
        });
        match found {
            Ok(found) if found.is_empty() => {}
            Ok(found) => self.mend(&found),
            Err(error) => {
                error!(%error, "the kernel could not be compared with what is wanted");
                let text = format!("the kernel could not be compared with what is wanted: {error}");
                self.comparison.record.problems.push(text);
            }
        }
    }

    fn mend(&mut self, found: &[Difference]) {
        let now = SystemTime::now();
        for (difference, outcome) in found.iter().zip(self.kernel.mend(found)) {
            let record = &mut self.comparison.record;
            let outcome = match (&difference.place, outcome) {
                (Place::Blocks, Ok(())) => self.blocks.mend(&mut self.kernel.kernel),
                (_, outcome) => outcome,
            };
            match outcome {
                Ok(()) => {
                    warn!(
                        what = difference.place.kind(),
                        "the kernel differed from what was written there, and was mended: {}",
                        difference.text
                    );
                    record.note(difference, now);
                }
                Err(error) => {
                    error!(
                        what = difference.place.kind(),
                        %error,
                        "the kernel differs from what was written there: {}",
                        difference.text
                    );
                    record.problems.push(format!(
                        "the kernel differs from what was written there ({}), and could not be mended: {error}",
                        difference.text
                    ));
                }
            }
        }
    }

    /// Rules that somebody has taken off the kernel's block list, or put on it.
    fn missing_blocks(&mut self) -> Result<Option<Difference>, KernelError> {
        if self.blocks.len() > FEW_RULES {
            return Ok(None);
        }
        let (missing, foreign) = self.blocks.strayed(&mut self.kernel.kernel)?;
        Ok((!missing.is_empty() || !foreign.is_empty()).then(|| {
            let text = format!(
                "{} rules of the block list were missing, and {} were there that nobody asked for",
                missing.len(),
                foreign.len()
            );
            Difference::new(Place::Blocks, text)
        }))
    }
}

impl super::Blocks {
    /// Rules that the kernel's list lacks, and those that it should not have.
    fn strayed(&self, kernel: &mut impl Kernel) -> Result<(Vec<IpNet>, Vec<IpNet>), KernelError> {
        let held: BTreeSet<IpNet> = kernel.blocked()?.into_iter().collect();
        let missing = self.rules().after(None, FEW_RULES).into_iter();
        let missing = missing.map(|rule| rule.prefix);
        let foreign = held.iter().copied();
        Ok((
            missing.filter(|prefix| !held.contains(prefix)).collect(),
            foreign
                .filter(|prefix| !self.rules().contains(prefix))
                .collect(),
        ))
    }

    /// Puts back what the kernel's list lacks, and takes off what it should not have.
    fn mend(&self, kernel: &mut impl Kernel) -> Result<(), KernelError> {
        if self.len() > FEW_RULES {
            return Ok(());
        }
        let (missing, foreign) = self.strayed(kernel)?;
        if !missing.is_empty() {
            kernel.block(&missing)?;
        }
        if !foreign.is_empty() {
            kernel.unblock(&foreign)?;
        }
        Ok(())
    }
}

impl<K: Kernel> Reconciler<K> {
    /// Where the kernel differs from the mirror.
    pub(super) fn differences(&mut self, part: Part) -> Result<Vec<Difference>, KernelError> {
        self.kernel.differences(&self.view, part)
    }

    /// Mends it: by the steps of a plan, in their order, and what is none of those by itself. Answers
    /// with the outcome of each.
    pub(super) fn mend(&mut self, found: &[Difference]) -> Vec<Result<(), KernelError>> {
        let steps = drift::mend(found, &self.view);
        debug_assert!(drift::is_faithful(&self.view, &steps));
        let carried_out = self
            .carry_out_beside(&steps)
            .map_err(|error| error.to_string());
        found
            .iter()
            .map(|difference| {
                // Whether it was a step or not, it is a matter of its own if that fails.
                carried_out
                    .clone()
                    .map_err(|reason| KernelError::new("mending", reason))?;
                self.kernel.mend(&difference.place, &self.view)
            })
            .collect()
    }
}
