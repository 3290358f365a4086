//! Which numbers stand for which services and backends.

use std::collections::{BTreeMap, BTreeSet};

use super::{ServiceIds, Wanted};
use crate::domain::kernel::KernelView;

/// Gives every wanted service an id: the one it has, else the one that its VIPs have in the
/// kernel (left there by a former agent), else the lowest that is free.
pub(super) fn assign_ids(
    wanted: &BTreeMap<(String, bool), Wanted<'_>>,
    view: &KernelView,
    ids: &mut ServiceIds,
    is_settled: &dyn Fn(&str) -> bool,
) {
    ids.retain(|key, _| wanted.contains_key(key) || is_settled(&key.0));
    if wanted.keys().all(|key| ids.contains_key(key)) {
        return;
    }
    let mut used: BTreeSet<u32> = ids.values().copied().collect();
    for (key, want) in wanted {
        if ids.contains_key(key) {
            continue;
        }
        let held = want
            .vips
            .iter()
            .filter_map(|vip| view.vips.get(vip))
            .map(|vip| vip.service)
            .find(|id| !used.contains(id));
        if let Some(id) = held {
            ids.insert(key.clone(), id);
            used.insert(id);
        }
    }
    let mut free = FreeIds::new(used.into_iter().chain(view.service_ids()));
    for (key, want) in wanted {
        debug_assert_eq!(key.0, want.service.spec.name);
        ids.entry(key.clone()).or_insert_with(|| free.take());
    }
}

/// Names of the settled services by their ids, which are small numbers: a backend is looked up for
/// each of a hundred thousand.
pub(super) struct Settled<'a>(Vec<Option<&'a str>>);

impl<'a> Settled<'a> {
    pub(super) fn new(ids: &'a ServiceIds, is_settled: &dyn Fn(&str) -> bool) -> Self {
        let most = ids.values().max().map_or(0, |id| *id as usize + 1);
        let mut names = vec![None; most];
        for ((name, _), id) in ids {
            if is_settled(name) {
                names[*id as usize] = Some(name.as_str());
            }
        }
        Self(names)
    }

    /// The name of a settled service; `None`: it is none.
    pub(super) fn name(&self, id: u32) -> Option<&'a str> {
        self.0.get(id as usize).copied().flatten()
    }
}

/// Hands out the lowest numbers that are not taken.
pub(super) struct FreeIds {
    /// Ascending, from the next that may stand in the way.
    taken: std::iter::Peekable<std::vec::IntoIter<u32>>,
    next: u32,
}

impl FreeIds {
    pub(super) fn new(taken: impl IntoIterator<Item = u32>) -> Self {
        let mut taken: Vec<u32> = taken.into_iter().collect();
        taken.sort_unstable();
        Self {
            taken: taken.into_iter().peekable(),
            next: 0,
        }
    }

    pub(super) fn take(&mut self) -> u32 {
        while let Some(taken) = self.taken.next_if(|taken| *taken <= self.next) {
            self.next = self.next.max(taken + 1);
        }
        self.next += 1;
        self.next - 1
    }
}
