//! Between requests and who writes of them: bounded by records and by what they hold.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::mpsc;

use crate::domain::http::exchange::Exchange;

/// Texts of a record that no account is kept of, in bytes.
const USUAL: usize = 4 << 10;
/// What texts of all records in a queue may hold beyond that: clients choose them, and a head is 64 KB
/// by default.
const UNUSUAL: usize = 16 << 20;

/// The end that requests have. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    records: mpsc::Sender<Exchange>,
    held: Arc<AtomicUsize>,
}

/// The end that a writer has.
#[derive(Debug)]
pub(super) struct Receiver {
    records: mpsc::Receiver<Exchange>,
    held: Arc<AtomicUsize>,
}

/// A queue of that many records.
pub(super) fn queue(records: usize) -> (Sender, Receiver) {
    let (sender, records) = mpsc::channel(records);
    let sender = Sender::to(sender);
    let held = Arc::clone(&sender.held);
    (sender, Receiver { records, held })
}

impl Sender {
    /// Whoever reads there gives no room back.
    pub(super) fn to(records: mpsc::Sender<Exchange>) -> Self {
        Self {
            records,
            held: Arc::default(),
        }
    }

    /// Whether there is room for a record, which is gone otherwise.
    pub(super) fn offer(&self, exchange: Exchange) -> bool {
        let unusual = unusual(&exchange);
        // Not exact among threads: each may be beyond by one record.
        if unusual > 0 && self.held.load(Relaxed) + unusual > UNUSUAL {
            return false;
        }
        take(&self.held, unusual);
        let taken = self.records.try_send(exchange).is_ok();
        if !taken {
            give(&self.held, unusual);
        }
        taken
    }
}

impl Receiver {
    /// The next; `None`: there will be no more.
    pub(super) async fn recv(&mut self) -> Option<Exchange> {
        let record = self.records.recv().await?;
        give(&self.held, unusual(&record));
        Some(record)
    }

    /// Appends as many as there are, up to `most`, at least one; 0: there will be no more.
    pub(super) async fn recv_many(&mut self, records: &mut Vec<Exchange>, most: usize) -> usize {
        let count = self.records.recv_many(records, most).await;
        let fresh = records.iter().rev().take(count);
        give(&self.held, fresh.map(unusual).sum());
        count
    }

    /// What is queued still comes.
    pub(super) fn close(&mut self) {
        self.records.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.records.is_closed()
    }
}

/// Nearly no record has any: threads do not meet here.
fn take(held: &AtomicUsize, unusual: usize) {
    if unusual > 0 {
        held.fetch_add(unusual, Relaxed);
    }
}

fn give(held: &AtomicUsize, unusual: usize) {
    if unusual > 0 {
        held.fetch_sub(unusual, Relaxed);
    }
}

fn unusual(exchange: &Exchange) -> usize {
    exchange.texts().saturating_sub(USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::telemetry::sample::exchange;

    fn long() -> Exchange {
        Exchange {
            target: format!("/{}", "a".repeat(60 << 10)),
            ..exchange()
        }
    }

    fn fill(sender: &Sender) -> usize {
        (0..8192).take_while(|_| sender.offer(long())).count()
    }

    #[tokio::test]
    async fn long_texts_are_bounded_together() {
        let (sender, mut receiver) = queue(8192);
        let many = fill(&sender);
        let bytes = many * long().texts();
        assert!((UNUSUAL..UNUSUAL + UNUSUAL / 4).contains(&bytes), "{bytes}");
        // Others have room.
        assert!(sender.offer(exchange()));
        receiver.recv().await.unwrap();
        assert_eq!(fill(&sender), 1);
        let mut all = Vec::new();
        while all.len() < many + 1 {
            receiver.recv_many(&mut all, 100).await;
        }
        assert_eq!(fill(&sender), many);
        receiver.close();
        assert!(!sender.offer(exchange()));
    }

    /// What has no place among records takes none of what texts may hold.
    #[tokio::test]
    async fn refused_records_hold_nothing() {
        let (sender, mut receiver) = queue(1);
        for _ in 0..2000 {
            sender.offer(long());
        }
        assert!(receiver.recv().await.is_some());
        assert!(sender.offer(long()));
        assert!(receiver.recv().await.is_some());
        assert_eq!(sender.held.load(Relaxed), 0);
    }
}
