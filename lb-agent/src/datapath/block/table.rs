//! The rules of one address family: the generation in force, and the way from one to the next.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use lb_common::{
    block::{Layout, MAX_PAGES, Tally},
    entry::Counter,
};

use tracing::warn;

use super::{
    super::{handover, object},
    bucket::{Place, Rule},
    generation::{Full, Generation, Half},
    pages::{self, Change, Memory},
    reader::Reader,
};
use crate::domain::kernel::KernelError;

/// A family's map of pages, and what stands in it.
pub(super) struct Table {
    map: OwnedFd,
    name: &'static str,
    v6: bool,
    generation: Option<Generation>,
    /// Rules in force.
    rules: usize,
    /// Takes the pages of the last generation out of the map.
    freeing: Option<JoinHandle<io::Result<()>>>,
}

/// The generation in force, as the map has it.
pub(in super::super) struct InForce {
    layout: Layout,
    /// Number of the page in slot 0, from which the layout is.
    pub(in super::super) first: u32,
    /// Numbers of its pages, as far as they are where they belong.
    pub(in super::super) pages: Vec<Option<u32>>,
}

impl InForce {
    /// Reads it; `None`: there is none. `open` opens a page by its number. Whoever can write into the
    /// directory of the pins may have put something else there, and root reads it too.
    ///
    /// # Errors
    ///
    /// The map or the first page cannot be read, or is none.
    pub(in super::super) fn read(
        map: BorrowedFd<'_>,
        open: impl Fn(u32) -> io::Result<OwnedFd>,
    ) -> io::Result<Option<Self>> {
        pages::check_map(map)?;
        let Some(first) = object::in_slot(map, 0)? else {
            return Ok(None);
        };
        let page = open(first)?;
        pages::check_page(page.as_fd())?;
        let memory = Memory::new(&[Arc::new(page)]);
        // SAFETY: the first line of a page; a layout is never changed.
        let layout = unsafe { memory.line(0).cast::<Layout>().read() };
        let slots: Vec<u32> = layout.slots().collect();
        let pages = object::in_slots(map, &slots)?;
        Ok(Some(Self {
            layout,
            first,
            pages,
        }))
    }

    /// Takes it over. `open` opens a page by its number.
    ///
    /// # Errors
    ///
    /// It is not complete, or not sound.
    fn adopt(self, v6: bool, open: impl Fn(u32) -> io::Result<OwnedFd>) -> io::Result<Generation> {
        let open = |page: Option<u32>| {
            let page = open(page.ok_or(io::ErrorKind::NotFound)?)?;
            pages::check_page(page.as_fd())?;
            Ok(page)
        };
        let pages = self.pages.into_iter().map(open);
        Generation::adopt(v6, self.layout, pages.collect::<io::Result<_>>()?)
    }
}

/// Empties these slots.
fn clear(map: BorrowedFd<'_>, slots: impl Iterator<Item = u32>) -> io::Result<()> {
    let changes: Vec<Change<'_>> = slots.map(Change::Clear).collect();
    pages::change(map, &changes)
}

/// A rule's counter: its tally, and what was moved out of it.
pub(super) fn counter(place: &Place, spilled: Counter) -> Counter {
    let tally = Tally(place.tally().load(Ordering::Acquire));
    Counter {
        packets: spilled.packets + tally.packets(),
        bytes: spilled.bytes + tally.bytes(),
    }
}

impl Table {
    /// Takes over what a former agent left: the generation in force, and pages of another one
    /// that it did not come to free. `dir` is that of the pins.
    pub(super) fn open(
        map: OwnedFd,
        dir: &Path,
        name: &'static str,
        v6: bool,
    ) -> Result<Self, KernelError> {
        let failed = |error| KernelError::new(format!("reading the block list {name}"), error);
        let open = |page| handover::open(dir, page);
        let found = InForce::read(map.as_fd(), open).map_err(failed)?;
        let used = found.as_ref().map_or(0..0, |found| found.layout.slots());
        let generation = found.map(|found| found.adopt(v6, open));
        let generation = generation.transpose().map_err(failed)?;
        let mut table = Self {
            map,
            name,
            v6,
            generation,
            rules: 0,
            freeing: None,
        };
        let others: Vec<u32> = (1..MAX_PAGES).filter(|slot| !used.contains(slot)).collect();
        // To look into all of them takes a second where the kernel waits each time.
        let free = move |map: BorrowedFd<'_>| {
            let found = object::in_slots(map, &others)?;
            let held = others.into_iter().zip(found);
            clear(map, held.filter_map(|(slot, page)| page.map(|_| slot)))
        };
        table.free(free).map_err(failed)?;
        table.rules = table.rules().len();
        Ok(table)
    }

    fn failed(&self, doing: &str, error: io::Error) -> KernelError {
        KernelError::new(format!("{doing} the block list {}", self.name), error)
    }

    pub(super) fn is_v6(&self) -> bool {
        self.v6
    }

    pub(super) fn pages(&self) -> usize {
        self.generation.as_ref().map_or(0, Generation::pages)
    }

    /// The memory of the generation in force.
    pub(super) fn reader(&self) -> Option<Reader> {
        self.generation.as_ref().map(Generation::reader)
    }

    /// All rules.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if let Some(reader) = self.reader() {
            reader.each_rule(|rule, _| rules.push(rule));
        }
        rules
    }

    /// Adds those of the rules that are not there. In place where there is room, else in a new
    /// generation; if that fails, none of them is there.
    pub(super) fn add(&mut self, rules: Vec<Rule>, allowed: &[Rule]) -> Result<(), KernelError> {
        let mut new = rules;
        new.sort_unstable();
        new.dedup();
        if let Some(reader) = self.reader() {
            new.retain(|rule| reader.find(*rule).is_none());
            if let Some(generation) = &mut self.generation {
                let mut added = 0;
                let outcome = new.iter().try_for_each(|rule| {
                    generation.insert(&reader, *rule).inspect(|()| added += 1)
                });
                self.rules += added;
                match outcome {
                    Ok(()) => return Ok(()),
                    Err(Full) => drop(new.drain(..added)),
                }
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let mut all = self.rules();
        all.extend(new);
        self.replace(all, allowed).map(drop)
    }

    /// Removes those of the rules that are there. The bits that led to them stay until the next
    /// generation.
    pub(super) fn remove(&mut self, rules: &[Rule]) -> Result<(), KernelError> {
        let Some(reader) = self.reader() else {
            return Ok(());
        };
        for place in rules.iter().filter_map(|rule| reader.find(*rule)) {
            place.remove();
            self.rules -= 1;
        }
        if self.rules == 0 {
            return self.bring_in(None);
        }
        Ok(())
    }

    /// Makes these the rules, in one step; answers with those that were there and are no more.
    pub(super) fn replace(
        &mut self,
        mut rules: Vec<Rule>,
        allowed: &[Rule],
    ) -> Result<Vec<Rule>, KernelError> {
        rules.sort_unstable();
        rules.dedup();
        let former = self.reader();
        let next = if rules.is_empty() {
            None
        } else {
            let built = self.build(&rules, allowed);
            Some(built.map_err(|error| self.failed("building", error))?)
        };
        let reader = next.as_ref().map(Generation::reader);
        self.bring_in(next)?;
        self.rules = rules.len();
        // No program counts in the former one any more.
        let mut gone = Vec::new();
        if let Some(former) = former {
            former.each_rule(|rule, place| {
                match reader.as_ref().and_then(|reader| reader.find(rule)) {
                    Some(heir) => {
                        let tally = place.tally().load(Ordering::Acquire);
                        heir.tally().fetch_add(tally, Ordering::Relaxed);
                    }
                    None => gone.push(rule),
                }
            });
        }
        Ok(gone)
    }

    /// A generation with these rules, off to the side.
    fn build(&self, rules: &[Rule], allowed: &[Rule]) -> io::Result<Generation> {
        let half = self
            .generation
            .as_ref()
            .map_or(Half::First, |former| Half::of(former.layout()).other());
        // By chance a bucket may overflow; with another seed it will be another one, if any.
        for _ in 0..4 {
            let mut next = Generation::create(half, rules, self.v6)?;
            let reader = next.reader();
            reader.mark_allowed(allowed);
            let all = rules
                .iter()
                .try_for_each(|rule| next.insert(&reader, *rule));
            if all.is_ok() {
                return Ok(next);
            }
        }
        Err(io::Error::other("the rules do not spread over its buckets"))
    }

    /// Puts a generation in force and lets the former one go. The kernel frees it page by page.
    fn bring_in(&mut self, next: Option<Generation>) -> Result<(), KernelError> {
        let map = self.map.as_fd();
        if let Some(freeing) = self.freeing.take() {
            let freed = freeing.join();
            let freed = freed.unwrap_or_else(|_| Err(io::Error::other("a thread ended early")));
            if let Err(error) = freed {
                // Memory, and nothing that is in force; the next start tries it again.
                warn!(list = self.name, %error, "a former state of the block list could not be freed");
            }
        }
        let installation = next.as_ref().map(Generation::installation);
        pages::change(map, &installation.unwrap_or_default())
            .map_err(|error| self.failed("writing", error))?;
        let inauguration = match &next {
            Some(next) => next.inauguration(),
            None => Some(Change::Clear(0)),
        };
        pages::change(map, inauguration.as_slice())
            .map_err(|error| self.failed("switching", error))?;
        let Some(former) = std::mem::replace(&mut self.generation, next) else {
            return Ok(());
        };
        let free = move |map: BorrowedFd<'_>| clear(map, former.layout().slots());
        self.free(free)
            .map_err(|error| self.failed("freeing a former state of", error))
    }

    /// Frees what is not in force on a thread of its own, for which only the next generation waits, and
    /// whoever lets go of the table.
    fn free(
        &mut self,
        work: impl FnOnce(BorrowedFd<'_>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let map = self.map.try_clone()?;
        let thread = std::thread::Builder::new().spawn(move || work(map.as_fd()))?;
        self.freeing = Some(thread);
        Ok(())
    }

    /// Whether the map leads to the pages of the generation in force.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub(super) fn is_installed(&self) -> Result<bool, KernelError> {
        let failed = |error| self.failed("reading", error);
        let wanted = self.generation.as_ref().map(Generation::slots);
        let Some(wanted) = wanted.transpose().map_err(failed)? else {
            let root = object::in_slot(self.map.as_fd(), 0).map_err(failed)?;
            return Ok(root.is_none());
        };
        let (slots, pages): (Vec<u32>, Vec<u32>) = wanted.into_iter().unzip();
        let found = object::in_slots(self.map.as_fd(), &slots).map_err(failed)?;
        Ok(found.into_iter().eq(pages.into_iter().map(Some)))
    }

    /// Leads the map to the pages of the generation in force again.
    ///
    /// # Errors
    ///
    /// The map cannot be written.
    pub(super) fn install(&self) -> Result<(), KernelError> {
        let mut changes = Vec::new();
        match &self.generation {
            Some(generation) => {
                changes.extend(generation.installation());
                changes.extend(generation.inauguration());
            }
            None => changes.push(Change::Clear(0)),
        }
        pages::change(self.map.as_fd(), &changes).map_err(|error| self.failed("writing", error))
    }

    /// Marks where exceptions are near.
    pub(super) fn mark_allowed(&self, allowed: &[Rule]) {
        if let Some(reader) = self.reader() {
            reader.mark_allowed(allowed);
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(freeing) = self.freeing.take() {
            // What it did not come to is done by the next agent.
            let _ = freeing.join();
        }
    }
}
