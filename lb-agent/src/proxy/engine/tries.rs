//! As many tries as a request may have.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use http::StatusCode;

use super::{
    Engine,
    answer::Refusal,
    attempt::{Answer, Call},
    clock::Deadline,
    failed::{Cause, Failed},
    ledger::{Ledger, grpc_status},
    view::Among,
};
use crate::domain::http::{
    exchange::{NoAnswer, Outcome, Try},
    pick::Load,
    policy::RetryPolicy,
    retry::{Failure, Rules, Sent, may_repeat},
    trace_context,
};

/// Who fails fast is not quick: for a while it counts as if an answer of its took so long. Otherwise
/// it would draw everybody to it until it is ejected, and the retry budget would be spent in that time.
const FAILED: Duration = Duration::from_secs(1);

/// Doubling of the pause between tries ends at so many times the first.
const MOST_PAUSE: u32 = 10;

/// What of a route changes the tries.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    pub(super) among: &'a Among,
    pub(super) rules: &'a Rules,
    pub(super) retries: u32,
    /// What the backend is chosen by, hashed.
    pub(super) key: Option<u64>,
}

/// How the one ends that was not needed.
const CANCELLED: Failed = Failed {
    cause: Cause::Cancelled,
    begun: true,
};

/// A try that is over.
pub(super) struct Tried {
    pub(super) index: usize,
    pub(super) began: Instant,
    pub(super) span: u64,
    /// Beside another.
    pub(super) hedge: bool,
    pub(super) result: Result<Answer, Failed>,
}

impl Tried {
    /// After an earlier one that would be tried again: this decides, unless only that is an answer.
    /// The one that does not count comes second.
    pub(super) fn or(self, earlier: Self) -> (Self, Self) {
        match self.result.is_err() && earlier.result.is_ok() {
            true => (earlier, self),
            false => (self, earlier),
        }
    }
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
        // Where there is no other.
        let mut same = None;
        // What no backend has looked at was no try, once: it goes on whatever the rules and the budget say,
        // as a request does whose idle connection of HTTP/1 had ended.
        let mut most = tries.retries as usize;
        loop {
            // The first is chosen by the time at which the request came.
            let began = if tried.is_empty() {
                call.began
            } else {
                Instant::now()
            };
            let index = self.choose(call, tries, &tried, began);
            let Some(index) = index.or_else(|| same.take()) else {
                return last.unwrap_or_else(|| Err(no_backend(call)));
            };
            tried.push(index);
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
                    let one = self.begin(call, index, began, false, ledger);
                    let backend = &call.service.backends[index];
                    let mut first = std::pin::pin!(self.attempt(call, backend, one.span));
                    call.in_doubt.set(false);
                    match call.until_doubt(first.as_mut()).await {
                        Some(result) => Tried { result, ..one },
                        None if tried.len() > most => Tried {
                            result: first.await,
                            ..one
                        },
                        None => {
                            Box::pin(self.beside(call, tries, one, first, &mut tried, ledger)).await
                        }
                    }
                }
            };
            Self::note(&done, ledger);
            self.blame(call, tries, &done);
            let again = call.repeats(tries, &done.result);
            let again = again.filter(|_| tried.len() <= most);
            let failed = done.result.as_ref().err();
            same = failed
                .filter(|failed| failed.is_unseen())
                .map(|_| done.index);
            if failed.is_some_and(|failed| matches!(failed.cause, Cause::Unseen))
                && call.is_replayable()
                && Instant::now() < call.until()
            {
                most += 1;
                last = done.result.err().map(|failed| Err(failed.refusal()));
                continue;
            }
            let result = done.result.map_err(|failed| failed.refusal());
            let Some(failure) = again else { return result };
            let pause = match failure {
                Failure::Connect => Duration::ZERO,
                _ => self.pause(&call.service.policy.retry, tried.len() as u32),
            };
            // What there is is better than what comes too late.
            if Instant::now() + pause >= call.until()
                || self.choose(call, tries, &tried, began).or(same).is_none()
                || !self.afford(call)
            {
                return result;
            }
            // No answer of which anything is wanted: its connection is closed with it.
            last = result.err().map(Err);
            call.service.counts.retries.fetch_add(1, Relaxed);
            if !pause.is_zero() {
                Deadline::new(&self.clock, Instant::now() + pause)
                    .met()
                    .await;
            }
        }
    }

    /// Writes down that a try begins.
    pub(super) fn begin(
        &self,
        call: &Call,
        index: usize,
        began: Instant,
        hedge: bool,
        ledger: &mut Ledger,
    ) -> Tried {
        let span = self.span();
        ledger.asking(index);
        ledger.trying(|| {
            let backend = &call.service.backends[index];
            Try {
                backend: backend.address,
                subset: backend.subset.clone(),
                span,
                after: began.saturating_duration_since(call.began),
                waited: Duration::ZERO,
                result: Err(NoAnswer::client_gone()),
                grpc_status: None,
                hedge,
                tls: backend.upstream.tls.is_some(),
                http2: backend.http2,
            }
        });
        Tried {
            index,
            began,
            span,
            hedge,
            result: Err(CANCELLED),
        }
    }

    /// Has a failed backend avoided for a while.
    fn blame(&self, call: &Call, tries: &Tries<'_>, tried: &Tried) {
        // Where its connections are all in use, it has not failed.
        let full = matches!(&tried.result, Err(failed) if matches!(failed.cause, Cause::Full));
        let failure = call.failure(&tried.result).filter(|_| !full);
        if failure.is_some_and(|failure| tries.rules.blame(failure)) {
            let backend = &call.service.backends[tried.index];
            let now = self.nanoseconds(Instant::now());
            backend.latency.observe(FAILED.as_nanos() as u64, now);
        }
    }

    /// Writes a try down that is over.
    pub(super) fn note(tried: &Tried, ledger: &mut Ledger) {
        let at = match &tried.result {
            Ok(answer) => answer.at,
            Err(_) => Instant::now(),
        };
        ledger.tried_at(tried.index, at);
        ledger.tried(tried.span, |one| match &tried.result {
            Ok(answer) => {
                one.result = Ok(answer.response.status().as_u16());
                one.grpc_status = grpc_status(answer.response.headers());
            }
            Err(failed) => one.result = Err(failed.describe()),
        });
    }

    fn span(&self) -> u64 {
        trace_context::span(|| self.random())
    }

    pub(super) fn choose(
        &self,
        call: &Call,
        tries: &Tries<'_>,
        tried: &[usize],
        now: Instant,
    ) -> Option<usize> {
        let backends = &call.service.backends;
        let slots = &tries.among.slots;
        if let Some(key) = tries.key
            && !slots.is_empty()
        {
            let home = slots[(key % slots.len() as u64) as usize] as usize;
            if !tried.contains(&home) {
                return Some(home);
            }
        }
        let now = self.nanoseconds(now);
        let load = |index: usize| {
            let backend = &backends[index];
            Load {
                latency: backend.latency.expected(now),
                requests: backend.requests.load(Relaxed),
            }
        };
        tries
            .among
            .picker
            .pick(|| self.random(), load, |index| tried.contains(&index))
    }

    /// Takes a retry from the budget.
    pub(super) fn afford(&self, call: &Call) -> bool {
        let retry = &call.service.policy.retry;
        let second = self.nanoseconds(Instant::now()) / 1_000_000_000;
        let budget = &call.service.life.budget;
        let allowed = budget.take(second, retry.budget, retry.floor);
        if !allowed {
            call.service.counts.retries_refused.fetch_add(1, Relaxed);
        }
        allowed
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
}

impl Call {
    /// How a try failed, or what of its answer may be a failure.
    fn failure(&self, result: &Result<Answer, Failed>) -> Option<Failure> {
        match result {
            Ok(answer) => failure_in(self, answer),
            Err(failed) => failed.failure(),
        }
    }

    /// As what failure it is to be tried again, if the rules have that; how often is not asked.
    pub(super) fn repeats(
        &self,
        tries: &Tries<'_>,
        result: &Result<Answer, Failed>,
    ) -> Option<Failure> {
        let sent = Sent {
            idempotent: self.idempotent,
            begun: result.as_ref().err().is_none_or(|failed| failed.begun),
            replayable: self.is_replayable(),
        };
        self.failure(result)
            .filter(|failure| may_repeat(*failure, sent, tries.rules))
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
