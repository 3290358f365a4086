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

/// What stands in the tries: prefix and number of its counter; and how many there are of each
/// family.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    counters: BTreeMap<IpNet, u32>,
    control: BlockControl,
}

impl Rules {
    fn new(counters: BTreeMap<IpNet, u32>) -> Self {
        let v4 = |prefix: &&IpNet| matches!(prefix, IpNet::V4(_));
        let rules4 = counters.keys().filter(v4).count() as u32;
        let rules6 = counters.len() as u32 - rules4;
        Self {
            counters,
            control: BlockControl { rules4, rules6 },
        }
    }

    pub(crate) fn counters(&self) -> BTreeMap<IpNet, u32> {
        self.counters.clone()
    }

    fn insert(&mut self, prefix: IpNet, counter: u32) {
        if self.counters.insert(prefix, counter).is_none() {
            *self.count(prefix) += 1;
        }
    }

    fn remove(&mut self, prefix: IpNet) {
        if self.counters.remove(&prefix).is_some() {
            *self.count(prefix) -= 1;
        }
    }

    fn count(&mut self, prefix: IpNet) -> &mut u32 {
        match prefix {
            IpNet::V4(_) => &mut self.control.rules4,
            IpNet::V6(_) => &mut self.control.rules6,
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
        self.blocked = Rules::new(rules);
        // The last agent may have ended between a rule and this.
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
        self.blocked.insert(prefix, counter);
        self.write_control()
    }

    pub(crate) fn remove_rule(&mut self, prefix: IpNet) -> Result<(), KernelError> {
        let what = || format!("unblocking {prefix}");
        if !self.blocked.counters.contains_key(&prefix) {
            return Ok(());
        }
        let length = u32::from(prefix.prefix_len());
        let words = encode::words(prefix.network());
        match prefix {
            IpNet::V4(_) => self.block4.remove(&Key::new(length, words[0])),
            IpNet::V6(_) => self.block6.remove(&Key::new(length, words)),
        }
        .map_err(|error| KernelError::new(what(), error))?;
        self.blocked.remove(prefix);
        self.write_control()
    }

    fn write_control(&mut self) -> Result<(), KernelError> {
        self.block_control
            .set(0, self.blocked.control, 0)
            .map_err(|error| KernelError::new("switching the block list", error))
    }
}
