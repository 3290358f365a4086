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
    /// A backend has not looked at it.
    pub(super) unseen: Cell<bool>,
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
            let mut lease = match pool.idle(&wish) {
                Some(lease) => lease,
                None => {
                    let looked = Instant::now();
                    call.prepared_by(looked);
                    let lease = Box::pin(pool.lease(&wish)).await;
                    lease.map_err(|why| Failed {
                        cause: call.unavailable(backend, why, looked),
                        begun: false,
                    })?
                }
            };
            let (reused, shared) = match &lease {
                Lease::Http1(link) => (link.reused, false),
                Lease::Http2(_) => (false, true),
            };
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
                Err(mut failed) => {
                    if shared && failed.is_unseen() && !call.unseen.replace(true) {
                        failed.cause = Cause::Unseen;
                    }
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
                backend.took(now.saturating_duration_since(sent.max(call.came())));
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
            Err(cause) => {
                backend
                    .latency
                    .observe_at_least(latency, self.nanoseconds(now));
                let had_time = matches!(cause, Cause::Late) && call.gave_time(sent);
                if matches!(cause, Cause::Slow) || had_time {
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
        self.deadline.min(self.came() + self.times.total)
    }

    /// When the last of the request came, so far.
    pub(super) fn came(&self) -> Instant {
        let body = self.body.as_ref();
        body.map_or(self.began, |body| self.began.max(body.moved()))
    }

    /// What began then and ended with the time of all has had a fair part of it: the last of several
    /// tries may have had next to none, and a client may give none.
    fn gave_time(&self, began: Instant) -> bool {
        began.elapsed() >= self.times.total / 2
    }

    /// Why there is no connection to the backend, which may have failed. `looked`: since when one was
    /// looked for.
    fn unavailable(&self, backend: &Backend, why: Unavailable, looked: Instant) -> Cause {
        match why {
            Unavailable::Full => Cause::Full,
            // Who made it tells.
            Unavailable::Shared(error) => error.map_or(Cause::Late, Cause::Connect),
            Unavailable::Connect(error) => {
                backend.failed(Mishap::Connect);
                Cause::Connect(error)
            }
            Unavailable::Late => {
                if self.gave_time(looked) {
                    backend.failed(Mishap::Connect);
                }
                Cause::Late
            }
        }
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
    sent: Instant,
    /// That it has taken long is still to be said.
    doubts: bool,
}

impl Patience {
    fn new(engine: &Engine, call: &Call, sent: Instant) -> Self {
        let mut this = Self {
            deadline: Deadline::new(&engine.clock, sent),
            sent,
            doubts: call.doubts,
        };
        this.deadline.set(this.look_at(call));
        this
    }

    /// When it is over, and how that is called.
    fn until(&self, call: &Call) -> (Instant, Cause) {
        if let Some(body) = call.body.as_ref().filter(|body| !body.ended()) {
            let idle = body.moved().max(self.sent) + call.times.idle;
            return match idle < call.deadline {
                true if body.is_awaited() => (idle, Cause::Idle),
                // The backend takes nothing of it.
                true => (idle, Cause::Slow),
                false => (call.deadline, Cause::Late),
            };
        }
        let late = call.until();
        let sent = self.sent.max(call.came());
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
        let has_come = body.is_none_or(|body| body.ended());
        (self.doubts && has_come).then(|| self.sent.max(call.came()) + call.times.alone())
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
