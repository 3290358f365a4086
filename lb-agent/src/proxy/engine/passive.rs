//! What requests tell of backends, for their ejection and for the gates of splits.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::view::{Backend, View};
use crate::domain::{gate::Timed, signal::Signal};

/// A failure that is no status. The numbers are below those of statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    Connect = 1,
    Reset = 2,
    Slow = 3,
    Unavailable = 4,
}

impl Backend {
    /// An answer that is none of the server's errors.
    pub(super) fn succeeded(&self) {
        self.seen.succeeded.fetch_add(1, Relaxed);
    }

    pub(super) fn answered(&self, status: u16) {
        if status < 500 {
            self.succeeded();
        } else {
            self.failed_as(status.into());
        }
    }

    pub(super) fn failed(&self, mishap: Mishap) {
        self.failed_as(mishap as u32);
    }

    /// An answer was waited for so long, whether it came or not.
    pub(super) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.seen.took_us.fetch_add(micros, Relaxed);
        self.seen.timed.fetch_add(1, Relaxed);
    }

    fn failed_as(&self, failure: u32) {
        self.seen.failure.store(failure, Relaxed);
        self.seen.failed.fetch_add(1, Relaxed);
    }
}

/// What was seen since this was last asked, of backends that had requests.
pub(super) fn take(view: &View) -> Vec<Signal> {
    let backends = view.services.values().flat_map(|service| &service.backends);
    backends
        .filter_map(|backend| {
            let succeeded = backend.seen.succeeded.swap(0, Relaxed);
            let failed = backend.seen.failed.swap(0, Relaxed);
            if succeeded + failed == 0 {
                return None;
            }
            let timed = Timed {
                count: backend.seen.timed.swap(0, Relaxed),
                took_us: backend.seen.took_us.swap(0, Relaxed),
            };
            let failure = match backend.seen.failure.load(Relaxed) {
                1 => "not connected".into(),
                2 => "connection broken".into(),
                3 => "no answer in time".into(),
                4 => "grpc-status 14".into(),
                status => format!("status {status}"),
            };
            let service = backend.service.as_ref().to_owned();
            let counts = (succeeded, failed);
            Some(Signal::of_requests(
                service,
                backend.address,
                counts,
                failure,
                timed,
            ))
        })
        .collect()
}
