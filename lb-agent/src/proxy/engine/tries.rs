//! As many tries as a request may have.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use http::StatusCode;

use super::{
    Engine,
    answer::Refusal,
    attempt::{Answer, Call, Cause, Failed},
    clock::Deadline,
    ledger::{Ledger, grpc_status},
    view::Backend,
};
use crate::domain::http::{
    exchange::{Outcome, Try},
    pick::{Load, Picker},
    policy::RetryPolicy,
    retry::{Failure, Rules, Sent, may_repeat},
};

/// Doubling of the pause between tries ends at so many times the first.
const MOST_PAUSE: u32 = 10;

/// What of a route changes the tries.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    pub(super) picker: &'a Picker,
    pub(super) rules: &'a Rules,
    pub(super) retries: u32,
    /// What the backend is chosen by, hashed.
    pub(super) key: Option<u64>,
}

/// A try that is over.
struct Tried {
    index: usize,
    result: Result<Answer, Failed>,
}

impl Engine {
    /// Tries until there is an answer for the client.
    pub(super) async fn answer(
        &self,
        call: &Call,
        tries: &Tries<'_>,
        ledger: &mut Ledger,
    ) -> Result<Answer, Refusal> {
        let mut tried = Vec::new();
        let mut last = None;
        loop {
            let Some(index) = self.choose(call, tries, &tried) else {
                return last.unwrap_or_else(|| Err(no_backend(call)));
            };
            tried.push(index);
            let began = Instant::now();
            let hedge = call
                .service
                .policy
                .hedge
                .as_ref()
                .filter(|_| call.is_hedgeable());
            let done = match hedge {
                Some(hedge) if tried.len() == 1 => {
                    Box::pin(self.hedged(call, tries, index, hedge.after, &mut tried, ledger)).await
                }
                _ => {
                    let result = self.attempt(call, &call.service.backends[index]).await;
                    Tried { index, result }
                }
            };
            let backend = &call.service.backends[done.index];
            if ledger.is_read() {
                ledger.tried(self.told(call, backend, began, &done.result, false));
            }
            let (failure, begun) = match &done.result {
                Ok(answer) => (failure_in(call, answer), true),
                Err(failed) => (failed.failure(), failed.begun),
            };
            let again = failure.filter(|failure| {
                let sent = Sent {
                    idempotent: call.idempotent,
                    begun,
                    replayable: call.is_replayable(),
                };
                tried.len() <= tries.retries as usize && may_repeat(*failure, sent, tries.rules)
            });
            let result = done.result.map_err(|failed| failed.refusal());
            let Some(failure) = again else { return result };
            if self.choose(call, tries, &tried).is_none() || !self.afford(call) {
                return result;
            }
            // No answer of which anything is wanted: its connection is closed with it.
            last = result.err().map(Err);
            let pause = match failure {
                Failure::Connect => Duration::ZERO,
                _ => self.pause(&call.service.policy.retry, tried.len() as u32),
            };
            if began + pause >= call.began + call.total {
                let late = Failed {
                    cause: Cause::Late,
                    begun,
                };
                return last.unwrap_or_else(|| Err(late.refusal()));
            }
            if !pause.is_zero() {
                Deadline::new(&self.clock, Instant::now() + pause)
                    .met()
                    .await;
            }
        }
    }

    /// A second try beside the first, once that has been alone for long enough.
    async fn hedged(
        &self,
        call: &Call,
        tries: &Tries<'_>,
        index: usize,
        after: Duration,
        tried: &mut Vec<usize>,
        ledger: &mut Ledger,
    ) -> Tried {
        let began = Instant::now();
        let mut first = std::pin::pin!(self.attempt(call, &call.service.backends[index]));
        let mut alone = Deadline::new(&self.clock, began + after);
        tokio::select! {
            biased;
            result = &mut first => return Tried { index, result },
            () = alone.met() => {}
        }
        let other = self
            .choose(call, tries, tried)
            .filter(|_| self.afford(call));
        let Some(other) = other else {
            return Tried {
                index,
                result: first.await,
            };
        };
        tried.push(other);
        let started = Instant::now();
        let mut second = std::pin::pin!(self.attempt(call, &call.service.backends[other]));
        let (done, rest) = tokio::select! {
            biased;
            result = &mut first => (Tried { index, result }, other),
            result = &mut second => (Tried { index: other, result }, index),
        };
        let good = |tried: &Tried| {
            tried
                .result
                .as_ref()
                .is_ok_and(|answer| failure_in(call, answer).is_none())
        };
        let done_is_good = good(&done);
        let note = |ledger: &mut Ledger, one: &Tried, at: Instant, hedge: bool| {
            if ledger.is_read() {
                let backend = &call.service.backends[one.index];
                ledger.tried(self.told(call, backend, at, &one.result, hedge));
            }
        };
        if done_is_good {
            let cancelled = Tried {
                index: rest,
                result: Err(Failed {
                    cause: Cause::Slow,
                    begun: true,
                }),
            };
            let at = if rest == other { started } else { began };
            note(ledger, &cancelled, at, rest == other);
            return done;
        }
        // The one has failed: the other decides.
        let at = if done.index == other { started } else { began };
        note(ledger, &done, at, done.index == other);
        if rest == other {
            Tried {
                index: other,
                result: second.await,
            }
        } else {
            Tried {
                index,
                result: first.await,
            }
        }
    }

    fn choose(&self, call: &Call, tries: &Tries<'_>, tried: &[usize]) -> Option<usize> {
        let backends = &call.service.backends;
        let slots = &call.service.slots;
        if let Some(key) = tries.key
            && !slots.is_empty()
            && std::ptr::eq(tries.picker, &call.service.all)
        {
            let home = slots[(key % slots.len() as u64) as usize] as usize;
            if !tried.contains(&home) {
                return Some(home);
            }
        }
        let now = self.nanoseconds(Instant::now());
        let load = |index: usize| {
            let backend = &backends[index];
            Load {
                latency: backend.latency.expected(now),
                requests: backend.requests.load(Relaxed),
            }
        };
        tries
            .picker
            .pick(|| self.random(), load, |index| tried.contains(&index))
    }

    /// Takes a retry from the budget.
    fn afford(&self, call: &Call) -> bool {
        let retry = &call.service.policy.retry;
        let second = self.nanoseconds(Instant::now()) / 1_000_000_000;
        call.service
            .life
            .budget
            .take(second, retry.budget, retry.floor)
    }

    /// Full jitter (Brooker, "Exponential Backoff And Jitter", 2015): from nothing to twice the
    /// average.
    fn pause(&self, retry: &RetryPolicy, tried: u32) -> Duration {
        let doubled = 1_u32
            .checked_shl(tried - 1)
            .unwrap_or(MOST_PAUSE)
            .min(MOST_PAUSE);
        let most = retry.backoff * doubled * 2;
        most.mul_f64(self.random.borrow_mut().f64())
    }

    fn told(
        &self,
        call: &Call,
        backend: &Arc<Backend>,
        began: Instant,
        result: &Result<Answer, Failed>,
        hedge: bool,
    ) -> Try {
        Try {
            backend: backend.address,
            subset: backend.subset.clone(),
            span: self.random() | 1,
            after: began.saturating_duration_since(call.began),
            waited: call.began.elapsed(),
            result: match result {
                Ok(answer) => Ok(answer.response.status().as_u16()),
                Err(failed) => Err(failed.describe()),
            },
            hedge,
        }
    }
}

impl Call {
    /// A second copy does no harm and can be made at any time.
    fn is_hedgeable(&self) -> bool {
        self.idempotent && self.body.is_none() && self.head.upgrade.is_none()
    }
}

/// What of an answer may be a reason to try again.
fn failure_in(call: &Call, answer: &Answer) -> Option<Failure> {
    let status = answer.response.status();
    if call.grpc
        && status == StatusCode::OK
        && let Some(code) = grpc_status(answer.response.headers())
    {
        return (code != 0).then_some(Failure::Grpc(code));
    }
    (status.as_u16() >= 400).then_some(Failure::Status(status.as_u16()))
}

fn no_backend(call: &Call) -> Refusal {
    let reason = format!("no backend of service {} takes requests", call.service.name);
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Outcome::NoBackend, reason)
}
