//! Both nodes side by side: the same is sent to both, and what comes out is compared.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use lb_tests::pace::at_this_pace;

use super::{
    flow::Flow,
    intended,
    reading::Reading,
    reassembly::reassemble,
    site::{Arrival, Layout, Site},
};
use crate::{fuzz::arena::hex, row::Side};

/// How long is waited for what one of the two has sent and the other has not yet.
pub(crate) const LATE: Duration = Duration::from_millis(150);

/// How long one look for it takes.
const GLANCE: Duration = Duration::from_millis(2);

/// The two, by their place in arrays.
pub(crate) const SITES: [&str; 2] = ["kernel", "programs"];

/// Frames to send to each of the two, in this order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    pub(crate) what: String,
    pub(crate) frames: [Vec<(Side, Vec<u8>)>; 2],
}

impl Step {
    /// One frame, the same to both.
    pub(crate) fn same(what: impl Into<String>, side: Side, frame: Vec<u8>) -> Self {
        Self::each(what, side, [frame.clone(), frame])
    }

    /// One frame to each.
    pub(crate) fn each(what: impl Into<String>, side: Side, frames: [Vec<u8>; 2]) -> Self {
        Self {
            what: what.into(),
            frames: frames.map(|frame| vec![(side, frame)]),
        }
    }
}

/// What came out of both.
pub(crate) struct Outcome {
    /// By site.
    pub(crate) arrivals: [Vec<Arrival>; 2],
    /// In what they differ, in words with all frames; `None`: in nothing but what is intended.
    pub(crate) difference: Option<String>,
}

/// The kernel's node and the programs'.
pub(crate) struct Pair {
    sites: [Site; 2],
    /// Frames sent to each.
    pub(crate) frames: u64,
    /// Frames that came out of the programs' node.
    pub(crate) arrived: u64,
    /// How often each intended difference was met.
    pub(crate) met: BTreeMap<&'static str, u64>,
}

impl Pair {
    /// Lays both out.
    pub(crate) fn new(layout: &Layout) -> Result<Self> {
        Ok(Self {
            sites: [Site::kernel(layout)?, Site::programs(layout)?],
            frames: 0,
            arrived: 0,
            met: BTreeMap::new(),
        })
    }

    /// Gives nftables these rules besides what it has.
    pub(crate) fn change_rules(&self, rules: &str) -> Result<()> {
        self.sites[0].load_rules(rules)
    }

    /// Sends the frames of a step and compares what comes out; where that differs, it waits for at
    /// most `patience` that something more comes.
    ///
    /// # Panics
    ///
    /// A frame cannot be sent, or marks are lost.
    pub(crate) fn play(&mut self, step: &Step, patience: Duration) -> Outcome {
        let [kernel, programs] = &mut self.sites;
        let play = |site: &mut Site, number: usize| {
            let name = SITES[number];
            site.play(&step.frames[number])
                .unwrap_or_else(|error| panic!("{name}, {}: {error:#}", step.what))
        };
        let mut arrivals = [play(kernel, 0), play(programs, 1)];
        self.frames += step.frames[0].len() as u64;
        let mut met = BTreeMap::new();
        let mut difference = differences(step, &arrivals, &mut met);
        let end = Instant::now() + at_this_pace(patience);
        while difference.is_some() && Instant::now() < end {
            for (site, arrivals) in self.sites.iter_mut().zip(&mut arrivals) {
                site.late(GLANCE, arrivals).expect("a late frame");
            }
            met.clear();
            difference = differences(step, &arrivals, &mut met);
        }
        // Of frames that differ altogether nothing is to be learned.
        for (name, count) in met.into_iter().filter(|_| difference.is_none()) {
            *self.met.entry(name).or_default() += count;
        }
        self.arrived += arrivals[1].len() as u64;
        Outcome {
            arrivals,
            difference,
        }
    }

    /// The same for a packet of a flow, which learns the ports that were chosen for it.
    pub(crate) fn play_for(&mut self, flow: &mut Flow, step: &Step, patience: Duration) -> Outcome {
        let mut outcome = self.play(step, patience);
        for (site, arrivals) in outcome.arrivals.iter().enumerate() {
            if let Err(what) = flow.learn(site, arrivals) {
                let text = describe(step, &outcome.arrivals);
                outcome
                    .difference
                    .get_or_insert(format!("{}: {what}\n{text}", SITES[site]));
            }
        }
        outcome
    }
}

/// In what the two outcomes differ, but for what is intended, which is counted.
pub(crate) fn differences(
    step: &Step,
    arrivals: &[Vec<Arrival>; 2],
    met: &mut BTreeMap<&'static str, u64>,
) -> Option<String> {
    let mut found = Vec::new();
    for side in [Side::Front, Side::Back] {
        let [kernel, programs] = arrivals.each_ref().map(|arrivals| {
            let at_side = arrivals.iter().filter(|(at, _)| *at as u8 == side as u8);
            reassemble(at_side.map(|(_, frame)| frame.clone()).collect())
        });
        if kernel.len() != programs.len() {
            found.push(format!(
                "{side:?}: {} frames from the kernel, {} from the programs",
                kernel.len(),
                programs.len()
            ));
            continue;
        }
        for (kernel, programs) in kernel.iter().zip(&programs) {
            let [kernel, programs] = [kernel, programs].map(|frame| Reading::of(frame));
            for field in kernel.differing(&programs) {
                match intended::exception(&field, &kernel, &programs) {
                    Some(exception) => *met.entry(exception.name).or_default() += 1,
                    None => found.push(format!("{side:?}: {field}")),
                }
            }
        }
    }
    if found.is_empty() {
        return None;
    }
    Some(format!(
        "{}\n{}",
        found.join("; "),
        describe(step, arrivals)
    ))
}

/// The step and what came of it, to be read and to be pasted into a dissector.
fn describe(step: &Step, arrivals: &[Vec<Arrival>; 2]) -> String {
    let mut lines = vec![step.what.clone()];
    let mut show = |what: &str, frames: &[(Side, Vec<u8>)]| {
        for (side, frame) in frames {
            lines.push(format!("  {what} {side:?}: {}", hex(frame)));
            lines.push(format!("    {}", Reading::of(frame).line()));
        }
    };
    for (number, name) in SITES.iter().enumerate() {
        show(&format!("to the {name}' node, from"), &step.frames[number]);
        show(&format!("{name}: at"), &arrivals[number]);
    }
    lines.join("\n")
}
