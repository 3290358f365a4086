//! The block list in the kernel: tries per family, a counter per rule, and the control word that
//! says whether there is anything to look for.

use std::collections::BTreeMap;

use aya::maps::{PerCpuValues, lpm_trie::Key};
use ipnet::IpNet;
use lb_common::{
    block::{BlockControl, BlockRule},
    entry::Counter,
};

use super::{Datapath, encode};
use crate::domain::kernel::KernelError;

/// What stands in the tries: prefix and number of its counter.
#[derive(Debug, Default)]
pub(crate) struct Rules(BTreeMap<IpNet, u32>);

impl Rules {
    pub(crate) fn counters(&self) -> BTreeMap<IpNet, u32> {
        self.0.clone()
    }

    fn control(&self) -> BlockControl {
        let rules4 = self
            .0
            .keys()
            .filter(|prefix| matches!(prefix, IpNet::V4(_)))
            .count();
        BlockControl {
            rules4: rules4 as u32,
            rules6: (self.0.len() - rules4) as u32,
        }
    }
}

impl Datapath {
    /// Reads what a former agent left.
    pub(crate) fn read_blocked(&mut self) -> Result<(), KernelError> {
        let failed = |error| KernelError::new("reading the block list", error);
        let mut rules = BTreeMap::new();
        for entry in self.block4.iter() {
            let (key, rule) = entry.map_err(failed)?;
            let ip = encode::ip([key.data(), 0, 0, 0], false);
            if let Ok(prefix) = IpNet::new(ip, key.prefix_len() as u8) {
                rules.insert(prefix, rule.id);
            }
        }
        for entry in self.block6.iter() {
            let (key, rule) = entry.map_err(failed)?;
            if let Ok(prefix) = IpNet::new(encode::ip(key.data(), true), key.prefix_len() as u8) {
                rules.insert(prefix, rule.id);
            }
        }
        self.blocked = Rules(rules);
        // It may have ended between a rule and this.
        self.write_control()
    }

    pub(crate) fn write_rule(&mut self, prefix: IpNet, counter: u32) -> Result<(), KernelError> {
        let what = || format!("blocking {prefix}");
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| KernelError::new(what(), error))?;
        let zero = PerCpuValues::try_from(vec![Counter::default(); cpus])
            .map_err(|error| KernelError::new(what(), error))?;
        self.block_stats
            .set(counter, zero, 0)
            .map_err(|error| KernelError::new(what(), error))?;
        let rule = BlockRule { id: counter };
        let length = u32::from(prefix.prefix_len());
        let words = encode::words(prefix.network());
        match prefix {
            IpNet::V4(_) => self.block4.insert(&Key::new(length, words[0]), rule, 0),
            IpNet::V6(_) => self.block6.insert(&Key::new(length, words), rule, 0),
        }
        .map_err(|error| KernelError::new(what(), error))?;
        self.blocked.0.insert(prefix, counter);
        self.write_control()
    }

    pub(crate) fn remove_rule(&mut self, prefix: IpNet) -> Result<(), KernelError> {
        let what = || format!("unblocking {prefix}");
        if !self.blocked.0.contains_key(&prefix) {
            return Ok(());
        }
        let length = u32::from(prefix.prefix_len());
        let words = encode::words(prefix.network());
        match prefix {
            IpNet::V4(_) => self.block4.remove(&Key::new(length, words[0])),
            IpNet::V6(_) => self.block6.remove(&Key::new(length, words)),
        }
        .map_err(|error| KernelError::new(what(), error))?;
        // Not before: a removal that failed is tried again.
        self.blocked.0.remove(&prefix);
        self.write_control()
    }

    fn write_control(&mut self) -> Result<(), KernelError> {
        self.block_control
            .set(0, self.blocked.control(), 0)
            .map_err(|error| KernelError::new("switching the block list", error))
    }
}
