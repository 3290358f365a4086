//! The emptiness guard: a catalog that suddenly forgets most of a service is not believed.
//!
//! A restored Consul server and a lost ACL token both answer `200` with an empty list. So when
//! all, or more than half, of a service's backends vanish between two listings, the missing ones
//! are *held*: they stay in use until they are listed again, until our own probes say that they
//! are dead, or until the hold ends. Removals of up to half act at once.
//!
//! What counts:
//!
//! - A listing is compared with what the one before left in force and not yet held. Two removals
//!   of half each, one after the other, therefore both act: the guard is against a catalog that
//!   loses its memory, which it does in one answer, and a window over time would hold back
//!   ordinary scaling down.
//! - New instances make up for nothing. A Consul server restored from an old snapshot lists
//!   instances of yesterday in place of today's; that is no more to be believed than nothing.
//! - An instance whose address is now listed under another identity was renamed, not removed.
//! - An instance last listed in maintenance was taken out by a person. It may go at any time and
//!   says nothing about the others.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    backend::{CatalogHealth, Instance},
    snapshot::Held,
};

/// What one service's catalog is believed to hold. One per service; starts out empty.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// By identity, each once.
    listed: Arc<Vec<Instance>>,
    /// No longer listed; the same.
    held: Vec<(Instance, Held)>,
}

impl Guard {
    /// A guard that continues from what a former run of the agent had in force, so that an empty
    /// first answer after a restart is not believed either. Holds do not outlive a restart: an
    /// instance that is still missing is held anew.
    pub fn restored(instances: Arc<Vec<Instance>>) -> Self {
        Self {
            listed: in_order(&instances),
            held: Vec::new(),
        }
    }

    /// Takes in a listing, which is kept as it is where it is in order. To be called with every
    /// listing, and again with the last one when [`Self::next_deadline`] has come or, while
    /// anything is held, a probe's verdict has changed. (While nothing is held, the same listing
    /// again changes nothing.)
    ///
    /// `believes_dead` answers whether the agent's own probes have found an instance unhealthy.
    /// `hold` bounds every hold from `now` on, those that run already included; zero turns the
    /// guard off.
    pub fn admit(
        &mut self,
        listed: &Arc<Vec<Instance>>,
        believes_dead: &dyn Fn(&Instance) -> bool,
        now: SystemTime,
        hold: Duration,
    ) {
        let before = std::mem::replace(&mut self.listed, in_order(listed));
        let held = std::mem::take(&mut self.held);

        let addresses: HashSet<SocketAddr> = listed.iter().map(|each| each.address).collect();
        let counts = |each: &&Instance| !matches!(each.health, CatalogHealth::Maintenance(_));
        let is_missing = |each: &Instance| {
            let found = self.listed.binary_search_by(|known| known.id.cmp(&each.id));
            found.is_err() && !addresses.contains(&each.address)
        };
        let total = before.iter().filter(counts).count();
        let removed = before
            .iter()
            .filter(counts)
            .filter(|each| is_missing(each))
            .count();
        let distrust = removed * 2 > total;

        let new = before.iter().filter(|each| distrust && counts(each));
        let new = new.map(|each| {
            let held = Held {
                since: now,
                until: now + hold,
            };
            (each.clone(), held)
        });
        let running = held
            .into_iter()
            .map(|(each, held)| (each, bounded(&held, now, hold)));
        let mut all: Vec<(Instance, Held)> = running
            .chain(new)
            .filter(|(each, held)| now < held.until && is_missing(each) && !believes_dead(each))
            .collect();
        all.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        self.held = all;
    }

    /// The instances to use, by identity, each held one with its hold.
    pub fn instances(&self) -> impl Iterator<Item = (&Instance, Option<&Held>)> {
        let mut listed = self.listed.iter().peekable();
        let mut held = self.held.iter().peekable();
        std::iter::from_fn(move || {
            let held_first = match (listed.peek(), held.peek()) {
                (Some(one), Some((other, _))) => other.id < one.id,
                (None, Some(_)) => true,
                _ => false,
            };
            match held_first {
                true => held.next().map(|(instance, held)| (instance, Some(held))),
                false => listed.next().map(|instance| (instance, None)),
            }
        })
    }

    /// The same without the holds, to be saved.
    pub fn admitted(&self) -> Arc<Vec<Instance>> {
        if self.held.is_empty() {
            return self.listed.clone();
        }
        Arc::new(self.instances().map(|(each, _)| each.clone()).collect())
    }

    /// The listing, if nothing beside it is in use.
    pub fn listing(&self) -> Option<&Arc<Vec<Instance>>> {
        self.held.is_empty().then_some(&self.listed)
    }

    /// How many instances are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// When the first hold ends; `None`: nothing is held.
    pub fn next_deadline(&self) -> Option<SystemTime> {
        self.held.iter().map(|(_, held)| held.until).min()
    }
}

/// The listing by identity, each once (the first of its kind counts): itself, where it is so.
fn in_order(listed: &Arc<Vec<Instance>>) -> Arc<Vec<Instance>> {
    if listed.is_sorted_by(|a, b| a.id < b.id) {
        return listed.clone();
    }
    let mut sorted = Vec::clone(listed);
    sorted.sort_by(|a, b| a.id.cmp(&b.id));
    sorted.dedup_by(|b, a| a.id == b.id);
    Arc::new(sorted)
}

/// A running hold, never longer than `hold` from `now`: a clock that was set back must not
/// stretch it.
fn bounded(held: &Held, now: SystemTime, hold: Duration) -> Held {
    Held {
        since: held.since.min(now),
        until: held.until.min(now + hold),
    }
}

#[cfg(test)]
mod tests;
