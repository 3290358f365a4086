//! The block list in the kernel: per family a generation of pages, exceptions, and what rules
//! have dropped beyond their tallies. The structure is described in `lb_common::block`.
//!
//! A rule more or less is written in place, while programs read. A new list, or one that has
//! outgrown its pages, is built off to the side and put in force by one update; rules that stay
//! keep what they have counted.

mod bucket;
mod generation;
mod pages;
mod reader;
mod table;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    net::IpAddr,
    path::Path,
};

use aya::{
    Ebpf,
    maps::{HashMap, LpmTrie, MapData, MapError, lpm_trie::Key},
};
use ipnet::IpNet;
use lb_common::{
    block::RuleKey,
    entry::{Counter, FAMILY_V4, FAMILY_V6},
    maps::{MAX_ALLOW_RULES, name},
};

use self::{bucket::Rule, table::Table};
pub(super) use self::{pages::check_page, table::InForce};
use super::{descriptor, encode, handover, loader::map_error, take};
use crate::domain::{
    drift::{Difference, Place},
    kernel::KernelError,
};

/// The maps of the block list.
pub(crate) struct BlockList {
    v4: Table,
    v6: Table,
    allow4: LpmTrie<MapData, u32, u32>,
    allow6: LpmTrie<MapData, [u32; 4], u32>,
    allowed: BTreeSet<IpNet>,
    spill: HashMap<MapData, RuleKey, Counter>,
}

/// The halves of an address, aligned to the left.
fn halves(ip: IpAddr) -> [u64; 2] {
    match ip {
        IpAddr::V4(v4) => [u64::from(v4.to_bits()) << 32, 0],
        IpAddr::V6(v6) => [(v6.to_bits() >> 64) as u64, v6.to_bits() as u64],
    }
}

fn rule(prefix: &IpNet) -> Rule {
    Rule {
        prefix: halves(prefix.network()),
        len: u32::from(prefix.prefix_len()),
    }
}

/// The reverse of [`rule`].
fn prefix(rule: Rule, v6: bool) -> Option<IpNet> {
    let [high, low] = rule.prefix;
    let ip = if v6 {
        IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into())
    } else {
        IpAddr::V4(((high >> 32) as u32).into())
    };
    IpNet::new(ip, rule.len as u8).ok()
}

fn rule_key(rule: Rule, v6: bool) -> RuleKey {
    RuleKey {
        prefix: rule.prefix,
        len: rule.len,
        family: u32::from(if v6 { FAMILY_V6 } else { FAMILY_V4 }),
    }
}

/// Rules of either family, sorted as they are given.
fn by_family<'a>(prefixes: impl IntoIterator<Item = &'a IpNet>) -> [Vec<Rule>; 2] {
    let mut rules = [Vec::new(), Vec::new()];
    for prefix in prefixes {
        rules[usize::from(prefix.addr().is_ipv6())].push(rule(prefix));
    }
    rules
}

/// The exceptions in the maps.
fn read_allowed(
    allow4: &LpmTrie<MapData, u32, u32>,
    allow6: &LpmTrie<MapData, [u32; 4], u32>,
) -> Result<BTreeSet<IpNet>, KernelError> {
    let mut allowed = BTreeSet::new();
    for key in allow4.keys() {
        let key = key.map_err(|error| map_error(name::ALLOW4, error))?;
        let ip = encode::ip([key.data(), 0, 0, 0], false);
        allowed.extend(IpNet::new(ip, key.prefix_len() as u8));
    }
    for key in allow6.keys() {
        let key = key.map_err(|error| map_error(name::ALLOW6, error))?;
        let ip = encode::ip(key.data(), true);
        allowed.extend(IpNet::new(ip, key.prefix_len() as u8));
    }
    Ok(allowed)
}

impl BlockList {
    /// Takes the maps, and takes over what a former agent left in them; `dir` is that of the pins.
    pub(crate) fn open(ebpf: &mut Ebpf, dir: &Path) -> Result<Self, KernelError> {
        let allow4: LpmTrie<MapData, u32, u32> = take(ebpf, name::ALLOW4)?;
        let allow6: LpmTrie<MapData, [u32; 4], u32> = take(ebpf, name::ALLOW6)?;
        let allowed = read_allowed(&allow4, &allow6)?;
        let table = |name, v6| Table::open(descriptor(ebpf, name)?, dir, name, v6);
        let (v4, v6) = (table(name::BLOCK4, false)?, table(name::BLOCK6, true)?);
        handover::forget(dir)?;
        Ok(Self {
            v4,
            v6,
            allow4,
            allow6,
            allowed,
            spill: take(ebpf, name::BLOCK_SPILL)?,
        })
    }

    fn tables(&mut self) -> [&mut Table; 2] {
        [&mut self.v4, &mut self.v6]
    }

    /// All rules.
    pub(crate) fn rules(&self) -> Result<Vec<IpNet>, KernelError> {
        let mut prefixes = Vec::new();
        for table in [&self.v4, &self.v6] {
            let rules = table.rules().into_iter();
            prefixes.extend(rules.filter_map(|rule| prefix(rule, table.is_v6())));
        }
        Ok(prefixes)
    }

    /// Mebibytes of kernel memory that the rules take.
    pub(crate) fn mebibytes(&self) -> usize {
        self.v4.pages() + self.v6.pages()
    }

    /// Adds rules, each of which counts from zero; those that are there go on as they are.
    pub(crate) fn add(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        let rules = by_family(prefixes);
        let allowed = by_family(&self.allowed);
        for ((table, rules), allowed) in self.tables().into_iter().zip(rules).zip(allowed) {
            table.add(rules, &allowed)?;
        }
        Ok(())
    }

    /// Removes rules; those that are not there are no error.
    pub(crate) fn remove(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        let rules = by_family(prefixes);
        for (table, rules) in self.tables().into_iter().zip(&rules) {
            table.remove(rules)?;
        }
        self.forget_spilled(&rules)
    }

    /// Puts a list in the place of the present one: for each family in one step.
    pub(crate) fn replace(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        let rules = by_family(prefixes);
        let allowed = by_family(&self.allowed);
        let mut gone = [Vec::new(), Vec::new()];
        let tables = self.tables().into_iter().zip(rules).zip(allowed);
        for (((table, rules), allowed), gone) in tables.zip(&mut gone) {
            *gone = table.replace(rules, &allowed)?;
        }
        self.forget_spilled(&gone)
    }

    /// What rules have counted outside of their pages ends with them.
    fn forget_spilled(&mut self, gone: &[Vec<Rule>; 2]) -> Result<(), KernelError> {
        let spilled: std::collections::HashSet<RuleKey> = self.spill.keys().flatten().collect();
        if spilled.is_empty() {
            return Ok(());
        }
        for (v6, rules) in [false, true].into_iter().zip(gone) {
            let keys = rules.iter().map(|rule| rule_key(*rule, v6));
            for key in keys.filter(|key| spilled.contains(key)) {
                self.spill.remove(&key).map_err(|error| {
                    KernelError::new("forgetting a block rule's counter", error)
                })?;
            }
        }
        Ok(())
    }

    /// Makes these the exceptions.
    pub(crate) fn allow(&mut self, allowed: &BTreeSet<IpNet>) -> Result<(), KernelError> {
        let families = by_family(allowed);
        if families
            .iter()
            .any(|rules| rules.len() > MAX_ALLOW_RULES as usize)
        {
            let full = format!("no more than {MAX_ALLOW_RULES} of each address family fit");
            return Err(KernelError::new("writing the allow list", full));
        }
        // What is new first, and the marks last: an address that stays allowed is never blocked.
        let failed = |error: MapError| KernelError::new("writing the allow list", error);
        for new in allowed.difference(&self.allowed) {
            let (length, words) = (u32::from(new.prefix_len()), encode::words(new.network()));
            match new {
                IpNet::V4(_) => self.allow4.insert(&Key::new(length, words[0]), 1, 0),
                IpNet::V6(_) => self.allow6.insert(&Key::new(length, words), 1, 0),
            }
            .map_err(failed)?;
        }
        for (table, rules) in self.tables().into_iter().zip(&families) {
            table.mark_allowed(rules);
        }
        for old in self.allowed.difference(allowed) {
            let (length, words) = (u32::from(old.prefix_len()), encode::words(old.network()));
            match old {
                IpNet::V4(_) => self.allow4.remove(&Key::new(length, words[0])),
                IpNet::V6(_) => self.allow6.remove(&Key::new(length, words)),
            }
            .map_err(failed)?;
        }
        self.allowed.clone_from(allowed);
        Ok(())
    }

    /// Where the maps lead to other pages, or hold other exceptions, than was written.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    pub(crate) fn differences(&self) -> Result<Vec<Difference>, KernelError> {
        let mut found = Vec::new();
        for table in [&self.v4, &self.v6] {
            if !table.is_installed()? {
                let family = if table.is_v6() { "IPv6" } else { "IPv4" };
                let text = format!("pages of the {family} block list were missing or others");
                found.push(Difference::new(Place::Blocks, text));
            }
        }
        if self.held_allowed()? != self.allowed {
            let text = "the exceptions from the block list were others";
            found.push(Difference::new(Place::Allowed, text));
        }
        Ok(found)
    }

    /// Leads the maps to the pages of the rules again.
    ///
    /// # Errors
    ///
    /// A map that cannot be written.
    pub(crate) fn install(&mut self) -> Result<(), KernelError> {
        self.tables()
            .into_iter()
            .try_for_each(|table| table.install())
    }

    /// Writes the exceptions anew, as far as they differ.
    ///
    /// # Errors
    ///
    /// A map that cannot be read or written.
    pub(crate) fn rewrite_allowed(&mut self) -> Result<(), KernelError> {
        let wanted = std::mem::take(&mut self.allowed);
        let held = self.held_allowed();
        self.allowed = match held {
            Ok(held) => held,
            Err(error) => {
                self.allowed = wanted;
                return Err(error);
            }
        };
        self.allow(&wanted)
    }

    fn held_allowed(&self) -> Result<BTreeSet<IpNet>, KernelError> {
        read_allowed(&self.allow4, &self.allow6)
    }

    /// What each of these rules has dropped; nothing for those that are not there.
    pub(crate) fn dropped(&self, prefixes: &[IpNet]) -> Result<Vec<Counter>, KernelError> {
        let readers = [self.v4.reader(), self.v6.reader()];
        let count = |prefix: &IpNet| {
            let v6 = prefix.addr().is_ipv6();
            let rule = rule(prefix);
            let place = readers[usize::from(v6)].as_ref()?.find(rule)?;
            let spilled = self.spill.get(&rule_key(rule, v6), 0).unwrap_or_default();
            Some(table::counter(&place, spilled))
        };
        Ok(prefixes
            .iter()
            .map(|prefix| count(prefix).unwrap_or_default())
            .collect())
    }

    /// The `most` rules that have dropped most, and how much.
    pub(crate) fn top(&self, most: usize) -> Result<Vec<(IpNet, Counter)>, KernelError> {
        let mut spilled = std::collections::HashMap::new();
        for entry in self.spill.iter() {
            let (key, counter) = entry.map_err(|error| map_error(name::BLOCK_SPILL, error))?;
            spilled.insert(key, counter);
        }
        let mut heap = BinaryHeap::new();
        for (v6, table) in [false, true].into_iter().zip([&self.v4, &self.v6]) {
            let Some(reader) = table.reader() else {
                continue;
            };
            reader.each_rule(|rule, place| {
                let beyond = spilled
                    .get(&rule_key(rule, v6))
                    .copied()
                    .unwrap_or_default();
                let counter = table::counter(&place, beyond);
                heap.push(Reverse((counter.packets, counter.bytes, v6, rule)));
                if heap.len() > most {
                    heap.pop();
                }
            });
        }
        let sorted = heap.into_sorted_vec().into_iter();
        Ok(sorted
            .filter_map(|Reverse((packets, bytes, v6, rule))| {
                Some((prefix(rule, v6)?, Counter { packets, bytes }))
            })
            .collect())
    }

    /// A test of addresses: whether packets from there are dropped.
    pub(crate) fn judge(&self) -> Result<impl Fn(IpAddr) -> bool + use<>, KernelError> {
        let readers = [self.v4.reader(), self.v6.reader()];
        let allowed: crate::domain::block::PrefixSet = self.allowed.iter().collect();
        Ok(move |ip: IpAddr| {
            let reader = readers[usize::from(ip.is_ipv6())].as_ref();
            reader.is_some_and(|reader| reader.covers(halves(ip)).is_some())
                && !allowed.contains(ip)
        })
    }
}
