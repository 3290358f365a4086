//! One try: a request on one backend, until the head of its answer.

use std::{
    cell::Cell,
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::{Duration, Instant},
};

use http::Response;
use hyper::body::Incoming;

use super::{
    Engine,
    answer::UNAVAILABLE,
    clock::Deadline,
    counted::{Counted, OfBackend},
    failed::{Cause, Failed},
    ledger::grpc_status,
    outgoing::Head,
    passive::Mishap,
    replay::{Outgoing, Replay},
    upstream::{Broken, Ends, Lease, Pool, Unavailable, Wish},
    view::{Backend, Held},
};
use crate::domain::http::{
    exchange::SpanContext, head::check_answer, policy::Timeouts, trace_context,
};

/// How often one looks whether a request's body has ended.
const LOOK: Duration = Duration::from_millis(100);

/// What is the same in every try of a request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) service: Rc<Held>,
    pub(super) head: Head,
    pub(super) body: Option<Rc<Replay>>,
    pub(super) idempotent: bool,
    pub(super) grpc: bool,
    pub(super) ends: Ends,
    pub(super) began: Instant,
    pub(super) times: Timeouts,
    /// Where a try has no answer after a part of the time of all, another may be asked beside it.
    pub(super) doubts: bool,
    /// It has not.
    pub(super) in_doubt: Cell<bool>,
    /// From the beginning until a connection was looked for.
    pub(super) prepared: Cell<Option<Duration>>,
    /// Nobody waits for it beyond this, whatever still moves.
    pub(super) deadline: Instant,
    /// The proxy's own span; `None`: it takes part in no trace.
    pub(super) trace: Option<SpanContext>,
}

/// The head of an answer, and what its body comes over.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
    pub(super) pool: Rc<Pool>,
    pub(super) counted: Counted<OfBackend>,
    /// When the head was there.
    pub(super) at: Instant,
}

impl Engine {
    /// Tries the request on a backend.
    pub(super) async fn attempt(
        &self,
        call: &Call,
        backend: &Arc<Backend>,
        span: u64,
    ) -> Result<Answer, Failed> {
        let pool = self.pools.of(backend);
        let counted = Counted::add(OfBackend(Rc::clone(&pool)));
        let mut wish = Wish {
            ends: call.ends,
            until: call.until(),
            connect: call.times.connect,
            careful: !call.idempotent,
            fresh: false,
            policy: &call.service.policy,
            life: &call.service.life,
            headers: self.shared.headers,
            tls: &self.tls,
            clock: &self.clock,
        };
        loop {
            let lease = match pool.idle(&wish) {
                Some(lease) => Ok(lease),
                None => {
                    call.prepared_by(Instant::now());
                    Box::pin(pool.lease(&wish)).await
                }
            };
            let mut lease = lease.map_err(|unavailable| {
                let cause = match unavailable {
                    Unavailable::Full => Cause::Full,
                    Unavailable::Connect(error) => {
                        backend.failed(Mishap::Connect);
                        Cause::Connect(error)
                    }
                };
                Failed {
                    cause,
                    begun: false,
                }
            })?;
            let reused = matches!(&lease, Lease::Http1(link) if link.reused);
            match self.exchange(call, backend, span, &mut lease).await {
                Ok((response, at)) => {
                    return Ok(Answer {
                        response,
                        at,
                        lease,
                        pool,
                        counted,
                    });
                }
                // A connection that lay idle has ended, as it may: no failure of the backend. But
                // if it got the request first, this is another try like any other.
                Err(failed)
                    if reused
                        && !wish.fresh
                        && matches!(failed.cause, Cause::Broke)
                        && call.may_send_again(failed.begun)
                        && (!failed.begun || self.afford(call)) =>
                {
                    if failed.begun {
                        call.service.counts.retries.fetch_add(1, Relaxed);
                    }
                    wish.fresh = true;
                }
                Err(failed) => {
                    if matches!(failed.cause, Cause::Broke | Cause::Answer(_)) {
                        backend.failed(Mishap::Reset);
                    }
                    return Err(failed);
                }
            }
        }
    }

    /// Sends the request and waits for the head of the answer.
    async fn exchange(
        &self,
        call: &Call,
        backend: &Backend,
        span: u64,
        lease: &mut Lease,
    ) -> Result<(Response<Incoming>, Instant), Failed> {
        let body = call.body.as_ref().map_or(Outgoing::EMPTY, Replay::read);
        let unsent = |cause| Failed {
            cause,
            begun: false,
        };
        let request = call.head.request(backend, body);
        let mut request = request.ok_or(unsent(Cause::Head))?;
        if let Some(trace) = call.trace {
            trace_context::send(request.headers_mut(), SpanContext { span, ..trace });
        }
        let sent = Instant::now();
        call.prepared_by(sent);
        let mut patience = Patience::new(self, call, sent);
        let answered = match lease {
            Lease::Http1(link) => patience.wait(call, link.send(request)).await,
            Lease::Http2(stream) => patience.wait(call, stream.send(request)).await,
        };
        let now = Instant::now();
        let latency = now.saturating_duration_since(sent).as_nanos() as u64;
        match answered {
            Ok(Ok(mut response)) => {
                check_answer(response.headers_mut()).map_err(|invalid| Failed {
                    cause: Cause::Answer(invalid),
                    begun: true,
                })?;
                backend.latency.observe(latency, self.nanoseconds(now));
                // A client that is slow to send its body makes no slow backend.
                let whole = call.body.as_ref().map_or(sent, |body| body.moved());
                backend.took(now.saturating_duration_since(sent.max(whole)));
                match grpc_status(response.headers()).filter(|_| call.grpc) {
                    Some(UNAVAILABLE) => backend.failed(Mishap::Unavailable),
                    _ => backend.answered(response.status().as_u16()),
                }
                Ok((response, now))
            }
            Ok(Err(Broken { begun })) => {
                let own = call.body.as_ref().and_then(|body| body.error());
                Err(match own {
                    Some(error) => Failed {
                        cause: Cause::Body(error),
                        begun,
                    },
                    None => Failed {
                        cause: Cause::Broke,
                        begun,
                    },
                })
            }
            // It has taken that long at least.
            Err(cause) => {
                backend.latency.observe(latency, self.nanoseconds(now));
                // The last of several tries may have had next to no time, and a client may give none.
                let had_time = now.saturating_duration_since(sent) >= call.times.total / 2;
                if matches!(cause, Cause::Slow) || matches!(cause, Cause::Late) && had_time {
                    backend.took(now.saturating_duration_since(sent));
                    backend.failed(Mishap::Slow);
                }
                Err(Failed { cause, begun: true })
            }
        }
    }
}

impl Call {
    /// When the head of an answer comes too late, at the earliest.
    pub(super) fn until(&self) -> Instant {
        self.deadline.min(self.began + self.times.total)
    }

    /// Whom to ask is known now; what came first counts.
    fn prepared_by(&self, now: Instant) {
        if self.prepared.get().is_none() {
            let after = now.saturating_duration_since(self.began);
            self.prepared.set(Some(after));
        }
    }

    /// It may be sent once more without being acted on twice.
    pub(super) fn may_send_again(&self, begun: bool) -> bool {
        (self.idempotent || !begun) && self.is_replayable()
    }

    pub(super) fn is_replayable(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_whole())
    }
}

/// How long an answer is waited for. While the request's body still comes, its own pace counts;
/// the time of the answer begins at its end.
struct Patience {
    deadline: Deadline,
    began: Instant,
    sent: Instant,
    /// That it has taken long is still to be said.
    doubts: bool,
}

impl Patience {
    fn new(engine: &Engine, call: &Call, sent: Instant) -> Self {
        let mut this = Self {
            deadline: Deadline::new(&engine.clock, sent),
            began: call.began,
            sent,
            doubts: call.doubts,
        };
        this.deadline.set(this.look_at(call));
        this
    }

    /// When it is over, and how that is called.
    fn until(&self, call: &Call) -> (Instant, Cause) {
        let (mut began, mut sent) = (self.began, self.sent);
        if let Some(body) = &call.body {
            if !body.ended() {
                let idle = body.moved() + call.times.idle;
                return match idle < call.deadline {
                    true => (idle, Cause::Idle),
                    false => (call.deadline, Cause::Late),
                };
            }
            began = began.max(body.moved());
            sent = sent.max(body.moved());
        }
        let late = call.deadline.min(began + call.times.total);
        match call.times.per_try.map(|per_try| sent + per_try) {
            Some(slow) if slow < late => (slow, Cause::Slow),
            _ => (late, Cause::Late),
        }
    }

    /// When to look whether it is over. The end of a body may be seen by another task.
    fn look_at(&self, call: &Call) -> Instant {
        let (until, _) = self.until(call);
        match &call.body {
            Some(body) if !body.ended() => until.min(Instant::now() + LOOK),
            _ => self.doubt(call).map_or(until, |doubt| until.min(doubt)),
        }
    }

    /// When it has taken long enough to ask another, if all of the request has come.
    fn doubt(&self, call: &Call) -> Option<Instant> {
        let body = call.body.as_ref();
        let came = body.map_or(self.sent, |body| self.sent.max(body.moved()));
        let has_come = body.is_none_or(|body| body.ended());
        (self.doubts && has_come).then(|| came + call.times.alone())
    }

    async fn wait<F: Future>(&mut self, call: &Call, answer: F) -> Result<F::Output, Cause> {
        let mut answer = pin!(answer);
        std::future::poll_fn(|context| {
            if let Poll::Ready(answered) = answer.as_mut().poll(context) {
                return Poll::Ready(Ok(answered));
            }
            while self.deadline.poll(context).is_ready() {
                let (until, cause) = self.until(call);
                let now = Instant::now();
                if until <= now {
                    return Poll::Ready(Err(cause));
                }
                if self.doubt(call).is_some_and(|doubt| doubt <= now) {
                    self.doubts = false;
                    call.in_doubt.set(true);
                }
                self.deadline.set(self.look_at(call));
            }
            Poll::Pending
        })
        .await
    }
}
