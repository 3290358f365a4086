//! Steady traffic in the background, with a record of every request: who answered, what failed
//! and when, and the longest time without an answer.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    client::{Client, RequestError, Spread, runtime_inside},
    exchange::get_mark,
};

/// Rest after a failed request, so that a dead server does not cost a core.
const AFTER_FAILURE: Duration = Duration::from_millis(5);

/// How much traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Threads that send, each one request at a time.
    pub threads: usize,
    /// Requests a second over all threads; `None`: as many as go.
    pub rate: Option<f64>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was begun, since the start of the load.
    pub began: Duration,
    /// When its outcome was known, since the start of the load.
    pub ended: Duration,
    /// The backend that answered, or why there is no answer.
    pub outcome: Result<String, RequestError>,
}

/// Requests `GET /` to an echo service, a new connection each, until stopped or dropped.
#[derive(Debug)]
pub struct Load {
    start: Instant,
    stop: Arc<AtomicBool>,
    samples: Vec<Arc<Mutex<Vec<Sample>>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins to send from the client's namespace to `to`.
    pub fn start(client: &Client, to: SocketAddr, pace: Pace) -> Self {
        let mut load = Self {
            start: Instant::now(),
            stop: Arc::default(),
            samples: Vec::new(),
            threads: Vec::new(),
        };
        for _ in 0..pace.threads {
            let samples = Arc::<Mutex<Vec<Sample>>>::default();
            let worker = Worker {
                client: client.clone(),
                to,
                interval: pace
                    .rate
                    .map(|rate| Duration::from_secs_f64(pace.threads as f64 / rate)),
                start: load.start,
                stop: Arc::clone(&load.stop),
                samples: Arc::clone(&samples),
            };
            load.samples.push(samples);
            load.threads.push(thread::spawn(move || worker.run()));
        }
        load
    }

    /// Time since the start, to mark a moment in the record.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// What has happened so far.
    pub fn record(&self) -> Record {
        let mut samples = Vec::new();
        for part in &self.samples {
            samples.extend_from_slice(&part.lock().unwrap_or_else(PoisonError::into_inner));
        }
        samples.sort_by_key(|sample| sample.ended);
        Record {
            samples,
            until: self.now(),
        }
    }

    /// Stops sending, lets requests under way end, and returns everything.
    pub fn stop(mut self) -> Record {
        self.halt();
        self.record()
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join()
                && !thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.halt();
    }
}

struct Worker {
    client: Client,
    to: SocketAddr,
    interval: Option<Duration>,
    start: Instant,
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl Worker {
    fn run(&self) {
        match runtime_inside(self.client.namespace()) {
            Ok(runtime) => runtime.block_on(self.send()),
            Err(error) => {
                let now = self.start.elapsed();
                self.note(now, Err(error));
            }
        }
    }

    async fn send(&self) {
        let mut due = tokio::time::Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let began = self.start.elapsed();
            let outcome = get_mark(&self.client.options, self.to).await;
            let failed = outcome.is_err();
            self.note(began, outcome);
            if failed {
                tokio::time::sleep(AFTER_FAILURE).await;
            }
            if let Some(interval) = self.interval {
                // After a stall it goes on at the usual pace and does not catch up.
                due = (due + interval).max(tokio::time::Instant::now() - interval);
                tokio::time::sleep_until(due).await;
            }
        }
    }

    fn note(&self, began: Duration, outcome: Result<String, RequestError>) {
        let ended = self.start.elapsed();
        let sample = Sample {
            began,
            ended,
            outcome,
        };
        self.samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sample);
    }
}

/// Requests, ordered by their end, up to some moment.
#[derive(Clone, Debug)]
pub struct Record {
    samples: Vec<Sample>,
    /// When the record was taken, since the start of the load.
    pub until: Duration,
}

impl Record {
    /// Every request, ordered by its end.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Who answered the requests *begun* from `from` until `to`, and what failed of them.
    pub fn between(&self, from: Duration, to: Duration) -> Spread {
        let mut spread = Spread::default();
        for sample in &self.samples {
            if (from..to).contains(&sample.began) {
                spread.count(sample.outcome.clone());
            }
        }
        spread
    }

    /// The same for all requests.
    pub fn all(&self) -> Spread {
        self.between(Duration::ZERO, Duration::MAX)
    }

    /// Failed requests, ordered by their end.
    pub fn failures(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| sample.outcome.is_err())
    }

    /// The longest time without an answer between `from` and the end of the record.
    pub fn longest_gap(&self, from: Duration) -> Duration {
        let answers = self.samples.iter().filter(|sample| sample.outcome.is_ok());
        let ends = answers
            .map(|sample| sample.ended)
            .filter(|ended| *ended > from)
            .chain([self.until]);
        let mut last = from;
        let mut longest = Duration::ZERO;
        for ended in ends {
            longest = longest.max(ended.saturating_sub(last));
            last = ended;
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rows: &[(u64, u64, Option<&str>)], until: u64) -> Record {
        let samples = rows.iter().map(|(began, ended, backend)| Sample {
            began: Duration::from_millis(*began),
            ended: Duration::from_millis(*ended),
            outcome: backend.map(str::to_owned).ok_or(RequestError::Unmarked),
        });
        Record {
            samples: samples.collect(),
            until: Duration::from_millis(until),
        }
    }

    #[test]
    fn a_request_belongs_to_the_time_it_was_begun_in() {
        let record = record(
            &[(0, 5, Some("a")), (10, 300, None), (20, 30, Some("b"))],
            400,
        );
        let ms = Duration::from_millis;
        assert_eq!(record.all().answered(), 2);
        assert_eq!(record.all().failed(), 1);
        assert_eq!(record.between(ms(0), ms(10)).of("a"), 1);
        assert_eq!(record.between(ms(10), ms(20)).failed(), 1);
        assert_eq!(record.between(ms(11), ms(400)).failed(), 0);
    }

    #[test]
    fn gaps_count_to_the_end_of_the_record() {
        let ms = Duration::from_millis;
        let rows = [
            (0, 10, Some("a")),
            (10, 60, None),
            (10, 90, Some("a")),
            (90, 95, Some("a")),
        ];
        assert_eq!(record(&rows, 100).longest_gap(ms(0)), ms(80));
        assert_eq!(record(&rows, 300).longest_gap(ms(0)), ms(205));
        assert_eq!(record(&rows, 100).longest_gap(ms(50)), ms(40));
        assert_eq!(record(&[], 100).longest_gap(ms(30)), ms(70));
    }
}
