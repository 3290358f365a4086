//! A second try beside one that has no answer yet.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    Engine,
    attempt::{Answer, Call},
    clock::Deadline,
    failed::{Cause, Failed},
    ledger::Ledger,
    passive::Mishap,
    tries::{Tried, Tries},
};

impl Engine {
    /// A try, and a second beside it once it has been alone for long enough.
    pub(super) async fn hedged(
        &self,
        call: &Call,
        tries: &Tries<'_>,
        index: usize,
        after: Duration,
        tried: &mut Vec<usize>,
        ledger: &mut Ledger,
    ) -> Tried {
        let one = self.begin(call, index, Instant::now(), false, ledger);
        let mut first = std::pin::pin!(self.attempt(call, &call.service.backends[index], one.span));
        let mut alone = Deadline::new(&self.clock, one.began + after);
        let early = tokio::select! {
            biased;
            result = &mut first => Some(result),
            () = alone.met() => None,
        };
        match early {
            Some(result) => Tried { result, ..one },
            None => self.beside(call, tries, one, first, tried, ledger).await,
        }
    }

    /// A second try beside one that has no answer yet, if there is another backend and the budget has
    /// it. Whichever brings a good answer counts; the other is cancelled.
    pub(super) async fn beside(
        &self,
        call: &Call,
        tries: &Tries<'_>,
        mut one: Tried,
        mut first: Pin<&mut impl Future<Output = Result<Answer, Failed>>>,
        tried: &mut Vec<usize>,
        ledger: &mut Ledger,
    ) -> Tried {
        let second = self.choose(call, tries, tried, Instant::now());
        let second = second.filter(|_| call.is_hedgeable() && self.afford(call));
        let Some(second) = second else {
            one.result = first.await;
            return one;
        };
        tried.push(second);
        call.service.counts.hedges.fetch_add(1, Relaxed);
        let mut other = self.begin(call, second, Instant::now(), true, ledger);
        let mut second =
            std::pin::pin!(self.attempt(call, &call.service.backends[second], other.span));
        let hedge_first = tokio::select! {
            biased;
            result = &mut first => { one.result = result; false }
            result = &mut second => { other.result = result; true }
        };
        let is_good =
            |tried: &Tried| tried.result.is_ok() && call.repeats(tries, &tried.result).is_none();
        let (good, rest) = match hedge_first {
            true if is_good(&other) => (other, one),
            false if is_good(&one) => (one, other),
            true => {
                one.result = first.await;
                one.or(other)
            }
            false => {
                other.result = second.await;
                other.or(one)
            }
        };
        self.outrun(call, &rest);
        Self::note(&rest, ledger);
        if good.hedge && good.result.is_ok() {
            call.service.counts.hedges_won.fetch_add(1, Relaxed);
        }
        good
    }

    /// What a try tells of its backend that had the time of one alone, and then was cancelled for another:
    /// it has taken so long at least.
    fn outrun(&self, call: &Call, tried: &Tried) {
        let cancelled =
            matches!(&tried.result, Err(failed) if matches!(failed.cause, Cause::Cancelled));
        if !cancelled || tried.hedge {
            return;
        }
        let backend = &call.service.backends[tried.index];
        let now = Instant::now();
        // A client that was slow to send its body makes no slow backend.
        let began = tried.began.max(call.came());
        let took = now.saturating_duration_since(began);
        let latency = took.as_nanos() as u64;
        backend
            .latency
            .observe_at_least(latency, self.nanoseconds(now));
        backend.took(took);
        if took >= call.times.alone() {
            backend.failed(Mishap::Slow);
        }
    }
}

impl Call {
    /// A second copy does no harm and can be made now.
    pub(super) fn is_hedgeable(&self) -> bool {
        let body = self.body.as_ref();
        self.idempotent
            && body.is_none_or(|body| body.has_come() && body.is_whole())
            && self.head.upgrade.is_none()
    }

    /// The result of a try; `None`: it has taken long enough to ask another beside it.
    pub(super) async fn until_doubt<F: Future>(
        &self,
        mut attempt: Pin<&mut F>,
    ) -> Option<F::Output> {
        std::future::poll_fn(|context| match attempt.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if self.in_doubt.take() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}
