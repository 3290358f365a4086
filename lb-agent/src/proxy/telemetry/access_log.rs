//! The access log: a line for each request, written by a thread of its own.
//!
//! A disk that is full or a terminal that takes nothing costs lines, which are counted, and never
//! a request: those only put records into a bounded queue.

mod combined;
mod json;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time,
};

use super::{counts::Losses, queue::Receiver};
use crate::{
    config::proxy::{AccessLogConfig, AccessLogFormat},
    domain::http::exchange::Exchange,
};

/// Lines that are written at once.
const BATCH: usize = 256;
/// Between complaints that lines cannot be written.
const COMPLAINTS: Duration = Duration::from_secs(60);
/// How long the last lines may take.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The log that runs.
#[derive(Debug)]
pub struct AccessLog {
    orders: mpsc::UnboundedSender<Order>,
    ended: oneshot::Receiver<()>,
    signals: Option<AbortHandle>,
}

/// What the thread is told besides records.
#[derive(Debug)]
enum Order {
    Reopen,
    End,
}

/// Opens the file and starts the thread, and a task that has the file opened anew on SIGUSR1.
pub(super) fn start(
    config: &AccessLogConfig,
    records: Receiver,
    losses: Arc<Losses>,
) -> Result<AccessLog, OpenError> {
    let writer = Writer::open(config.clone(), losses)?;
    let (orders, ordered) = mpsc::unbounded_channel();
    let (ending, ended) = oneshot::channel();
    let runtime = runtime::Builder::new_current_thread()
        .build()
        .map_err(OpenError::Thread)?;
    thread::Builder::new()
        .name("access-log".into())
        .spawn(move || {
            runtime.block_on(write(writer, records, ordered));
            // Whoever would hear it has gone already otherwise.
            ending.send(()).ok();
        })
        .map_err(OpenError::Thread)?;
    let signals = match config.file {
        Some(_) => Some(reopen_on_signal(orders.clone())?),
        None => None,
    };
    Ok(AccessLog {
        orders,
        ended,
        signals,
    })
}

fn reopen_on_signal(orders: mpsc::UnboundedSender<Order>) -> Result<AbortHandle, OpenError> {
    let mut signals = signal(SignalKind::user_defined1()).map_err(OpenError::Signal)?;
    let task = tokio::spawn(async move {
        while signals.recv().await.is_some() {
            if orders.send(Order::Reopen).is_err() {
                return;
            }
        }
    });
    Ok(task.abort_handle())
}

impl AccessLog {
    /// Writes down what is queued, for two seconds at most, and ends.
    pub(super) async fn finish(self) {
        if let Some(signals) = &self.signals {
            signals.abort();
        }
        if self.orders.send(Order::End).is_ok()
            && time::timeout(LAST_LINES, self.ended).await.is_err()
        {
            tracing::warn!("the access log does not take its last lines");
        }
    }
}

async fn write(
    mut writer: Writer,
    mut records: Receiver,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            Some(order) = orders.recv() => match order {
                Order::Reopen => writer.reopen(),
                // What is queued is still written.
                Order::End => records.close(),
            },
            count = records.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return;
                }
                writer.write(&batch);
                batch.clear();
            }
        }
    }
}

/// Where lines go.
struct Writer {
    config: AccessLogConfig,
    file: Option<Sink<File>>,
    stderr: Option<Sink<io::Stderr>>,
    losses: Arc<Losses>,
    lines: Vec<u8>,
}

impl Writer {
    fn open(config: AccessLogConfig, losses: Arc<Losses>) -> Result<Self, OpenError> {
        let file = match &config.file {
            Some(path) => Some(Sink::new(open(path)?)),
            None => None,
        };
        Ok(Self {
            file,
            stderr: config.stderr.then(|| Sink::new(io::stderr())),
            config,
            losses,
            lines: Vec::new(),
        })
    }

    /// Opens the file by its name again; where that fails, the old one stays.
    fn reopen(&mut self) {
        let Some(path) = &self.config.file else {
            return;
        };
        match open(path) {
            Ok(file) => self.file = Some(Sink::new(file)),
            Err(error) => tracing::error!("the access log goes on in its old file: {error}"),
        }
    }

    fn write(&mut self, batch: &[Exchange]) {
        self.lines.clear();
        for exchange in batch {
            match self.config.format {
                AccessLogFormat::Json => json::write(&mut self.lines, exchange),
                AccessLogFormat::Combined => combined::write(&mut self.lines, exchange),
            }
            self.lines.push(b'\n');
        }
        let mut lost = false;
        if let Some(sink) = &mut self.file {
            lost |= !sink.write(&self.lines, "file");
        }
        if let Some(sink) = &mut self.stderr {
            lost |= !sink.write(&self.lines, "standard error");
        }
        if lost {
            batch.iter().for_each(|_| self.losses.line());
        }
    }
}

/// One of the places.
struct Sink<W> {
    to: W,
    /// The last write failed, maybe within a line.
    torn: bool,
    complained: Option<Instant>,
}

impl<W: Write> Sink<W> {
    fn new(to: W) -> Self {
        Self {
            to,
            torn: false,
            complained: None,
        }
    }

    /// Whether all of it was taken.
    fn write(&mut self, lines: &[u8], place: &str) -> bool {
        let beginning: &[u8] = if self.torn { b"\n" } else { b"" };
        let result = self
            .to
            .write_all(beginning)
            .and_then(|()| self.to.write_all(lines));
        self.torn = result.is_err();
        let Err(error) = result else {
            return true;
        };
        let silent = self
            .complained
            .is_some_and(|complained| complained.elapsed() < COMPLAINTS);
        if !silent {
            tracing::error!("cannot write the access log to its {place}; lines are lost: {error}");
            self.complained = Some(Instant::now());
        }
        false
    }
}

fn open(path: &PathBuf) -> Result<File, OpenError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|source| OpenError::File {
            path: path.clone(),
            source,
        })
}

/// Why there is no access log.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its file.
    #[error("cannot open the access log {}: {source}", path.display())]
    File {
        /// Of the file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its thread.
    #[error("cannot start the thread of the access log: {0}")]
    Thread(#[source] io::Error),
    /// SIGUSR1.
    #[error("cannot wait for SIGUSR1, by which the access log is opened anew: {0}")]
    Signal(#[source] io::Error),
}

#[cfg(test)]
mod tests;
