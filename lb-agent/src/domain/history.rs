//! What has happened to the backends: the latest changes of each, for whoever asks later.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::SystemTime,
};

use super::backend::InstanceId;

/// Changes kept of all backends together.
pub const MOST: usize = 8192;
/// Changes kept of one backend: one that flaps must not push out the others'.
pub const MOST_OF_ONE: usize = 64;

/// Whose word a change was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The agent's probes.
    Probe,
    /// Consul or the configuration.
    Catalog,
    /// A person, by a command.
    Operator,
    /// Clients' connections, as the flow tables show them.
    Flows,
    /// Requests through the proxy.
    Proxy,
}

impl Source {
    /// In the API and the log.
    pub fn name(self) -> &'static str {
        match self {
            Source::Probe => "probe",
            Source::Catalog => "catalog",
            Source::Operator => "operator",
            Source::Flows => "flows",
            Source::Proxy => "proxy",
        }
    }
}

impl From<super::passive::Witness> for Source {
    fn from(witness: super::passive::Witness) -> Self {
        match witness {
            super::passive::Witness::Flows => Source::Flows,
            super::passive::Witness::Proxy => Source::Proxy,
        }
    }
}

/// One change of one backend. Health and what the operator wants are two things: a change is of
/// one of them, and the words are that one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: SystemTime,
    /// The service.
    pub service: String,
    /// Identity within it.
    pub id: InstanceId,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it was, e.g. `healthy`.
    pub from: &'static str,
    /// What it is now, e.g. `unhealthy`.
    pub to: &'static str,
    /// Why, in a sentence without its full stop.
    pub reason: String,
    /// Who says so.
    pub source: Source,
}

/// The latest changes, oldest first.
#[derive(Debug, Default)]
pub struct History {
    changes: VecDeque<Change>,
    counts: HashMap<(String, InstanceId), usize>,
}

impl History {
    /// Adds a change; the oldest of the same backend, or of all, makes room.
    pub fn record(&mut self, change: Change) {
        let key = (change.service.clone(), change.id.clone());
        if self
            .counts
            .get(&key)
            .is_some_and(|count| *count >= MOST_OF_ONE)
        {
            let same = |each: &Change| each.service == key.0 && each.id == key.1;
            if let Some(oldest) = self.changes.iter().position(same) {
                self.remove(oldest);
            }
        } else if self.changes.len() >= MOST {
            self.remove(0);
        }
        *self.counts.entry(key).or_default() += 1;
        self.changes.push_back(change);
    }

    fn remove(&mut self, index: usize) {
        let Some(change) = self.changes.remove(index) else {
            return;
        };
        let key = (change.service, change.id);
        if let Some(count) = self.counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
    }

    /// The changes of a service, of a backend by its id or address, or (`None`) all, oldest first.
    pub fn of<'a>(&'a self, wanted: Option<&'a str>) -> impl Iterator<Item = &'a Change> {
        let address: Option<SocketAddr> = wanted.and_then(|text| text.parse().ok());
        self.changes.iter().filter(move |change| {
            wanted.is_none_or(|text| {
                change.service == text || *change.id.0 == *text || Some(change.address) == address
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn change(second: u64, service: &str, host: u16) -> Change {
        Change {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            service: service.into(),
            id: InstanceId(format!("n/{host}").into()),
            address: ([10, 0, 0, 1], host).into(),
            from: "healthy",
            to: "unhealthy",
            reason: "a probe failed".into(),
            source: Source::Probe,
        }
    }

    fn seconds<'a>(changes: impl Iterator<Item = &'a Change>) -> Vec<u64> {
        let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        changes.map(|change| since(change.at)).collect()
    }

    #[test]
    fn by_service_id_or_address() {
        let mut history = History::default();
        for (second, service, host) in [(1, "a", 1), (2, "a", 2), (3, "b", 1), (4, "a", 1)] {
            history.record(change(second, service, host));
        }
        let rows: [(Option<&str>, &[u64]); 6] = [
            (None, &[1, 2, 3, 4]),
            (Some("a"), &[1, 2, 4]),
            (Some("b"), &[3]),
            (Some("n/1"), &[1, 3, 4]),
            (Some("10.0.0.1:2"), &[2]),
            (Some("10.0.0.1"), &[]),
        ];
        for (wanted, expected) in rows {
            assert_eq!(seconds(history.of(wanted)), expected, "{wanted:?}");
        }
    }

    /// One that flaps pushes out its own changes only.
    #[test]
    fn one_that_flaps() {
        let mut history = History::default();
        history.record(change(0, "a", 1));
        let last = 10 * MOST_OF_ONE as u64;
        for second in 1..=last {
            history.record(change(second, "a", 2));
        }
        assert_eq!(seconds(history.of(Some("n/1"))), [0]);
        let kept = seconds(history.of(Some("n/2")));
        assert_eq!(kept.len(), MOST_OF_ONE);
        assert_eq!(kept.last(), Some(&last));
        assert!(kept.is_sorted());
    }

    /// However many backends there are, the whole is bounded, and what went is no longer counted.
    #[test]
    fn bounded_as_a_whole() {
        let mut history = History::default();
        for second in 0..3 * MOST as u64 {
            history.record(change(second, "a", (second % 50_000) as u16));
        }
        let kept = seconds(history.of(None));
        assert_eq!((kept.len(), kept[0]), (MOST, 2 * MOST as u64));
        assert_eq!(history.counts.values().sum::<usize>(), MOST);
        assert_eq!(history.counts.len(), MOST);
    }
}
