//! What is read: the agent's messages as `-o json` prints them, in parts that no browser is buried
//! under, each with what was left out.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Page, picture::in_time, refusal::Refusal};
use crate::{
    api::{
        proto::{Backend, Counters, Service},
        view,
    },
    surroundings::host_name,
};

/// Entries of a list in the overview.
const MOST_LISTED: usize = 50;
/// Services, block rules or events in one answer.
const MOST: usize = 100;
/// Backends in one answer.
const MOST_BACKENDS: usize = 200;

/// Which part of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Part {
    /// What the name, or something else that is shown, contains; in lower case, for that makes no
    /// difference.
    filter: String,
    /// Services: `all`, `trouble` or `split`.
    show: Show,
    /// So many are left out first.
    offset: usize,
    /// At most so many.
    limit: Option<usize>,
    /// Of this service.
    name: Option<String>,
    /// Block rules: those behind this prefix.
    after: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Show {
    #[default]
    All,
    Trouble,
    Split,
}

type Asked = Result<Query<Part>, QueryRejection>;

fn part(asked: Asked) -> Result<Part, Refusal> {
    asked
        .map(|Query(part)| Part {
            filter: part.filter.trim().to_lowercase(),
            ..part
        })
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))
}

impl Part {
    /// The entries that are asked for, and how many there would have been.
    fn of<T>(&self, all: Vec<T>, most: usize) -> (Vec<T>, usize) {
        let matched = all.len();
        let limit = self.limit.unwrap_or(most).min(most);
        let part = all.into_iter().skip(self.offset).take(limit).collect();
        (part, matched)
    }

    fn fits<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> bool {
        let mut texts = texts.into_iter();
        self.filter.is_empty() || texts.any(|text| text.to_lowercase().contains(&self.filter))
    }
}

/// JSON.
pub(super) fn answer<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let media = [(header::CONTENT_TYPE, "application/json")];
            (status, media, body).into_response()
        }
        // Messages have string keys only; there is nothing that cannot be written.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The agent: `status` as the socket answers it but for the tails of long lists, sums over all
/// services, and what the page needs to know of itself.
pub(super) async fn overview(State(page): State<Page>) -> Result<Response, Refusal> {
    let picture = page.pictures.current().await?;
    let mut status = picture.status.clone();
    // What fails is told first, lest it is cut off.
    status.watches.sort_by_key(|watch| watch.error.is_none());
    let left_out = json!({
        "problems": cut(&mut status.problems),
        "watches": cut(&mut status.watches),
        "drains": cut(&mut status.drains),
    });
    let (orders, why) = match &page.token {
        None => ("off", None),
        Some(token) => match token.check() {
            Ok(()) => ("token", None),
            Err(error) => ("broken", Some(error.to_string())),
        },
    };
    let body = json!({
        "node": host_name().unwrap_or_default(),
        "status": status,
        "totals": totals(&picture.services),
        "troubled": picture.services.iter().filter(|service| is_troubled(service)).count(),
        "left_out": left_out,
        "orders": orders,
        "orders_why": why,
        "pace_ms": picture.pace.as_millis() as u64,
    });
    Ok(answer(StatusCode::OK, &body))
}

/// Cuts a list; how many entries are left out.
fn cut<T>(list: &mut Vec<T>) -> usize {
    let left_out = list.len().saturating_sub(MOST_LISTED);
    list.truncate(MOST_LISTED);
    left_out
}

fn totals(services: &[Service]) -> Counters {
    let mut sum = Counters::default();
    for each in services.iter().filter_map(|service| service.counters) {
        sum.packets_in += each.packets_in;
        sum.bytes_in += each.bytes_in;
        sum.packets_out += each.packets_out;
        sum.bytes_out += each.bytes_out;
        sum.flows_created += each.flows_created;
        sum.flows_live += each.flows_live;
        sum.connections_refused += each.connections_refused;
        sum.connections_unanswered += each.connections_unanswered;
    }
    sum
}

/// Something a person may want to look at.
fn is_troubled(service: &Service) -> bool {
    service.panic
        || service.backends_healthy < service.backends
        || service.backends_active == 0
        || service
            .shift
            .as_ref()
            .is_some_and(|shift| shift.phase == "returned")
}

/// Some services, by name.
pub(super) async fn services(State(page): State<Page>, asked: Asked) -> Result<Response, Refusal> {
    let part = part(asked)?;
    let picture = page.pictures.current().await?;
    let wanted = |service: &&Service| {
        let shown = match part.show {
            Show::All => true,
            Show::Trouble => is_troubled(service),
            Show::Split => service.split.is_some() || service.shift.is_some(),
        };
        let names = [&service.name, &service.protocol];
        let texts = names.into_iter().chain(&service.consul_service);
        shown && part.fits(texts.chain(&service.vips).map(String::as_str))
    };
    let fitting = picture.services.iter().filter(wanted).collect();
    let (services, matched) = part.of(fitting, MOST);
    let body = json!({
        "services": services,
        "matched": matched,
        "total": picture.services.len(),
        "offset": part.offset,
        "now_unix_ms": picture.view.now_unix_ms(),
    });
    Ok(answer(StatusCode::OK, &body))
}

/// One service with some of its backends, those first that something is wrong with.
pub(super) async fn service(State(page): State<Page>, asked: Asked) -> Result<Response, Refusal> {
    let part = part(asked)?;
    let Some(name) = &part.name else {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "name the service, as in /api/v1/service?name=echo",
        ));
    };
    let picture = page.pictures.current().await?;
    let (service, backends, split) = picture.view.service(name)?;
    let total = backends.len();
    let fits = |backend: &Backend| {
        let texts = [&backend.id, &backend.address, &backend.health];
        let texts = texts.into_iter().chain(&backend.subset);
        part.fits(texts.map(String::as_str))
    };
    let mut fitting: Vec<Backend> = backends.into_iter().filter(fits).collect();
    fitting.sort_by_key(|backend| backend.weight > 0 && backend.health == "healthy");
    let (backends, matched) = part.of(fitting, MOST_BACKENDS);
    let body = json!({
        "service": service,
        "split": split,
        "backends": backends,
        "matched": matched,
        "total": total,
        "offset": part.offset,
        "now_unix_ms": picture.view.now_unix_ms(),
    });
    Ok(answer(StatusCode::OK, &body))
}

/// Some block rules, by prefix.
pub(super) async fn blocks(State(page): State<Page>, asked: Asked) -> Result<Response, Refusal> {
    let part = part(asked)?;
    let limit = part.limit.unwrap_or(MOST).min(MOST);
    let picture = page.pictures.current().await?;
    let after = part.after.as_deref();
    let mut blocks =
        in_time(async { Ok(view::blocks(&page.handle, after, limit + 1).await?) }).await?;
    let more = blocks.len() > limit;
    blocks.truncate(limit);
    let body = json!({
        "blocks": blocks,
        "more": more,
        "total": picture.status.block_rules,
        "now_unix_ms": picture.view.now_unix_ms(),
    });
    Ok(answer(StatusCode::OK, &body))
}

/// The last changes of backends.
pub(super) async fn events(State(page): State<Page>, asked: Asked) -> Result<Response, Refusal> {
    let limit = part(asked)?.limit.unwrap_or(MOST).clamp(1, MOST);
    let most = u32::try_from(limit).unwrap_or(u32::MAX);
    let history = in_time(async { Ok(view::history(&page.handle, most).await?) }).await?;
    Ok(answer(StatusCode::OK, &history))
}
