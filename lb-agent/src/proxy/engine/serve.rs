//! A request from its head to its answer: checked, routed, admitted, tried, answered.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, SET_COOKIE, UPGRADE},
    request::Parts,
    uri::PathAndQuery,
};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::sync::oneshot;

use super::{
    Arrival, Engine, EngineBody, FOREVER,
    answer::{Refusal, without_body},
    attempt::{Answer, Call},
    body::Passing,
    clock::Deadline,
    counted::{Counted, OfService},
    ledger::Ledger,
    outgoing::Head,
    replay::Replay,
    routed::Routed,
    tries::Tries,
    upgrade,
    upstream::Ends,
    view::Service,
};
use crate::domain::http::{
    exchange::Outcome,
    forwarded::{self, Hop},
    grpc, head, hop,
    rate::{Rated, Rates},
    request_id,
    retry::is_idempotent,
    routing::RequestHead,
    texts::Texts,
    trace_context,
};

/// Headers that a request gets on its way, about: room for them at once spares growing three times.
const ADDED: usize = 8;

/// What an answer gets besides what the backend says.
pub(super) struct Marks {
    request_id: HeaderValue,
    pub(super) cookie: Option<HeaderValue>,
    /// Whoever closes the ledger at the end of a tunnel.
    tunnel: Option<oneshot::Sender<Ledger>>,
    /// What a rate limit says.
    pub(super) rated: Option<(Arc<Rates>, Rated)>,
}

impl Engine {
    pub(super) async fn serve(
        self: &Rc<Self>,
        mut request: Request<Incoming>,
        arrival: &Arc<Arrival>,
    ) -> Response<EngineBody> {
        let asked =
            request.headers().contains_key(UPGRADE) && request.version() == Version::HTTP_11;
        let upgrade = asked.then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        let too_many = parts.headers.len() > arrival.headers;
        parts.headers.reserve(ADDED);
        let request_id = request_id::settle(
            &mut parts.headers,
            arrival.trusted,
            SystemTime::now(),
            || self.random(),
            &mut self.texts.borrow_mut(),
        );
        let telemetry = &self.shared.telemetry;
        let (trace, parent) = match telemetry.traces() {
            true => {
                let (trace, parent) =
                    trace_context::begin(&mut parts.headers, telemetry.sampling(), || {
                        self.random()
                    });
                (Some(trace), parent)
            }
            // Whoever has begun one goes on without a span of the proxy's, that nobody would ever see; and what
            // nobody has begun is not begun here, for its flag would keep all behind from recording.
            false if telemetry.is_read() => {
                let (trace, parent) = trace_context::brought(&parts.headers);
                (Some(trace), parent)
            }
            false => (None, None),
        };
        let id = request_id.to_str().unwrap_or_default();
        let mut ledger = Ledger::open(
            telemetry,
            &parts,
            arrival,
            id,
            trace,
            parent,
            self.tallies.nowhere(),
        );
        let grpc = grpc::is_call(&parts.headers);
        if grpc {
            ledger.is_call();
        }
        let (version, is_head) = (parts.version, parts.method == Method::HEAD);
        let mut marks = Marks {
            request_id,
            cookie: None,
            tunnel: None,
            rated: None,
        };
        let answered = match too_many {
            true => Err(Refusal::too_many_headers(arrival.headers)),
            false => {
                self.pass_on(parts, body, upgrade, arrival, grpc, &mut ledger, &mut marks)
                    .await
            }
        };
        let mut response = answered.unwrap_or_else(|refusal| {
            ledger.ended(refusal.outcome);
            let answer = refusal.answer_over(version, grpc);
            if is_head {
                without_body(answer)
            } else {
                answer
            }
        });
        let headers = response.headers_mut();
        request_id::give_back(headers, &marks.request_id);
        if let Some((rates, rated)) = marks.rated {
            rates.tell(&rated, headers);
        }
        if let Some(cookie) = marks.cookie {
            headers.append(SET_COOKIE, cookie);
        }
        ledger.answered(response.status().as_u16(), response.headers());
        if let Some(tunnel) = marks.tunnel {
            let _ = tunnel.send(ledger);
            return response;
        }
        response.map(|body| body.closing(ledger))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one request, taken apart once"
    )]
    async fn pass_on(
        self: &Rc<Self>,
        mut parts: Parts,
        body: Incoming,
        upgrade: Option<OnUpgrade>,
        arrival: &Arc<Arrival>,
        grpc: bool,
        ledger: &mut Ledger,
        marks: &mut Marks,
    ) -> Result<Response<EngineBody>, Refusal> {
        let host = head::check(&parts.method, &parts.uri, parts.version, &parts.headers)
            .map_err(|invalid| {
                Refusal::new(invalid.status(), Outcome::BadRequest, invalid.to_string())
            })?
            .to_owned();
        let routed = self.route(
            &RequestHead {
                host: &host,
                path: parts.uri.path(),
                query: parts.uri.query(),
                method: &parts.method,
                headers: &parts.headers,
            },
            arrival,
        )?;
        let service = &routed.service;
        ledger.count_by(Rc::clone(&routed.tally));
        ledger.note(|exchange| {
            exchange.service = Some(Arc::clone(&service.name));
            exchange.route = Some(Arc::clone(&routed.tally.name));
        });
        if let Some(asked) = &routed.asked {
            self.admit(asked, &parts, arrival, ledger.began, marks)?;
        }
        self.admit(service, &parts, arrival, ledger.began, marks)?;
        let policy = &service.policy;
        let second = self.nanoseconds(ledger.began) / 1_000_000_000;
        let requests = OfService(Rc::clone(service));
        ledger.counted = Some(Counted::below(requests, policy.limits.requests).ok_or_else(
            || {
                let reason = format!("service {} has too many requests under way", service.name);
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Outcome::Overloaded, reason)
            },
        )?);
        let key = self.key(service, &parts.headers, marks);
        let (rules, retries) = routed.rules();
        let body = self.body(body, &parts.headers, service, retries, ledger.began)?;
        ledger.body.clone_from(&body);
        // Idempotent without regard to its body, which is sent whole or not at all.
        let idempotent = is_idempotent(&parts.method);
        let given = grpc.then(|| grpc::timeout(&parts.headers)).flatten();
        let head = head_of(
            &mut parts,
            &routed,
            host,
            arrival,
            upgrade.is_some(),
            &mut self.texts.borrow_mut(),
        );
        ledger.note(|exchange| {
            let path = head.path.as_str();
            exchange.rewritten = (path != exchange.target).then(|| path.to_owned());
        });
        let mut times = routed.timeouts();
        times.total = times.total.min(FOREVER);
        let call = Call {
            head,
            body,
            idempotent,
            grpc,
            ends: Ends {
                client: arrival.client,
                listener: arrival.listener,
            },
            began: ledger.began,
            doubts: idempotent
                && retries > 0
                && rules.failures
                && times.per_try.is_none()
                && upgrade.is_none(),
            in_doubt: Cell::new(false),
            unseen: Cell::new(false),
            prepared: Cell::new(None),
            times,
            deadline: ledger.began + given.unwrap_or(FOREVER).min(FOREVER),
            trace: ledger.trace.filter(|_| self.shared.telemetry.traces()),
            service: Rc::clone(service),
        };
        service.life.budget.request(second);
        let among = service.among(routed.subset.as_deref()).ok_or_else(|| {
            let reason = format!("service {} has no such subset", service.name);
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Outcome::NoBackend, reason)
        })?;
        let tries = Tries {
            among,
            rules: &rules,
            retries,
            key,
        };
        let answer = self.answer(&call, &tries, ledger).await;
        ledger.prepared = call.prepared.get();
        let answer = answer?;
        Ok(self.respond(call, answer, upgrade, ledger, marks))
    }

    fn body(
        &self,
        body: Incoming,
        headers: &HeaderMap,
        service: &Service,
        retries: u32,
        now: Instant,
    ) -> Result<Option<Rc<Replay>>, Refusal> {
        if http_body::Body::is_end_stream(&body) {
            return Ok(None);
        }
        let limit = service.policy.limits.body;
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if let (Some(announced), Some(limit)) = (announced, limit)
            && announced > limit
        {
            let reason = format!("the body is longer than {limit} bytes");
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                Outcome::BadRequest,
                reason,
            ));
        }
        let keep = if retries == 0 {
            0
        } else {
            service.policy.retry.replay
        };
        Ok(Some(Replay::new(body, keep, limit, now)))
    }

    /// The answer for the client.
    fn respond(
        self: &Rc<Self>,
        call: Call,
        answer: Answer,
        upgrade: Option<OnUpgrade>,
        ledger: &mut Ledger,
        marks: &mut Marks,
    ) -> Response<EngineBody> {
        let Answer {
            response,
            lease,
            pool,
            counted,
            at,
        } = answer;
        if let Some(body) = &call.body {
            body.settle();
        }
        let (mut parts, incoming) = response.into_parts();
        let granted = hop::remove(&mut parts.headers);
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let idle = call.times.idle;
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            let (Some(granted), Some(upgrade)) = (granted, upgrade) else {
                let reason = "the backend changes to a protocol that nobody asked for";
                let refusal = Refusal::new(StatusCode::BAD_GATEWAY, Outcome::BackendFailed, reason);
                ledger.ended(refusal.outcome);
                return refusal.answer(call.grpc);
            };
            parts
                .headers
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, granted);
            marks.tunnel = Some(upgrade::begin(self, upgrade, lease, counted, idle));
            return Response::from_parts(parts, EngineBody::empty());
        }
        let passing = Passing {
            incoming,
            lease: Some(lease),
            pool,
            keep: self.share(call.service.policy.idle()),
            counted: Some(counted),
            request: call.body,
            idle,
            deadline: Deadline::new(&self.clock, at + idle),
            broken: false,
        };
        Response::from_parts(parts, EngineBody::passing(Box::new(passing)))
    }
}

fn head_of(
    parts: &mut Parts,
    routed: &Routed,
    host: String,
    arrival: &Arrival,
    upgrades: bool,
    texts: &mut Texts,
) -> Head {
    let headers = &mut parts.headers;
    let protocol = hop::remove(headers).filter(|_| upgrades);
    Head::tidy(headers);
    let hop = Hop {
        client: arrival.client,
        listener: arrival.listener,
        tls: arrival.tls,
        host: &host,
        trusted: arrival.trusted,
    };
    forwarded::add(headers, hop, texts);
    let path = parts.uri.path_and_query().map(|path| {
        // `http://host?query` has no path, which is sent as `/` (RFC 9112, section 3.2.1).
        let text = path.as_str();
        let rooted = match text.starts_with('?') {
            true => PathAndQuery::try_from(format!("/{text}")).ok(),
            false => None,
        };
        routed.path(rooted.as_ref().unwrap_or(path))
    });
    Head {
        method: parts.method.clone(),
        path: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
        headers: std::mem::take(headers),
        host,
        upgrade: protocol,
    }
}
