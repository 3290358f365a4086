//! A generation's memory: searched, read and marked. The search is the programs' own, in
//! `lb-ebpf/src/block.rs`.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use lb_common::{
    block::{
        FILTER_LINE, GROUPS, Layout, ROOT_ALLOW, ROOT_GROUP, ROOT_LENGTHS, ROOT_LINE, ROOT_WORDS,
        filter_bits, filter_index, group_of, group_start, truncate,
    },
    hash,
};

use super::{
    bucket::{Bucket, Place, Rule},
    pages::Memory,
};

/// A generation's memory, to be searched and read.
pub(super) struct Reader {
    layout: Layout,
    v6: bool,
    memory: Memory,
}

impl Reader {
    pub(super) fn new(layout: Layout, v6: bool, memory: Memory) -> Self {
        Self { layout, v6, memory }
    }

    /// The line of this number, as a part of a bucket.
    pub(super) fn bucket(&self, line: u32) -> Bucket {
        // SAFETY: `line` panics beyond the memory, which lives as long as this.
        unsafe { Bucket::new(self.memory.line(line), self.v6) }
    }

    fn root_word(&self, top: u32) -> &AtomicU32 {
        let line = self.memory.line(ROOT_LINE + top / 16).cast::<u32>();
        // SAFETY: a line holds 16 words; both sides use them atomically.
        unsafe { AtomicU32::from_ptr(line.add((top % 16) as usize)) }
    }

    fn filter_word(&self, group: u32, lead: [u64; 2]) -> &AtomicU16 {
        let index = filter_index(&self.layout, group, lead);
        let line = self.memory.line(FILTER_LINE + index / 32).cast::<u16>();
        // SAFETY: a line holds 32 words; both sides use them atomically.
        unsafe { AtomicU16::from_ptr(line.add((index % 32) as usize)) }
    }

    /// The lines that a rule may be in.
    pub(super) fn chain(&self, rule: Rule) -> impl Iterator<Item = (u32, Bucket)> {
        let hash = rule.hash(self.layout.seed, self.v6);
        let first = self.layout.bucket_line + hash::scale(hash, self.layout.buckets);
        let next = |(_, bucket): &(u32, Bucket)| match bucket.next().load(Ordering::Acquire) {
            0 => None,
            line => Some((line, self.bucket(line))),
        };
        std::iter::successors(Some((first, self.bucket(first))), next)
    }

    /// Where a rule is.
    pub(super) fn find(&self, rule: Rule) -> Option<Place> {
        self.chain(rule)
            .flat_map(|(_, bucket)| bucket.places())
            .find(|place| place.rule() == Some(rule))
    }

    /// The longest rule that covers an address: what the programs find, exceptions aside.
    pub(super) fn covers(&self, addr: [u64; 2]) -> Option<Rule> {
        let root = self
            .root_word((addr[0] >> 48) as u32)
            .load(Ordering::Acquire);
        if root & !ROOT_ALLOW == 0 {
            return None;
        }
        let longest = |mask: u32, start: u32| {
            (0..17)
                .rev()
                .filter(|bit| mask & (1 << bit) != 0)
                .find_map(|bit| {
                    let len = start + bit;
                    let prefix = truncate(addr, len);
                    let rule = Rule { prefix, len };
                    self.find(rule).map(|_| rule)
                })
        };
        (0..GROUPS)
            .rev()
            .filter(|group| root & (ROOT_GROUP << group) != 0)
            .find_map(|group| {
                let word = self.filter_word(group, truncate(addr, filter_bits(group)));
                longest(u32::from(word.load(Ordering::Acquire)), group_start(group))
            })
            .or_else(|| longest(root & ROOT_LENGTHS, 0))
    }

    pub(super) fn each_line(&self, mut look: impl FnMut(Bucket)) {
        let spare = self.layout.spare_line + self.layout.spare_lines;
        for line in self.layout.bucket_line..spare {
            look(self.bucket(line));
        }
    }

    /// Calls `look` for every rule, with its place.
    pub(super) fn each_rule(&self, mut look: impl FnMut(Rule, Place)) {
        self.each_line(|bucket| {
            for place in bucket.places() {
                if let Some(rule) = place.rule() {
                    look(rule, place);
                }
            }
        });
    }

    /// Sets the bits that lead to a rule.
    pub(super) fn mark(&self, rule: Rule) {
        let Rule { prefix, len } = rule;
        if len <= 16 {
            for top in root_range(rule) {
                self.root_word(top as u32)
                    .fetch_or(1 << len, Ordering::Release);
            }
            return;
        }
        let group = group_of(len);
        let bits = filter_bits(group);
        let bit = 1 << (len - group_start(group));
        // A group's lengths and the bits that lead to it lie in the same half of the address.
        let (half, unit) = (usize::from(bits > 64), 1_u64 << ((128 - bits) % 64));
        let mut lead = truncate(prefix, bits);
        for _ in 0..1_u32 << bits.saturating_sub(len) {
            self.filter_word(group, lead)
                .fetch_or(bit, Ordering::Release);
            lead[half] = lead[half].wrapping_add(unit);
        }
        let top = (prefix[0] >> 48) as u32;
        self.root_word(top)
            .fetch_or(ROOT_GROUP << group, Ordering::Release);
    }

    /// Marks where exceptions are near, and only there.
    pub(super) fn mark_allowed(&self, allowed: &[Rule]) {
        let mut near = vec![false; ROOT_WORDS as usize];
        for rule in allowed {
            near[root_range(*rule)].fill(true);
        }
        for (top, near) in (0..).zip(near) {
            let word = self.root_word(top);
            match (near, word.load(Ordering::Acquire) & ROOT_ALLOW != 0) {
                (true, false) => drop(word.fetch_or(ROOT_ALLOW, Ordering::Release)),
                (false, true) => drop(word.fetch_and(!ROOT_ALLOW, Ordering::Release)),
                _ => {}
            }
        }
    }
}

/// The words of the root that a prefix covers or lies below.
fn root_range(rule: Rule) -> std::ops::Range<usize> {
    let first = (rule.prefix[0] >> 48) as usize;
    first..first + (1 << 16_u32.saturating_sub(rule.len))
}
