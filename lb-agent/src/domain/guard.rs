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
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use super::{
    backend::{CatalogHealth, Instance, InstanceId},
    snapshot::Held,
};

/// What one service's catalog is believed to hold. One per service; starts out empty.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    admitted: BTreeMap<InstanceId, Admitted>,
}

#[derive(Clone, Debug)]
struct Admitted {
    instance: Instance,
    held: Option<Held>,
}

impl Guard {
    /// A guard that continues from what a former run of the agent had in force, so that an empty
    /// first answer after a restart is not believed either. Holds do not outlive a restart: an
    /// instance that is still missing is held anew.
    pub fn restored(instances: Vec<Instance>) -> Self {
        let admitted = instances
            .into_iter()
            .map(|instance| {
                let held = None;
                (instance.id.clone(), Admitted { instance, held })
            })
            .collect();
        Self { admitted }
    }

    /// Takes in a listing and answers with the instances to use, by identity, each held one with
    /// its hold. To be called with every listing, and again with the last one when
    /// [`Self::next_deadline`] has come or a probe's verdict has changed.
    ///
    /// `believes_dead` answers whether the agent's own probes have found an instance unhealthy.
    /// `hold` bounds every hold from `now` on, those that run already included; zero turns the
    /// guard off.
    pub fn admit(
        &mut self,
        listed: &[Instance],
        believes_dead: &dyn Fn(&Instance) -> bool,
        now: SystemTime,
        hold: Duration,
    ) -> Vec<(Instance, Option<Held>)> {
        let before = std::mem::take(&mut self.admitted);
        for instance in listed {
            self.admitted
                .entry(instance.id.clone())
                .or_insert_with(|| Admitted {
                    instance: instance.clone(),
                    held: None,
                });
        }

        let addresses: HashSet<SocketAddr> = listed.iter().map(|each| each.address).collect();
        let counts = |each: &&Admitted| {
            let maintenance = matches!(each.instance.health, CatalogHealth::Maintenance(_));
            each.held.is_none() && !maintenance
        };
        let is_missing = |each: &Admitted| {
            !self.admitted.contains_key(&each.instance.id)
                && !addresses.contains(&each.instance.address)
        };
        let total = before.values().filter(counts).count();
        let removed = before
            .values()
            .filter(counts)
            .filter(|each| is_missing(each))
            .count();
        let distrust = removed * 2 > total;

        let held: Vec<Admitted> = before
            .values()
            .filter(|each| is_missing(each) && !believes_dead(&each.instance))
            .filter_map(|each| {
                let held = match &each.held {
                    Some(held) => bounded(held, now, hold),
                    None if distrust && counts(&each) => Held {
                        since: now,
                        until: now + hold,
                    },
                    None => return None,
                };
                (now < held.until).then(|| Admitted {
                    instance: each.instance.clone(),
                    held: Some(held),
                })
            })
            .collect();
        for each in held {
            self.admitted.insert(each.instance.id.clone(), each);
        }

        self.admitted
            .values()
            .map(|each| (each.instance.clone(), each.held.clone()))
            .collect()
    }

    /// When the first hold ends; `None`: nothing is held.
    pub fn next_deadline(&self) -> Option<SystemTime> {
        self.admitted
            .values()
            .filter_map(|each| each.held.as_ref())
            .map(|held| held.until)
            .min()
    }
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
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    /// `a` is instance `a` at port 97 (its character); `a:80` at port 80; `a!` in maintenance.
    fn instance(word: &str) -> Instance {
        let (word, health) = match word.strip_suffix('!') {
            Some(word) => (word, CatalogHealth::Maintenance("by hand".into())),
            None => (word, CatalogHealth::Passing),
        };
        let (id, port) = match word.split_once(':') {
            Some((id, port)) => (id, port.parse().unwrap()),
            None => (word, u16::from(word.as_bytes()[0])),
        };
        Instance {
            id: InstanceId(id.into()),
            address: ([10, 0, 0, 1], port).into(),
            weight: 1,
            tags: vec![],
            meta: BTreeMap::new(),
            subset: None,
            health,
        }
    }

    fn instances(words: &str) -> Vec<Instance> {
        words.split_whitespace().map(instance).collect()
    }

    /// What is in force, held ones in brackets with the seconds since and until.
    fn show(admitted: &[(Instance, Option<Held>)]) -> String {
        let seconds = |time: SystemTime| time.duration_since(at(0)).unwrap().as_secs();
        let words: Vec<String> = admitted
            .iter()
            .map(|(instance, held)| match held {
                None => instance.id.to_string(),
                Some(Held { since, until }) => {
                    format!("[{} {}-{}]", instance.id, seconds(*since), seconds(*until))
                }
            })
            .collect();
        words.join(" ")
    }

    /// Second, what is listed, which ones our probes believe dead, what is in force then.
    type Step = (u64, &'static str, &'static str, &'static str);

    fn play(name: &str, mut guard: Guard, steps: &[Step]) {
        for (index, (second, listed, dead, expected)) in steps.iter().enumerate() {
            let believes_dead =
                |each: &Instance| dead.split_whitespace().any(|word| word == each.id.0);
            let admitted = guard.admit(&instances(listed), &believes_dead, at(*second), HOLD);
            assert_eq!(show(&admitted), *expected, "{name}, step {index}");
            let first = admitted
                .iter()
                .filter_map(|(_, held)| held.as_ref().map(|held| held.until))
                .min();
            assert_eq!(guard.next_deadline(), first, "{name}, step {index}");
        }
    }

    /// Every rule of the module's head, as a story told in listings.
    #[test]
    fn listings_and_what_is_made_of_them() {
        let stories: &[(&str, &[Step])] = &[
            (
                "an empty service stays empty",
                &[(0, "", "", ""), (1, "", "", "")],
            ),
            (
                "additions act at once",
                &[(0, "a", "", "a"), (1, "b a", "", "a b")],
            ),
            (
                "one of one is all: held until the hold ends, not a second longer",
                &[
                    (0, "a", "", "a"),
                    (5, "", "", "[a 5-605]"),
                    (604, "", "", "[a 5-605]"),
                    (605, "", "", ""),
                ],
            ),
            (
                "half acts at once",
                &[(0, "a b", "", "a b"), (1, "a", "", "a")],
            ),
            (
                "more than half is held",
                &[
                    (0, "a b c", "", "a b c"),
                    (1, "a", "", "a [b 1-601] [c 1-601]"),
                ],
            ),
            (
                "halving twice acts twice: each listing is compared with the one before",
                &[
                    (0, "a b c d", "", "a b c d"),
                    (1, "a b", "", "a b"),
                    (2, "a", "", "a"),
                    (3, "", "", "[a 3-603]"),
                ],
            ),
            (
                "listed again: the hold is over",
                &[
                    (0, "a b", "", "a b"),
                    (1, "", "", "[a 1-601] [b 1-601]"),
                    (2, "a", "", "a [b 1-601]"),
                    (3, "a b", "", "a b"),
                ],
            ),
            (
                "held ones are no part of what later removals are measured by",
                &[
                    (0, "a b c", "", "a b c"),
                    (1, "a", "", "a [b 1-601] [c 1-601]"),
                    (9, "", "", "[a 9-609] [b 1-601] [c 1-601]"),
                    (601, "", "", "[a 9-609]"),
                ],
            ),
            (
                "nor do they turn a small removal into a large one",
                &[
                    (0, "a b c d e", "", "a b c d e"),
                    (1, "a b", "", "a b [c 1-601] [d 1-601] [e 1-601]"),
                    (2, "a", "", "a [c 1-601] [d 1-601] [e 1-601]"),
                ],
            ),
            (
                "our own probes let go, at once or later",
                &[
                    (0, "a b c", "", "a b c"),
                    (1, "", "c", "[a 1-601] [b 1-601]"),
                    (2, "", "a c", "[b 1-601]"),
                    (3, "", "", "[b 1-601]"),
                    (4, "", "b", ""),
                ],
            ),
            (
                "an instance that is listed stays, whatever the probes say",
                &[(0, "a", "a", "a")],
            ),
            (
                "new instances do not make up for lost ones",
                &[
                    (0, "a b", "", "a b"),
                    (1, "c d", "", "[a 1-601] [b 1-601] c d"),
                ],
            ),
            (
                "the same address under a new identity is a renaming",
                &[(0, "a:80 b:81", "", "a b"), (1, "x:80 y:81", "", "x y")],
            ),
            (
                "a held address that comes back under a new identity ends the hold",
                &[
                    (0, "a:80", "", "a"),
                    (1, "", "", "[a 1-601]"),
                    (2, "x:80", "", "x"),
                ],
            ),
            (
                "maintenance is a person's word: it goes at once",
                &[(0, "a!", "", "a"), (1, "", "", "")],
            ),
            (
                "and it is no part of what others are measured by",
                &[
                    (0, "a b! c!", "", "a b c"),
                    (1, "b! c!", "", "[a 1-601] b c"),
                ],
            ),
            (
                "a clock set back does not stretch a hold",
                &[
                    (500, "a", "", "a"),
                    (510, "", "", "[a 510-1110]"),
                    (10, "", "", "[a 10-610]"),
                    (609, "", "", "[a 10-610]"),
                    (610, "", "", ""),
                ],
            ),
            (
                "a clock set forward ends it",
                &[
                    (0, "a", "", "a"),
                    (1, "", "", "[a 1-601]"),
                    (9999, "", "", ""),
                ],
            ),
            (
                "an identity listed twice counts once",
                &[(0, "a a b", "", "a b"), (1, "b", "", "b")],
            ),
        ];
        for (name, steps) in stories {
            play(name, Guard::default(), steps);
        }
    }

    /// After a restart the first answer is measured by what was in force before.
    #[test]
    fn a_restart_does_not_make_the_guard_forget() {
        let restored = || Guard::restored(instances("a b c"));
        assert_eq!(restored().next_deadline(), None);
        play(
            "empty first answer",
            restored(),
            &[(0, "", "", "[a 0-600] [b 0-600] [c 0-600]")],
        );
        play("small removal", restored(), &[(0, "a b", "", "a b")]);
    }

    /// An instance that returns at another address is used there.
    #[test]
    fn relisting_brings_the_new_address() {
        let mut guard = Guard::default();
        let alive = |_: &Instance| false;
        guard.admit(&instances("a:80"), &alive, at(0), HOLD);
        guard.admit(&[], &alive, at(1), HOLD);
        let admitted = guard.admit(&instances("a:8080"), &alive, at(2), HOLD);
        assert_eq!(admitted, [(instance("a:8080"), None)]);
    }

    /// Someone who sets the hold to zero wants the catalog believed as it is; a hold that was
    /// shortened ends accordingly.
    #[test]
    fn the_hold_is_the_caller_s() {
        let mut guard = Guard::default();
        let alive = |_: &Instance| false;
        guard.admit(&instances("a b"), &alive, at(0), HOLD);
        guard.admit(&[], &alive, at(1), HOLD);
        guard.admit(&[], &alive, at(2), Duration::from_secs(5));
        assert_eq!(guard.next_deadline(), Some(at(7)));
        assert!(guard.admit(&[], &alive, at(3), Duration::ZERO).is_empty());
    }
}
