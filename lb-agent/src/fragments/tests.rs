//! Keeping fragments, with a kernel that is made up.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use super::*;
use crate::domain::{fragment::PacketId, kernel::KernelError};

/// A kernel that knows of some first fragments, and notes what it is given back.
#[derive(Default)]
struct Fake {
    firsts: HashSet<u32>,
    refuses: bool,
    given_back: Mutex<Vec<Early>>,
}

impl Fake {
    fn ids(&self) -> Vec<u32> {
        let given_back = self
            .given_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        given_back.iter().map(|early| early.packet.id).collect()
    }
}

impl Deposit for Fake {
    fn switch(&mut self, _on: bool) -> Result<(), KernelError> {
        Ok(())
    }

    async fn readable(&mut self) {}

    fn drain(&mut self, _see: &mut dyn FnMut(Early)) -> u64 {
        0
    }

    fn has_first(&self, packet: &PacketId) -> bool {
        self.firsts.contains(&packet.id)
    }

    fn give_back(&self, early: &Early) -> Result<(), KernelError> {
        if self.refuses {
            return Err(KernelError::new("giving back", "no"));
        }
        let mut given_back = self
            .given_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        given_back.push(early.clone());
        Ok(())
    }
}

fn early(id: u32, length: usize) -> Early {
    Early {
        packet: PacketId {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            id,
            protocol: 17,
        },
        ifindex: 3,
        frame: vec![id as u8; length],
    }
}

fn counts(kept: &Kept) -> [u64; 3] {
    let stats = &kept.stats;
    [stats.followed(), stats.expired(), stats.lost()]
}

#[test]
fn each_waits_for_its_own_first() {
    let mut kernel = Fake::default();
    let mut kept = Kept::new(Arc::default());
    let start = Instant::now();
    for id in [1, 2, 1] {
        // Two of one packet differ in their bytes.
        kept.add(early(id, 100 + kept.waiting.len()), start);
    }
    assert!(kept.settle(&kernel, start));
    assert!(kernel.ids().is_empty());
    kernel.firsts.insert(1);
    assert!(kept.settle(&kernel, start + Duration::from_millis(3)));
    assert_eq!(kernel.ids(), [1, 1]);
    assert_eq!(counts(&kept), [2, 0, 0]);
    assert!(kept.settle(&kernel, start + PATIENCE));
    assert!(kept.is_empty() && kept.bytes == 0);
    assert_eq!(counts(&kept), [2, 1, 0], "the other one's never came");
}

/// The programs hand over again what was given back: its first fragment has been forgotten.
#[test]
fn none_goes_in_a_circle() {
    let kernel = Fake {
        firsts: HashSet::from([7]),
        ..Fake::default()
    };
    let mut kept = Kept::new(Arc::default());
    let start = Instant::now();
    kept.add(early(7, 60), start);
    assert!(kept.settle(&kernel, start));
    kept.add(early(7, 60), start);
    assert!(kept.is_empty());
    assert_eq!(counts(&kept), [1, 1, 0]);
    // Later it is another packet with the same bytes.
    assert!(kept.settle(&kernel, start + PATIENCE));
    kept.add(early(7, 60), start + PATIENCE);
    assert!(!kept.is_empty());
}

#[test]
fn room_is_bounded() {
    let kernel = Fake::default();
    let mut kept = Kept::new(Arc::default());
    let now = Instant::now();
    let fit = MOST_BYTES / 2048;
    for id in 0..fit as u32 + 5 {
        kept.add(early(id, 2048), now);
    }
    assert_eq!((kept.waiting.len(), counts(&kept)), (fit, [0, 0, 5]));
    assert!(kept.settle(&kernel, now + PATIENCE));
    assert_eq!((kept.bytes, counts(&kept)), (0, [0, fit as u64, 5]));
}

#[test]
fn a_kernel_that_takes_nothing_back_ends_it() {
    let kernel = Fake {
        firsts: HashSet::from([7]),
        refuses: true,
        ..Fake::default()
    };
    let mut kept = Kept::new(Arc::default());
    kept.add(early(7, 60), Instant::now());
    assert!(!kept.settle(&kernel, Instant::now()));
    assert_eq!(counts(&kept), [0, 0, 1]);
}
