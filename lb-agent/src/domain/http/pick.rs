//! Which backend a request goes to: the subset by its share, in it the better of two drawn by
//! weight.

/// A backend as far as the choice is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Relative to the others; 0 is never chosen.
    pub weight: u32,
    /// Its subset, as a number. The shares of subsets hold exactly, however quick each is.
    pub group: u32,
}

/// How a backend is at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Its latency in any unit; `None`: not known.
    pub latency: Option<f64>,
    /// Requests under way.
    pub requests: u32,
}

/// The second of two must be better by this factor. Within it they are alike, and the weights
/// alone decide.
const CLEARLY: f64 = 1.3;
/// Drawn twice, as one of two is every other time, it serves unless it is worse than another by this
/// factor: so much slower is only who hangs, or fails.
const FAR: f64 = 10.0;
/// Draws of what was tried already, after which the rest is looked through.
const DRAWS: usize = 4;

/// The candidates, ready for drawing.
#[derive(Clone, Debug, Default)]
pub struct Picker {
    groups: Vec<Group>,
    total: u64,
}

#[derive(Clone, Debug)]
struct Group {
    number: u32,
    /// Index and weight, with the sum of the weights up to here.
    members: Vec<Member>,
    total: u64,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    index: usize,
    weight: u32,
    until: u64,
}

impl Picker {
    /// Prepares `candidates`, which it knows by their place in the list from now on.
    pub fn new(candidates: impl IntoIterator<Item = Candidate>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for (index, Candidate { weight, group }) in candidates.into_iter().enumerate() {
            if weight == 0 {
                continue;
            }
            let place = groups.iter().position(|one| one.number == group);
            let place = place.unwrap_or_else(|| {
                groups.push(Group {
                    number: group,
                    members: Vec::new(),
                    total: 0,
                });
                groups.len() - 1
            });
            let group = &mut groups[place];
            group.total += u64::from(weight);
            let until = group.total;
            group.members.push(Member {
                index,
                weight,
                until,
            });
        }
        let total = groups.iter().map(|group| group.total).sum();
        Self { groups, total }
    }

    /// Nothing can be chosen.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Chooses one that `tried` does not exclude. `random` gives any 64 bits.
    pub fn pick(
        &self,
        mut random: impl FnMut() -> u64,
        load: impl Fn(usize) -> Load,
        tried: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let group = match self.groups.as_slice() {
            [] => return None,
            [one] => one,
            many => by_weight(random(), many.iter().map(|group| (group.total, group)))?,
        };
        if let [only] = group.members.as_slice()
            && !tried(only.index)
        {
            return Some(only.index);
        }
        let mut drawn: Option<Member> = None;
        for _ in 0..DRAWS {
            let member = group.draw(random());
            if tried(member.index) {
                continue;
            }
            let Some(first) = drawn else {
                drawn = Some(member);
                continue;
            };
            if first.index != member.index {
                return Some(group.better(first, member, CLEARLY, &load).index);
            }
            let others = group
                .members
                .iter()
                .filter(|other| other.index != first.index && !tried(other.index));
            let other = by_weight(random(), others.map(|other| (other.weight.into(), *other)));
            return Some(other.map_or(first.index, |other| {
                group.better(first, other, FAR, &load).index
            }));
        }
        let drawn = drawn.map(|member| member.index);
        drawn.or_else(|| self.rest(random(), tried))
    }

    /// Any that is left, of whichever group.
    fn rest(&self, random: u64, tried: impl Fn(usize) -> bool) -> Option<usize> {
        let members = self.groups.iter().flat_map(|group| &group.members);
        let left = members.filter(|member| !tried(member.index));
        by_weight(
            random,
            left.map(|member| (member.weight.into(), member.index)),
        )
    }
}

impl Group {
    fn draw(&self, random: u64) -> Member {
        let at = below(random, self.total);
        let place = self.members.partition_point(|member| member.until <= at);
        self.members[place]
    }

    /// The first, unless the second is better by `factor`. Requests under way count by weight: twice
    /// the weight bears twice of them.
    fn better(
        &self,
        first: Member,
        second: Member,
        factor: f64,
        load: &impl Fn(usize) -> Load,
    ) -> Member {
        let (one, other) = (load(first.index), load(second.index));
        let mean = self.total as f64 / self.members.len() as f64;
        let burden = |load: Load, member: Member| {
            1.0 + f64::from(load.requests) * mean / f64::from(member.weight)
        };
        let latency = match (one.latency, other.latency) {
            (Some(one), Some(other)) => one / other,
            _ => 1.0,
        };
        let ratio = latency * burden(one, first) / burden(other, second);
        if ratio > factor { second } else { first }
    }
}

/// One of these, drawn by the weight before it; `None` where there is none, or no weight.
fn by_weight<T>(random: u64, all: impl Iterator<Item = (u64, T)> + Clone) -> Option<T> {
    let total = all.clone().map(|(weight, _)| weight).sum();
    let mut at = below(random, total);
    let mut all = all;
    let drawn = all.find(|(weight, _)| {
        let here = at < *weight;
        at = at.wrapping_sub(*weight);
        here
    });
    drawn.map(|(_, one)| one)
}

/// A number below `bound` from 64 random bits (Lemire's reduction); 0 below 0.
fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Load = Load {
        latency: None,
        requests: 0,
    };

    /// SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014).
    fn bits(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    fn picker(of: &[(u32, u32)]) -> Picker {
        Picker::new(
            of.iter()
                .map(|&(weight, group)| Candidate { weight, group }),
        )
    }

    fn shares(picker: &Picker, count: usize, load: impl Fn(usize) -> Load) -> Vec<f64> {
        const DRAWN: u32 = 100_000;
        let mut random = bits(7);
        let mut taken = vec![0_u32; count];
        for _ in 0..DRAWN {
            taken[picker.pick(&mut random, &load, |_| false).unwrap()] += 1;
        }
        let share = |&taken: &u32| f64::from(taken) / f64::from(DRAWN);
        taken.iter().map(share).collect()
    }

    #[test]
    fn alike_backends_get_their_weight() {
        for (of, expected) in [
            (&[(1, 0), (1, 0)][..], &[0.5, 0.5][..]),
            (&[(1, 0), (3, 0), (0, 0)], &[0.25, 0.75, 0.0]),
            (&[(90, 1), (5, 2), (5, 2)], &[0.9, 0.05, 0.05]),
            (&[(100, 0)], &[1.0]),
        ] {
            let found = shares(&picker(of), of.len(), |_| IDLE);
            for (found, expected) in found.iter().zip(expected) {
                // Four standard deviations of a share of 100,000 draws are below 0.0064.
                assert!((found - expected).abs() < 0.0064, "{found} for {expected}");
            }
        }
    }

    #[test]
    fn load_and_latency_shift_within_a_group_only() {
        let load = |index| Load {
            latency: Some(if index == 0 { 10.0 } else { 1.0 }),
            requests: 0,
        };
        // Of one group: the slow one is taken only where both draws are it.
        let found = shares(&picker(&[(1, 0), (1, 0)]), 2, load);
        assert!((found[0] - 0.25).abs() < 0.0064, "{found:?}");
        // Of two: the shares hold.
        let found = shares(&picker(&[(1, 0), (1, 1)]), 2, load);
        assert!((found[0] - 0.5).abs() < 0.0064, "{found:?}");
        // Requests under way by weight: three on weight 3 are as one on weight 1.
        let load = |index| Load {
            latency: None,
            requests: [1, 3][index],
        };
        let found = shares(&picker(&[(1, 0), (3, 0)]), 2, load);
        assert!((found[0] - 0.25).abs() < 0.0064, "{found:?}");
    }

    #[test]
    fn what_was_tried_is_left_out() {
        let mut random = bits(3);
        let of = picker(&[(1000, 0), (1, 0), (1, 1), (0, 1)]);
        for _ in 0..1000 {
            let chosen = of.pick(&mut random, |_| IDLE, |index| index != 2);
            assert_eq!(chosen, Some(2));
        }
        assert_eq!(of.pick(&mut random, |_| IDLE, |index| index < 3), None);
        assert!(picker(&[(0, 0)]).is_empty());
        assert_eq!(picker(&[]).pick(&mut random, |_| IDLE, |_| false), None);
    }
}
