//! What a program and its children use: processor time and memory, of the kernel's accounts.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// A program, by the id of its first process. None: nothing is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage(pub(crate) Option<u32>);

impl Usage {
    /// Processor time of all threads that there are, exact (not in ticks).
    pub(crate) fn processor(self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for pid in self.family()? {
            let tasks = format!("/proc/{pid}/task");
            for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
                let file = task?.path().join("schedstat");
                // A thread may have ended since.
                if let Ok(text) = fs::read_to_string(&file) {
                    let first = text.split_whitespace().next();
                    nanoseconds += first.map_or(Ok(0), str::parse::<u64>)?;
                }
            }
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Bytes of memory, what is shared counted in proportion.
    pub(crate) fn memory(self) -> Result<u64> {
        let mut bytes = 0;
        for pid in self.family()? {
            let file = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
            let pss = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kilobytes = pss.and_then(|rest| rest.split_whitespace().next());
            let kilobytes = kilobytes.with_context(|| format!("{file} has no Pss"))?;
            bytes += kilobytes.parse::<u64>()? * 1024;
        }
        Ok(bytes)
    }

    /// The process and its children.
    fn family(self) -> Result<Vec<u32>> {
        let Some(pid) = self.0 else {
            return Ok(Vec::new());
        };
        let file = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let mut family = vec![pid];
        for child in text.split_whitespace() {
            family.push(child.parse()?);
        }
        Ok(family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_use_grows() {
        let usage = Usage(Some(std::process::id()));
        let (time, memory) = (usage.processor().unwrap(), usage.memory().unwrap());
        let block = std::hint::black_box(vec![1_u8; 32 << 20]);
        assert!(usage.processor().unwrap() > time);
        assert!(usage.memory().unwrap() > memory + (16 << 20));
        drop(block);
        assert_eq!(Usage(None).memory().unwrap(), 0);
    }
}
