//! Records of what the proxy does, on their way to whoever writes them down.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::mpsc;

use crate::domain::http::exchange::Exchange;

/// Takes records without ever waiting. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    records: Option<mpsc::Sender<Exchange>>,
    dropped: Arc<AtomicU64>,
}

impl Telemetry {
    /// Hands records to the other end of `records`.
    pub fn to(records: mpsc::Sender<Exchange>) -> Self {
        Self {
            records: Some(records),
            dropped: Arc::default(),
        }
    }

    /// Whether anybody reads records.
    pub fn wants_records(&self) -> bool {
        self.records.is_some()
    }

    /// Takes a record; where the reader is too slow, it is dropped and counted.
    pub fn record(&self, exchange: Exchange) {
        if let Some(records) = &self.records
            && records.try_send(exchange).is_err()
        {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}
