//! Entries of the backend map that were found right, known again by a number each. To look up what
//! ought to stand in an entry takes many times as long, and there may be a hundred thousand.

use lb_common::entry::BackendEntry;

use super::fingerprint;

/// Numbers by the backend's id, up to the highest that was found right; 0: not known.
#[derive(Debug, Default)]
pub(in crate::datapath) struct Prints(Vec<u64>);

impl Prints {
    /// Whether the entry is the one that was found right last.
    pub(in crate::datapath) fn knows(&self, id: u32, entry: &BackendEntry) -> bool {
        let known = self.0.get(id as usize);
        known.is_some_and(|known| *known == print(entry))
    }

    /// Notes that the entry is right, until [`Self::forget`].
    pub(in crate::datapath) fn note(&mut self, id: u32, entry: &BackendEntry) {
        let at = id as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        self.0[at] = print(entry);
    }

    /// Whatever stands there has to be looked at again.
    pub(in crate::datapath) fn forget(&mut self, id: u32) {
        if let Some(known) = self.0.get_mut(id as usize) {
            *known = 0;
        }
    }
}

/// Never 0.
fn print(entry: &BackendEntry) -> u64 {
    let BackendEntry {
        addr: [a, b, c, d],
        source: [e, f, g, h],
        port,
        flags,
        hop,
        service,
        family,
        reserved: [i, j, k, l],
    } = *entry;
    let ends = u32::from(port) << 16 | u32::from(flags);
    let words = [
        a, b, c, d, e, f, g, h, ends, hop, service, family, i, j, k, l,
    ];
    fingerprint(&words).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> BackendEntry {
        BackendEntry {
            addr: [1, 0, 0, 0],
            source: [2, 0, 0, 0],
            port: 80,
            flags: 1,
            hop: 9,
            service: 3,
            family: 2,
            reserved: [0; 4],
        }
    }

    #[test]
    fn any_other_entry_is_another() {
        let mut prints = Prints::default();
        assert!(!prints.knows(5, &entry()), "nothing was found yet");
        prints.note(5, &entry());
        assert!(prints.knows(5, &entry()));
        assert!(!prints.knows(4, &entry()), "of another backend");
        let changes: [fn(&mut BackendEntry); 9] = [
            |entry| entry.addr[3] = 1,
            |entry| entry.addr.swap(0, 1),
            |entry| entry.source[0] = 1,
            |entry| entry.port = 81,
            |entry| entry.flags = 0,
            |entry| entry.hop = 8,
            |entry| entry.service = 4,
            |entry| entry.family = 10,
            |entry| entry.reserved[3] = 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = entry();
            change(&mut other);
            assert!(!prints.knows(5, &other), "change {number}");
        }
        prints.forget(5);
        prints.forget(70);
        assert!(!prints.knows(5, &entry()));
    }
}
