//! Where the kernel holds something else than was written there last: somebody else wrote, or took
//! a program off. And the steps that mend it, in the order of every plan.

use std::{collections::BTreeSet, fmt, net::IpAddr, time::SystemTime};

use super::{
    kernel::{KernelView, Step, VipKey},
    plan::advance,
};

/// A place that differs, and what stands there in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The place.
    pub place: Place,
    /// What differs, for people.
    pub text: String,
}

impl Difference {
    /// A difference at `place`.
    pub fn new(place: Place, text: impl Into<String>) -> Self {
        Self {
            place,
            text: text.into(),
        }
    }
}

/// Where the kernel can differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The entry of a VIP.
    Vip(VipKey),
    /// A VIP that nobody asked for.
    ForeignVip(VipKey),
    /// The entry of a backend.
    Backend(u32),
    /// A backend that nobody asked for.
    ForeignBackend(u32),
    /// The Maglev table of a service.
    Table(u32),
    /// The sources that a service admits.
    Sources(u32),
    /// What packets are looked at, or which addresses are the node's VIPs.
    Filter,
    /// The next hop of an address.
    Hop(IpAddr),
    /// Rules or pages of the block list.
    Blocks,
    /// Exceptions from it.
    Allowed,
    /// A program on an interface or a cgroup, by the name of its pin.
    Program(String),
    /// The programs that others jump to, by the name of their map.
    Detour(&'static str),
}

impl Place {
    /// Its kind, as metrics call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Place::Vip(_) | Place::ForeignVip(_) => "service",
            Place::Backend(_) | Place::ForeignBackend(_) => "backend",
            Place::Table(_) => "maglev",
            Place::Sources(_) => "sources",
            Place::Filter => "filter",
            Place::Hop(_) => "next_hop",
            Place::Blocks => "block",
            Place::Allowed => "allow",
            Place::Program(_) | Place::Detour(_) => "program",
        }
    }

    /// All kinds.
    pub const KINDS: [&'static str; 9] = [
        "allow", "backend", "block", "filter", "maglev", "next_hop", "program", "service",
        "sources",
    ];

    /// The step of a plan that mends it; `None`: it is mended by itself.
    fn step(&self, view: &KernelView) -> Option<Step> {
        Some(match self {
            Place::Vip(key) => Step::PutVip(*key, *view.vips.get(key)?),
            Place::ForeignVip(key) => Step::DeleteVip(*key),
            Place::Backend(id) => Step::PutBackend(*id, *view.backends.get(id)?),
            Place::ForeignBackend(id) => Step::FreeBackend(*id),
            Place::Table(id) => Step::PutTable(*id, view.tables.get(id)?.clone()),
            Place::Sources(id) => {
                Step::PutSources(*id, view.sources.get(id).cloned().unwrap_or_default())
            }
            _ => return None,
        })
    }
}

/// The steps that mend what steps can, ordered as a plan's: what is referred to goes in before what
/// refers to it, and goes out after it.
pub fn mend(differences: &[Difference], view: &KernelView) -> Vec<Step> {
    let order = |step: &Step| match step {
        Step::PutBackend(..) => 0,
        Step::PutSources(..) => 1,
        Step::PutTable(..) => 2,
        Step::PutVip(..) => 3,
        Step::DeleteVip(_) => 4,
        _ => 5,
    };
    let places: BTreeSet<&Place> = differences.iter().map(|one| &one.place).collect();
    let mut steps: Vec<Step> = places.iter().filter_map(|place| place.step(view)).collect();
    steps.sort_by_key(order);
    steps
}

/// What a mirror would be after `steps`: mending changes nothing that is wanted.
pub fn is_faithful(view: &KernelView, steps: &[Step]) -> bool {
    let mut after = view.clone();
    steps.iter().for_each(|step| advance(&mut after, step));
    after == *view
}

/// A share of all that can be compared, so that no look takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which one, below `count`.
    pub index: u32,
    /// Into how many everything is divided.
    pub count: u32,
}

impl Part {
    /// All at once.
    pub const ALL: Self = Self { index: 0, count: 1 };

    /// Of the numbers below `all`, those that belong to it.
    pub fn range(self, all: u32) -> std::ops::Range<u32> {
        let bound = |index: u32| (u64::from(all) * u64::from(index) / u64::from(self.count)) as u32;
        bound(self.index)..bound(self.index + 1)
    }

    /// Whether a number belongs to it, of however many.
    pub fn has(self, number: u32) -> bool {
        number % self.count == self.index
    }

    /// The next one.
    pub fn next(self) -> Self {
        let index = (self.index + 1) % self.count;
        Self { index, ..self }
    }
}

/// What was found and mended since the agent started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DriftRecord {
    /// By kind: how many differences were mended.
    pub repairs: std::collections::BTreeMap<&'static str, u64>,
    /// The latest of them, in words, and when.
    pub last: Option<(SystemTime, String)>,
    /// When everything had been compared last.
    pub compared: Option<SystemTime>,
    /// What could not be mended, each a sentence.
    pub problems: Vec<String>,
}

impl DriftRecord {
    /// All repairs.
    pub fn total(&self) -> u64 {
        self.repairs.values().sum()
    }

    /// Counts a repair.
    pub fn note(&mut self, difference: &Difference, now: SystemTime) {
        *self.repairs.entry(difference.place.kind()).or_default() += 1;
        self.last = Some((now, difference.text.clone()));
    }
}

impl fmt::Display for DriftRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self
            .repairs
            .iter()
            .map(|(kind, count)| format!("{kind}={count}"))
            .collect();
        f.write_str(&kinds.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::kernel::{KernelBackend, KernelVip, Recipe, Treatment};

    fn view() -> (KernelView, VipKey) {
        let key = VipKey {
            address: "198.51.100.10:80".parse().unwrap(),
            protocol: 6,
        };
        let mut view = KernelView::default();
        let vip = KernelVip {
            service: 3,
            slots: 4093,
            treatment: Treatment::default(),
        };
        view.vips.insert(key, vip);
        let backend = KernelBackend {
            service: 3,
            address: "10.1.0.2:80".parse().unwrap(),
            active: true,
        };
        view.backends.insert(7, backend);
        let weights = vec![(7, 1)];
        view.tables.insert(
            3,
            Recipe {
                weights,
                slots: 4093,
            },
        );
        (view, key)
    }

    /// Whatever order the differences are found in; each once, and nothing wanted is changed.
    #[test]
    fn differences_are_mended_in_the_order_of_a_plan() {
        let (view, key) = view();
        let foreign = VipKey {
            protocol: 17,
            ..key
        };
        let places = [
            Place::ForeignBackend(9),
            Place::ForeignVip(foreign),
            Place::Filter,
            Place::Vip(key),
            Place::Table(3),
            Place::Backend(7),
            Place::Backend(7),
            Place::Program("xdp_native_3".into()),
            // Nothing is known of it: it is left to the plan.
            Place::Table(8),
        ];
        let differences = places.map(|place| Difference::new(place, "x"));
        let steps = mend(&differences, &view);
        assert_eq!(
            steps,
            [
                Step::PutBackend(7, view.backends[&7]),
                Step::PutTable(3, view.tables[&3].clone()),
                Step::PutVip(key, view.vips[&key]),
                Step::DeleteVip(foreign),
                Step::FreeBackend(9),
            ]
        );
        assert!(is_faithful(&view, &steps));
    }

    #[test]
    fn parts_cover_everything_once() {
        let mut part = Part { index: 0, count: 7 };
        let (mut ranged, mut had) = (Vec::new(), Vec::new());
        for _ in 0..7 {
            ranged.extend(part.range(100));
            had.extend((0..100).filter(|number| part.has(*number)));
            part = part.next();
        }
        had.sort_unstable();
        let all: Vec<u32> = (0..100).collect();
        assert_eq!((ranged, had, part.index), (all.clone(), all, 0));
        assert_eq!(Part::ALL.range(5), 0..5);
    }

    #[test]
    fn repairs_are_counted_by_kind_and_every_kind_is_known() {
        let mut record = DriftRecord::default();
        let now = SystemTime::UNIX_EPOCH;
        for place in [Place::Blocks, Place::Table(1), Place::Table(2)] {
            assert!(Place::KINDS.contains(&place.kind()));
            record.note(&Difference::new(place, "gone"), now);
        }
        assert_eq!(record.to_string(), "block=1 maglev=2");
        assert_eq!(record.total(), 3);
        assert_eq!(record.last, Some((now, "gone".into())));
    }
}
