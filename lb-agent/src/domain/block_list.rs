//! All rules of the block list, a million of them if need be: what people added one by one, and
//! imported lists, which are kept sorted and compact (5 bytes for an IPv4 rule, 17 for IPv6).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::SystemTime,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::block::{BlockRule, Origin};

/// What the rules of one import have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Why; may be empty.
    pub reason: String,
    /// Since when.
    pub added: SystemTime,
    /// When they end by themselves; `None`: never.
    pub expires: Option<SystemTime>,
}

/// The rules of one import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What they have in common.
    pub terms: Terms,
    /// Sorted, each once.
    v4: Vec<Ipv4Net>,
    /// Sorted, each once.
    v6: Vec<Ipv6Net>,
}

impl Section {
    /// A section of these prefixes.
    pub fn new(terms: Terms, prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(prefix) => v4.push(prefix),
                IpNet::V6(prefix) => v6.push(prefix),
            }
        }
        v4.sort_unstable();
        v4.dedup();
        v4.shrink_to_fit();
        v6.sort_unstable();
        v6.dedup();
        v6.shrink_to_fit();
        Self { terms, v4, v6 }
    }

    /// Its prefixes, IPv4 first.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        let v4 = self.v4.iter().copied().map(IpNet::V4);
        v4.chain(self.v6.iter().copied().map(IpNet::V6))
    }

    fn after(&self, prefix: Option<IpNet>) -> impl Iterator<Item = IpNet> + '_ {
        let (from4, from6) = match prefix {
            None => (0, 0),
            Some(IpNet::V4(last)) => (self.v4.partition_point(|each| *each <= last), 0),
            Some(IpNet::V6(last)) => {
                let from6 = self.v6.partition_point(|each| *each <= last);
                (self.v4.len(), from6)
            }
        };
        let v4 = self.v4[from4..].iter().copied().map(IpNet::V4);
        v4.chain(self.v6[from6..].iter().copied().map(IpNet::V6))
    }

    fn contains(&self, prefix: &IpNet) -> bool {
        match prefix {
            IpNet::V4(prefix) => self.v4.binary_search(prefix).is_ok(),
            IpNet::V6(prefix) => self.v6.binary_search(prefix).is_ok(),
        }
    }

    fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    fn rule(&self, prefix: IpNet) -> BlockRule {
        BlockRule {
            prefix,
            reason: self.terms.reason.clone(),
            added: self.terms.added,
            expires: self.terms.expires,
            origin: Origin::Import,
        }
    }

    fn is_over(&self, now: SystemTime) -> bool {
        self.terms.expires.is_some_and(|at| at <= now)
    }
}

/// What was imported. Never changed, only replaced, so that it can be saved while it is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Tells one list from another; what is saved of deletions belongs to one of them.
    pub id: u64,
    /// No prefix is in two of them.
    pub sections: Vec<Section>,
}

/// All rules. No prefix has two of this node's.
#[derive(Clone, Debug, Default)]
pub struct BlockRules {
    /// By [`Origin::Operator`].
    operator: BTreeMap<IpNet, BlockRule>,
    imported: Arc<Imported>,
    /// Prefixes of `imported` that no longer come from there.
    unlisted: BTreeSet<IpNet>,
    /// By [`Origin::Fleet`]. A prefix may have such a rule beside one of the others.
    fleet: BTreeMap<IpNet, BlockRule>,
}

impl BlockRules {
    /// Rules as they were saved.
    pub fn new(
        operator: impl IntoIterator<Item = BlockRule>,
        imported: Arc<Imported>,
        unlisted: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        let mut rules = Self {
            imported,
            ..Self::default()
        };
        for prefix in unlisted {
            rules.unlist(prefix);
        }
        for rule in operator {
            rules.insert(rule);
        }
        rules
    }

    /// What people added.
    pub fn operator(&self) -> impl Iterator<Item = &BlockRule> {
        self.operator.values()
    }

    /// What was imported, [`Self::unlisted`] included.
    pub fn imported(&self) -> &Arc<Imported> {
        &self.imported
    }

    /// Prefixes of [`Self::imported`] that do not count any more.
    pub fn unlisted(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.unlisted.iter().copied()
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        let imported: usize = self.imported.sections.iter().map(Section::len).sum();
        let alone = self
            .fleet
            .keys()
            .filter(|prefix| !self.contains_own(prefix));
        self.operator.len() + imported - self.unlisted.len() + alone.count()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn section_of(&self, prefix: &IpNet) -> Option<&Section> {
        if self.unlisted.contains(prefix) {
            return None;
        }
        let mut sections = self.imported.sections.iter();
        sections.find(|section| section.contains(prefix))
    }

    /// The rule of a prefix.
    pub fn get(&self, prefix: &IpNet) -> Option<BlockRule> {
        let imported = || self.section_of(prefix).map(|section| section.rule(*prefix));
        let fleet = || self.fleet.get(prefix).cloned();
        self.operator
            .get(prefix)
            .cloned()
            .or_else(fleet)
            .or_else(imported)
    }

    /// Whether the prefix has a rule.
    pub fn contains(&self, prefix: &IpNet) -> bool {
        self.fleet.contains_key(prefix) || self.contains_own(prefix)
    }

    /// Whether the prefix has a rule of this node's.
    pub fn contains_own(&self, prefix: &IpNet) -> bool {
        self.operator.contains_key(prefix) || self.section_of(prefix).is_some()
    }

    fn unlist(&mut self, prefix: IpNet) -> bool {
        self.section_of(&prefix).is_some() && self.unlisted.insert(prefix)
    }

    /// Adds a rule of a person's, in the place of one that there may be.
    pub fn insert(&mut self, rule: BlockRule) {
        self.unlist(rule.prefix);
        self.operator.insert(rule.prefix, rule);
    }

    /// What holds for the whole fleet.
    pub fn fleet(&self) -> &BTreeMap<IpNet, BlockRule> {
        &self.fleet
    }

    /// Puts other rules in the place of those for the whole fleet; answers with the former.
    pub fn set_fleet(&mut self, rules: BTreeMap<IpNet, BlockRule>) -> BTreeMap<IpNet, BlockRule> {
        std::mem::replace(&mut self.fleet, rules)
    }

    /// Removes this node's rule of a prefix; whether there was one.
    pub fn remove(&mut self, prefix: &IpNet) -> bool {
        self.operator.remove(prefix).is_some() || self.unlist(*prefix)
    }

    /// The rules that there are with another list in the place of all imported ones, or
    /// (`replace` is false) beside them. What people added stays as it is.
    #[must_use]
    pub fn with_import(&self, id: u64, mut section: Section, replace: bool) -> Self {
        let is_new = |prefix: &IpNet| !self.operator.contains_key(prefix);
        section.v4.retain(|prefix| is_new(&IpNet::V4(*prefix)));
        section.v6.retain(|prefix| is_new(&IpNet::V6(*prefix)));
        let mut sections = Vec::new();
        if !replace {
            for former in &self.imported.sections {
                let kept = former
                    .prefixes()
                    .filter(|prefix| !section.contains(prefix) && !self.unlisted.contains(prefix));
                sections.push(Section::new(former.terms.clone(), kept));
            }
        }
        sections.push(section);
        sections.retain(|section| section.len() > 0);
        Self {
            operator: self.operator.clone(),
            imported: Arc::new(Imported { id, sections }),
            unlisted: BTreeSet::new(),
            fleet: self.fleet.clone(),
        }
    }

    /// Removes what has come to its end; answers with the prefixes.
    pub fn take_expired(&mut self, id: u64, now: SystemTime) -> Vec<IpNet> {
        let is_over = |rule: &&BlockRule| rule.expires.is_some_and(|at| at <= now);
        let due = self
            .operator
            .values()
            .filter(is_over)
            .map(|rule| rule.prefix);
        let mut due: Vec<IpNet> = due.collect();
        for prefix in &due {
            self.operator.remove(prefix);
        }
        let over: Vec<IpNet> = self
            .fleet
            .values()
            .filter(is_over)
            .map(|rule| rule.prefix)
            .collect();
        for prefix in over {
            self.fleet.remove(&prefix);
            due.push(prefix);
        }
        if self
            .imported
            .sections
            .iter()
            .any(|section| section.is_over(now))
        {
            let mut sections = self.imported.sections.clone();
            for over in sections.extract_if(.., |section| section.is_over(now)) {
                let listed = over.prefixes().filter(|each| !self.unlisted.contains(each));
                due.extend(listed);
                let ended: Vec<IpNet> = over.prefixes().collect();
                for prefix in &ended {
                    self.unlisted.remove(prefix);
                }
            }
            self.imported = Arc::new(Imported { id, sections });
        }
        // Another rule may still want it.
        due.retain(|prefix| !self.contains(prefix));
        due.sort_unstable();
        due.dedup();
        due
    }

    /// When the next rule ends by itself.
    pub fn next_expiry(&self) -> Option<SystemTime> {
        let sections = self.imported.sections.iter();
        let imported = sections.filter_map(|section| section.terms.expires);
        let operator = self.operator.values().filter_map(|rule| rule.expires);
        let fleet = self.fleet.values().filter_map(|rule| rule.expires);
        operator.chain(imported).chain(fleet).min()
    }

    /// All prefixes, in no particular order.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        let imported = self.imported.sections.iter().flat_map(Section::prefixes);
        let listed = imported.filter(|prefix| !self.unlisted.contains(prefix));
        let fleet = self.fleet.keys().copied();
        let fleet = fleet.filter(|prefix| !self.contains_own(prefix));
        self.operator.keys().copied().chain(listed).chain(fleet)
    }

    /// The `most` rules that follow `prefix` (or the first ones) in the order of prefixes.
    pub fn after(&self, prefix: Option<IpNet>, most: usize) -> Vec<BlockRule> {
        let bounds = (
            prefix.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        let operator = self.operator.range(bounds).map(|(_, rule)| rule.clone());
        let mut rules: Vec<BlockRule> = operator.take(most).collect();
        let fleet = self.fleet.range(bounds).map(|(_, rule)| rule.clone());
        rules.extend(
            fleet
                .filter(|rule| !self.operator.contains_key(&rule.prefix))
                .take(most),
        );
        for section in &self.imported.sections {
            let listed = section.after(prefix);
            let listed = listed.filter(|prefix| {
                !self.unlisted.contains(prefix) && !self.fleet.contains_key(prefix)
            });
            rules.extend(listed.take(most).map(|prefix| section.rule(prefix)));
        }
        rules.sort_by_key(|rule| rule.prefix);
        rules.truncate(most);
        rules
    }
}

#[cfg(test)]
mod tests;
