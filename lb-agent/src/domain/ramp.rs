//! Slow start: a backend that comes, or comes back from illness, takes its full share step by
//! step: caches and pools are cold, and whatever brought it down may still be there.
//!
//! Never at boot: what a service begins with has its full share at once, and so has what an
//! operator puts back by hand.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::passive::Member;

/// Into how many steps the way to the full share is divided. Each is a new Maglev table.
pub const STEPS: u32 = 10;

/// The backends of one service, by how far each has come.
#[derive(Clone, Debug, Default)]
pub struct Ramps {
    members: BTreeMap<Member, Standing>,
    /// The service has had backends before.
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Out for reasons of health.
    Ill,
    /// On its way since then.
    Rising(SystemTime),
    /// All the way up.
    Full,
}

impl Ramps {
    /// Takes in the backends there are at `now`, each with whether it is ill.
    pub fn update(&mut self, members: &[(Member, bool)], length: Duration, now: SystemTime) {
        let former = std::mem::take(&mut self.members);
        let begun = self.begun;
        self.begun |= !members.is_empty();
        self.members = members
            .iter()
            .map(|(member, ill)| {
                let standing = match (former.get(member), ill) {
                    (_, true) => Standing::Ill,
                    (None, false) if !begun => Standing::Full,
                    (None | Some(Standing::Ill), false) => Standing::Rising(now),
                    // A clock that was set back must not stretch it.
                    (Some(Standing::Rising(since)), false) => Standing::Rising((*since).min(now)),
                    (Some(Standing::Full), false) => Standing::Full,
                };
                let standing = match standing {
                    Standing::Rising(since) if steps(since, length, now) >= STEPS => Standing::Full,
                    other => other,
                };
                (member.clone(), standing)
            })
            .collect();
    }

    /// How many of [`STEPS`] parts of its share a backend takes at `now`; `None`: all of it.
    pub fn part(&self, member: &Member, length: Duration, now: SystemTime) -> Option<u32> {
        match self.members.get(member) {
            Some(Standing::Rising(since)) => {
                Some(steps(*since, length, now)).filter(|steps| *steps < STEPS)
            }
            _ => None,
        }
    }

    /// When the next step is due.
    pub fn next_deadline(&self, length: Duration, now: SystemTime) -> Option<SystemTime> {
        let rising = self.members.values().filter_map(|standing| match standing {
            Standing::Rising(since) => Some(*since + length * steps(*since, length, now) / STEPS),
            _ => None,
        });
        rising.min()
    }
}

/// Steps done: one at once, then one each tenth of `length`.
fn steps(since: SystemTime, length: Duration, now: SystemTime) -> u32 {
    let gone = now.duration_since(since).unwrap_or_default();
    if gone >= length {
        return STEPS;
    }
    // Less than STEPS, for `gone` is less than `length`.
    let done = gone.as_millis() * u128::from(STEPS) / length.as_millis().max(1);
    1 + u32::try_from(done).unwrap_or(STEPS).min(STEPS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::backend::InstanceId;

    const LENGTH: Duration = Duration::from_secs(30);

    fn at(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH
            + Duration::from_secs(1_000_000)
            + Duration::from_millis(milliseconds)
    }

    fn member(letter: char) -> Member {
        (
            InstanceId(letter.to_string().into()),
            ([10, 0, 0, 1], letter as u16).into(),
        )
    }

    /// Small letters are well, capitals ill.
    fn members(letters: &str) -> Vec<(Member, bool)> {
        let letters = letters.chars();
        letters
            .map(|letter| {
                (
                    member(letter.to_ascii_lowercase()),
                    letter.is_ascii_uppercase(),
                )
            })
            .collect()
    }

    /// Millisecond, who is there, and the part of each that is not at its full share.
    type Step = (u64, &'static str, &'static str);

    #[test]
    fn who_starts_slowly() {
        let stories: &[(&str, &[Step])] = &[
            ("never at boot", &[(0, "ab", ""), (10, "ab", "")]),
            (
                "nor at the first listing, be it late",
                &[(0, "", ""), (99, "ab", "")],
            ),
            (
                "who comes later does, in ten steps",
                &[
                    (0, "a", ""),
                    (1000, "ab", "b1"),
                    (3999, "ab", "b1"),
                    (4000, "ab", "b2"),
                    (15_999, "ab", "b5"),
                    (27_999, "ab", "b9"),
                    (28_000, "ab", ""),
                    (99_000, "ab", ""),
                ],
            ),
            (
                "who was ill does",
                &[
                    (0, "ab", ""),
                    (1000, "aB", ""),
                    (9000, "ab", "b1"),
                    (12_000, "ab", "b2"),
                ],
            ),
            (
                "ill from boot and well then: that is a return",
                &[(0, "aB", ""), (500, "ab", "b1")],
            ),
            (
                "ill again on the way: it begins anew",
                &[
                    (0, "a", ""),
                    (1, "ab", "b1"),
                    (9001, "ab", "b4"),
                    (9002, "aB", ""),
                    (9003, "ab", "b1"),
                ],
            ),
            (
                "a clock set back lets it begin anew, no later",
                &[
                    (60_000, "a", ""),
                    (60_001, "ab", "b1"),
                    (10, "ab", "b1"),
                    (3010, "ab", "b2"),
                ],
            ),
            (
                "gone and back is new",
                &[(0, "ab", ""), (1, "a", ""), (2, "ab", "b1")],
            ),
        ];
        for (name, steps) in stories {
            let mut ramps = Ramps::default();
            for (millisecond, letters, expected) in *steps {
                let (list, now) = (members(letters), at(*millisecond));
                ramps.update(&list, LENGTH, now);
                let parts: Vec<String> = letters
                    .chars()
                    .filter_map(|letter| {
                        let part = ramps.part(&member(letter), LENGTH, now)?;
                        Some(format!("{letter}{part}"))
                    })
                    .collect();
                assert_eq!(parts.join(" "), *expected, "{name}, at {millisecond}");
            }
        }
    }

    /// The deadline is the very moment at which the part grows, from the first step to the last.
    #[test]
    fn deadlines_are_steps() {
        let mut ramps = Ramps::default();
        ramps.update(&members("a"), LENGTH, at(0));
        assert_eq!(ramps.next_deadline(LENGTH, at(0)), None);
        ramps.update(&members("ab"), LENGTH, at(7));
        let mut now = at(7);
        let mut seen = Vec::new();
        while let Some(next) = ramps.next_deadline(LENGTH, now) {
            let part = ramps.part(&member('b'), LENGTH, now).unwrap();
            let before = next - Duration::from_millis(1);
            assert_eq!(ramps.part(&member('b'), LENGTH, before), Some(part));
            seen.push(part);
            now = next;
            ramps.update(&members("ab"), LENGTH, now);
        }
        assert_eq!(seen, (1..STEPS).collect::<Vec<_>>());
        assert_eq!(now, at(7) + LENGTH * 9 / 10, "the tenth part is all");
        assert_eq!(ramps.part(&member('b'), LENGTH, now), None);
    }

    #[test]
    fn no_length_is_no_slow_start() {
        let mut ramps = Ramps::default();
        ramps.update(&members("a"), Duration::ZERO, at(0));
        ramps.update(&members("ab"), Duration::ZERO, at(1));
        assert_eq!(ramps.part(&member('b'), Duration::ZERO, at(1)), None);
        assert_eq!(ramps.next_deadline(Duration::ZERO, at(1)), None);
    }
}
