//! The buckets' lines as the agent reads and writes them, while programs read.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use lb_common::block::{Bucket4, Bucket6, GONE, Line, rule_hash4, rule_hash6};

/// A prefix in halves, left-aligned, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rule {
    pub(super) prefix: [u64; 2],
    pub(super) len: u32,
}

impl Rule {
    /// Hash of its bucket.
    pub(super) fn hash(self, seed: u64, v6: bool) -> u64 {
        if v6 {
            rule_hash6(seed, self.prefix, self.len)
        } else {
            rule_hash4(seed, (self.prefix[0] >> 32) as u32, self.len)
        }
    }
}

/// A line of a bucket.
#[derive(Clone, Copy)]
pub(super) struct Bucket {
    line: *mut Line,
    v6: bool,
}

/// A place in a line.
#[derive(Clone, Copy)]
pub(super) struct Place {
    bucket: Bucket,
    way: usize,
}

impl Bucket {
    /// # Safety
    ///
    /// `line` must stay valid as long as this and its places are used.
    pub(super) unsafe fn new(line: *mut Line, v6: bool) -> Self {
        Self { line, v6 }
    }

    /// Its places.
    pub(super) fn places(self) -> impl Iterator<Item = Place> {
        let ways = if self.v6 { 2 } else { 4 };
        (0..ways).map(move |way| Place { bucket: self, way })
    }

    /// Number of the line that it goes on in; 0: none.
    pub(super) fn next(self) -> &'static AtomicU32 {
        let v4 = self.line.cast::<Bucket4>();
        let v6 = self.line.cast::<Bucket6>();
        // SAFETY: the creator's promise; aligned, and used atomically by both sides.
        unsafe {
            AtomicU32::from_ptr(if self.v6 {
                &raw mut (*v6).next
            } else {
                &raw mut (*v4).next
            })
        }
    }
}

impl Place {
    fn len(&self) -> &AtomicU8 {
        let v4 = self.bucket.line.cast::<Bucket4>();
        let v6 = self.bucket.line.cast::<Bucket6>();
        // SAFETY: as for `Bucket::next`; `places` keeps the way in bounds.
        unsafe {
            AtomicU8::from_ptr(if self.bucket.v6 {
                &raw mut (*v6).lens[self.way]
            } else {
                &raw mut (*v4).lens[self.way]
            })
        }
    }

    /// What the rule has dropped; see [`lb_common::block::Tally`].
    pub(super) fn tally(&self) -> &AtomicU64 {
        let v4 = self.bucket.line.cast::<Bucket4>();
        let v6 = self.bucket.line.cast::<Bucket6>();
        // SAFETY: as above.
        unsafe {
            AtomicU64::from_ptr(if self.bucket.v6 {
                &raw mut (*v6).tallies[self.way]
            } else {
                &raw mut (*v4).tallies[self.way]
            })
        }
    }

    /// Whether no rule was ever here.
    pub(super) fn is_free(&self) -> bool {
        self.len().load(Ordering::Acquire) == 0
    }

    /// Whether a rule is or was here.
    pub(super) fn is_taken(&self) -> bool {
        !self.is_free()
    }

    /// The rule that is here.
    pub(super) fn rule(&self) -> Option<Rule> {
        let len = match self.len().load(Ordering::Acquire) {
            0 | GONE => return None,
            len => u32::from(len) - 1,
        };
        let v4 = self.bucket.line.cast::<Bucket4>();
        let v6 = self.bucket.line.cast::<Bucket6>();
        // SAFETY: as above; only the agent writes prefixes, from one thread.
        let prefix = unsafe {
            if self.bucket.v6 {
                (*v6).prefixes[self.way]
            } else {
                [u64::from((*v4).prefixes[self.way]) << 32, 0]
            }
        };
        Some(Rule { prefix, len })
    }

    /// Puts a rule here, where none ever was. Its fields come before its length.
    pub(super) fn put(&self, rule: Rule) {
        let v4 = self.bucket.line.cast::<Bucket4>();
        let v6 = self.bucket.line.cast::<Bucket6>();
        // SAFETY: as above; no program reads the prefix before there is a length.
        unsafe {
            if self.bucket.v6 {
                (&raw mut (*v6).prefixes[self.way]).write_volatile(rule.prefix);
            } else {
                let prefix = (rule.prefix[0] >> 32) as u32;
                (&raw mut (*v4).prefixes[self.way]).write_volatile(prefix);
            }
        }
        self.tally().store(0, Ordering::Relaxed);
        self.len().store(rule.len as u8 + 1, Ordering::Release);
    }

    /// Takes the rule away, for good.
    pub(super) fn remove(&self) {
        self.len().store(GONE, Ordering::Release);
    }
}
