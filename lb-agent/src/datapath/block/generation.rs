//! One generation of a family's block list: sized, filled and adopted. The structure is described in
//! `lb_common::block`.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, atomic::Ordering},
};

use lb_common::block::{
    FILTER_LINE, GENERATION_PAGES, GROUPS, Layout, MAX_CHAIN, PAGE_LINES, filter_bits, group_of,
    truncate,
};

use super::{
    super::object,
    bucket::{Bucket, Place, Rule},
    pages::{self, Change, Memory},
    reader::Reader,
};

/// Rules that a generation has room for at least.
const MIN_CAPACITY: usize = 2000;
/// Words of the smallest filter.
const MIN_FILTER: usize = 2048;
/// Words of the largest filter; with as many IPv4 has one for each /24.
const MAX_FILTER: usize = 1 << 24;

/// Where a generation lies in the map of pages, other than the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    First,
    Second,
}

impl Half {
    pub(super) fn of(layout: &Layout) -> Self {
        if layout.first_page == Half::First.first_page() {
            Half::First
        } else {
            Half::Second
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Half::First => Half::Second,
            Half::Second => Half::First,
        }
    }

    pub(super) fn first_page(self) -> u32 {
        match self {
            Half::First => 1,
            Half::Second => 1 + GENERATION_PAGES,
        }
    }
}

/// Pages, and how much of them is used.
pub(super) struct Generation {
    pages: Vec<Arc<OwnedFd>>,
    layout: Layout,
    v6: bool,
    /// Places that are or were taken.
    taken: usize,
    capacity: usize,
    spare_used: u32,
}

/// The generation has no more room; a larger one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Generation {
    /// An empty generation with room for these rules and some more. They should be sorted.
    pub(super) fn create(half: Half, rules: &[Rule], v6: bool) -> io::Result<Self> {
        let capacity = (rules.len() + rules.len() / 4).max(MIN_CAPACITY);
        let filter = (4 * filter_words(rules))
            .next_power_of_two()
            .clamp(MIN_FILTER, MAX_FILTER);
        // Half of the places are taken when it is full, so that a twentieth of the buckets goes
        // on in spare lines.
        let buckets = if v6 { capacity } else { capacity / 2 };
        let spare = buckets / 8 + 64;
        let bucket_line = FILTER_LINE as usize + filter / 32;
        let pages = (bucket_line + buckets + spare).div_ceil(PAGE_LINES as usize);
        if pages > GENERATION_PAGES as usize {
            return Err(io::Error::other(format!(
                "{} rules take {pages} MiB, and {GENERATION_PAGES} is the most",
                rules.len()
            )));
        }
        let layout = Layout {
            seed: rand::random(),
            first_page: half.first_page(),
            filter_mask: filter as u32 - 1,
            bucket_line: bucket_line as u32,
            buckets: buckets as u32,
            spare_line: (bucket_line + buckets) as u32,
            // What is left of the last page is as good.
            spare_lines: (pages * PAGE_LINES as usize - bucket_line - buckets) as u32,
            reserved: [0; 4],
        };
        let pages = (0..pages)
            .map(|_| pages::create().map(Arc::new))
            .collect::<io::Result<Vec<_>>>()?;
        let memory = Memory::new(&pages[..1]);
        // SAFETY: the first line of a page that nobody else has.
        unsafe { memory.line(0).cast::<Layout>().write(layout) };
        Ok(Self {
            pages,
            layout,
            v6,
            taken: 0,
            capacity,
            spare_used: 0,
        })
    }

    /// Takes over the generation that a former agent put in force: these are its pages.
    ///
    /// # Errors
    ///
    /// They do not hold what the layout says.
    pub(super) fn adopt(v6: bool, layout: Layout, pages: Vec<OwnedFd>) -> io::Result<Self> {
        if !layout.is_sound() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut generation = Self {
            pages: pages.into_iter().map(Arc::new).collect(),
            layout,
            v6,
            taken: 0,
            capacity: layout.buckets as usize * if v6 { 1 } else { 2 },
            spare_used: 0,
        };
        let reader = generation.reader();
        let (mut taken, mut spare_used) = (0, 0);
        reader.each_line(|bucket| {
            taken += bucket.places().filter(Place::is_taken).count();
            let next = bucket.next().load(Ordering::Acquire);
            spare_used = spare_used.max((next + 1).saturating_sub(layout.spare_line));
        });
        generation.taken = taken;
        generation.spare_used = spare_used;
        Ok(generation)
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Mebibytes.
    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// The changes that make its pages known, but not yet in force.
    pub(super) fn installation(&self) -> Vec<Change<'_>> {
        (self.layout.first_page..)
            .zip(&self.pages)
            .map(|(index, page)| Change::Set(index, page.as_fd()))
            .collect()
    }

    /// The slots that its pages belong into, each with the number of the page.
    pub(super) fn slots(&self) -> io::Result<Vec<(u32, u32)>> {
        let mut slots = Vec::new();
        for (slot, page) in (self.layout.first_page..).zip(&self.pages) {
            slots.push((slot, object::number(page.as_fd())?));
        }
        if let Some((_, first)) = slots.first().copied() {
            slots.push((0, first));
        }
        Ok(slots)
    }

    /// The change that puts it in force.
    pub(super) fn inauguration(&self) -> Option<Change<'_>> {
        let first = self.pages.first()?;
        Some(Change::Set(0, first.as_fd()))
    }

    /// Its memory, to be searched, read and marked.
    pub(super) fn reader(&self) -> Reader {
        Reader::new(self.layout, self.v6, Memory::new(&self.pages))
    }

    /// Adds a rule that is not there. It is in force as soon as the generation is.
    pub(super) fn insert(&mut self, reader: &Reader, rule: Rule) -> Result<(), Full> {
        if self.taken >= self.capacity {
            return Err(Full);
        }
        let chain: Vec<Bucket> = reader.chain(rule).map(|(_, bucket)| bucket).collect();
        let free = chain
            .iter()
            .flat_map(|bucket| bucket.places())
            .find(Place::is_free);
        match (free, chain.last()) {
            (Some(place), _) => place.put(rule),
            (None, Some(last)) => {
                if self.spare_used >= self.layout.spare_lines || chain.len() > MAX_CHAIN as usize {
                    return Err(Full);
                }
                let line = self.layout.spare_line + self.spare_used;
                let place = reader.bucket(line).places().next().ok_or(Full)?;
                place.put(rule);
                last.next().store(line, Ordering::Release);
                self.spare_used += 1;
            }
            (None, None) => return Err(Full),
        }
        self.taken += 1;
        reader.mark(rule);
        Ok(())
    }
}

/// How many words of the filter these rules lead to; neighbours count once.
fn filter_words(rules: &[Rule]) -> usize {
    let mut words = 0;
    let mut last = [None; GROUPS as usize];
    for rule in rules.iter().filter(|rule| rule.len > 16) {
        let group = group_of(rule.len);
        let bits = filter_bits(group);
        let lead = truncate(rule.prefix, bits);
        let former = last[group as usize].replace(lead);
        if former != Some(lead) {
            words += 1 << bits.saturating_sub(rule.len);
        }
    }
    words
}
