//! The end of a drain: what is left of a backend's flows is cut.

use std::collections::BTreeSet;

use lb_common::flow::{Kind, State};

use super::{Entry, Fate, FlowTables};
use crate::domain::{drain::is_open, kernel::KernelError};

impl FlowTables {
    /// Ends the open flows of these backends; answers with their number.
    ///
    /// # Errors
    ///
    /// A table that cannot be mapped.
    pub(crate) fn cut_open(&self, backends: &BTreeSet<u32>) -> Result<u64, KernelError> {
        let mut cut = 0;
        self.visit::<u32, 0>(&self.v4, |entry| cut_open_of(entry, backends, &mut cut))?;
        self.visit::<[u32; 4], 4>(&self.v6, |entry| cut_open_of(entry, backends, &mut cut))?;
        Ok(cut)
    }
}

fn cut_open_of<A>(entry: &Entry<A>, backends: &BTreeSet<u32>, cut: &mut u64) -> Fate {
    let open = State::from_bits(entry.tag.state_bits()).is_some_and(is_open);
    if !open || !backends.contains(&entry.half.backend) {
        return Fate::Keep;
    }
    *cut += u64::from(entry.tag.kind() == Some(Kind::Forward));
    Fate::End
}
