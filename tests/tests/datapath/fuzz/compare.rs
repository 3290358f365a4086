//! What world and model remember, side by side.

use lb_agent::domain::kernel::Kernel as _;
use lb_common::{flow::Kind, vlan::Tags};
use lb_tests::model::table::Way;

use super::arena::{Arena, Halt};

/// Tags as the flow table has them.
fn tags(way: &Way) -> Tags {
    let tags = way.tags.iter();
    tags.fold(Tags::NONE, |tags, tag| tags.with(tag.kind, tag.vlan))
}

impl Arena<'_> {
    /// Compares what both remember: every slot, and the counters.
    pub(crate) fn compare_tables(&mut self) -> Result<(), Halt> {
        for v6 in [false, true] {
            for slot in 0..self.direct.slots() {
                let held = self.direct.held(v6, slot);
                let half = self.model.tables[usize::from(v6)].at(slot);
                let same = match (&held, half) {
                    (None, None) => true,
                    (Some(held), Some(half)) => {
                        held.tag.state() == Some(half.state)
                            && held.tag.kind() == Some(half.kind)
                            && held.tag.proto() == half.key.proto
                            && held.half.backend == half.backend
                            && (half.kind == Kind::Forward
                                || (held.half.dmac, held.half.tags)
                                    == (half.way.dmac, tags(&half.way)))
                    }
                    _ => false,
                };
                if !same {
                    let what =
                        format!("slot {slot}, v6 {v6}:\nmodel:    {half:?}\nprograms: {held:?}");
                    return Err(Halt::Difference(what));
                }
            }
        }
        Ok(())
    }

    /// Compares the counters of backends and block rules.
    pub(crate) fn compare_counters(&self) -> Result<(), Halt> {
        let there = &self.model.destinations;
        for id in there.backends.keys() {
            let expected = there.stats.get(id).copied().unwrap_or_default();
            let found = self.world.datapath.backend_stats(*id).expect("counters");
            if found != expected {
                let what = format!("backend {id}: model {expected:?}, programs {found:?}");
                return Err(Halt::Difference(what));
            }
        }
        for (prefix, expected) in &there.blocks {
            let found = self
                .world
                .datapath
                .block_stats(&[*prefix])
                .expect("counters");
            if found != [*expected] {
                let what = format!("block {prefix}: model {expected:?}, programs {found:?}");
                return Err(Halt::Difference(what));
            }
        }
        Ok(())
    }
}
