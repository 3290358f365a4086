//! Panic: when there are too few healthy backends to bear everybody's traffic.

use std::collections::{BTreeMap, BTreeSet};

use super::standing::Standing;
use crate::domain::{service::ServiceSpec, snapshot::BackendState};

/// Where too few backends are healthy, so that those that are not are used as well.
///
/// Each family's VIPs have their own backends: they are counted, and panic, apart. Under a split
/// the subsets are apart as well: one that is dead altogether gives its share to the living, which
/// is better than to use it. A backend that does not even answer, by our own probes or by what
/// traffic met, is no help to the few: it is used only where nobody is healthy at all.
pub(super) struct Panic {
    by_subset: bool,
    /// Families without a healthy backend: all are used.
    none: [bool; 2],
    /// Groups with too few: those that answer are used.
    few: BTreeSet<(bool, String)>,
}

/// Healthy ones, those that are not, and those of them that answer.
#[derive(Clone, Copy, Default)]
struct Count {
    usable: usize,
    unhealthy: usize,
    answering: usize,
}

impl Panic {
    pub(super) fn of(
        spec: &ServiceSpec,
        by_subset: bool,
        backends: &[BackendState],
        standings: &[Standing],
    ) -> Self {
        let mut panic = Self {
            by_subset,
            none: [false; 2],
            few: BTreeSet::new(),
        };
        let mut groups: BTreeMap<(bool, String), Count> = BTreeMap::new();
        let mut families = [Count::default(); 2];
        for (backend, standing) in backends.iter().zip(standings) {
            let group = groups.entry(panic.group(backend)).or_default();
            let family = &mut families[usize::from(backend.address().is_ipv6())];
            for count in [group, family] {
                match standing {
                    Standing::Usable => count.usable += 1,
                    Standing::Unhealthy { answers, .. } => {
                        count.unhealthy += 1;
                        count.answering += usize::from(*answers);
                    }
                    Standing::Out(_) => {}
                }
            }
        }
        panic.none = families.map(|count| count.usable == 0 && count.unhealthy > 0);
        let few = groups.iter().filter(|(_, count)| {
            let all = count.usable + count.unhealthy;
            let few = count.usable * 100 < all * spec.health.panic as usize;
            few && count.usable > 0 && count.answering > 0
        });
        panic.few = few.map(|(group, _)| group.clone()).collect();
        panic
    }

    fn group(&self, backend: &BackendState) -> (bool, String) {
        let subset = backend.subset.as_ref().filter(|_| self.by_subset);
        (
            backend.address().is_ipv6(),
            subset.cloned().unwrap_or_default(),
        )
    }

    /// Whether an unhealthy backend is used.
    pub(super) fn covers(&self, backend: &BackendState, answers: bool) -> bool {
        self.none[usize::from(backend.address().is_ipv6())]
            || answers && !self.few.is_empty() && self.few.contains(&self.group(backend))
    }

    pub(super) fn reigns(&self) -> bool {
        self.none != [false; 2] || !self.few.is_empty()
    }
}
