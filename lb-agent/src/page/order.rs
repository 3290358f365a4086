//! Orders to splits: those of `lb-agent split`, in JSON, for this node.
//!
//! A page of somebody else's cannot give them: it does not know the token, and a browser asks
//! before it sends JSON or an `Authorization` elsewhere, which nobody answers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::PoisonError,
    time::{Instant, SystemTime},
};

use axum::{
    body::{self, Body},
    extract::{ConnectInfo, Path, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Page, look::answer, refusal::Refusal};
use crate::{
    api::{proto, splits::Splits},
    domain::author::Author,
};

/// Largest order, in bytes.
const LARGEST: usize = 16 * 1024;
/// Who gives them, for all that is known.
const AUTHOR: &str = "page";

/// What is ordered of a service; the names are those of the socket's messages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    service: String,
    shares: BTreeMap<String, u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shift {
    service: String,
    subset: String,
    to_percent: u32,
    step_percent: u32,
    every_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    service: String,
}

/// Carries an order out, and answers as the socket does.
pub(super) async fn carry_out(
    State(page): State<Page>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Path(order): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    authenticate(&page, client.ip(), &headers)?;
    check_media(&headers)?;
    let body = body::to_bytes(body, LARGEST).await.map_err(|_| {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("an order has at most {LARGEST} bytes"),
        )
    })?;
    let author = Author {
        user: AUTHOR.to_owned(),
        at: SystemTime::now(),
    };
    let splits = Splits::of_node(page.handle.by(author));
    let response = obey(&splits, &order, &body).await;
    match &response {
        Ok(_) => tracing::info!(%client, order, "carried out for the status page"),
        Err(refusal) => {
            let reason = refusal.message();
            tracing::info!(%client, order, reason, "refused to the status page");
        }
    }
    // Whoever ordered it wants to see it.
    page.pictures.forget().await;
    response
}

async fn obey(splits: &Splits, order: &str, body: &[u8]) -> Result<Response, Refusal> {
    let done = StatusCode::OK;
    let service = || read::<Of>(body).map(|of| of.service);
    Ok(match order {
        "set" => {
            let Set { service, shares } = read(body)?;
            let fleet = false;
            let request = proto::SetSplitRequest {
                service,
                shares,
                fleet,
            };
            answer(done, &splits.set(request).await?)
        }
        "shift" => {
            let shift: Shift = read(body)?;
            let request = proto::ShiftSplitRequest {
                service: shift.service,
                subset: shift.subset,
                to_percent: shift.to_percent,
                step_percent: shift.step_percent,
                every_ms: shift.every_ms,
            };
            answer(done, &splits.shift(request).await?)
        }
        "promote" => {
            let service = service()?;
            let request = proto::PromoteSplitRequest { service };
            answer(done, &splits.promote(request).await?)
        }
        "rollback" => {
            let service = service()?;
            let request = proto::RollbackSplitRequest { service };
            answer(done, &splits.rollback(request).await?)
        }
        "ack" => {
            let service = service()?;
            let request = proto::AckSplitRequest { service };
            answer(done, &splits.ack(request).await?)
        }
        "reset" => {
            let request = proto::ResetSplitRequest {
                service: service()?,
                fleet: false,
            };
            answer(done, &splits.reset(request).await?)
        }
        _ => {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "there is no such order; there are set, shift, promote, rollback, ack and reset",
            ));
        }
    })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the order: {error}")))
}

/// Refuses whoever has not got the token.
fn authenticate(page: &Page, from: IpAddr, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(token) = &page.token else {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "orders are switched off: name a file with a token as `token_file` under [page], or use \
             the command line",
        ));
    };
    let lockout = || page.lockout.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(wait) = lockout().wait(from, Instant::now()) {
        return Err(Refusal::locked_out(wait));
    }
    let Some(offered) = headers.get(header::AUTHORIZATION).and_then(bearer) else {
        return Err(Refusal::unauthenticated(
            "an order needs the token, as `Authorization: Bearer TOKEN`",
        ));
    };
    let accepted = token
        .accepts(offered)
        .map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    if accepted {
        return Ok(());
    }
    lockout().note(from, Instant::now());
    tracing::warn!(client = %from, "an order with a wrong token came to the status page");
    Err(Refusal::unauthenticated("this is not the token"))
}

/// The token in an `Authorization` (RFC 6750, section 2.1).
fn bearer(value: &header::HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// JSON only: what a form of another page could send without asking is none.
fn check_media(headers: &HeaderMap) -> Result<(), Refusal> {
    let media = headers.get(header::CONTENT_TYPE);
    let media = media
        .and_then(|media| media.to_str().ok())
        .unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim();
    match essence.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the order as `Content-Type: application/json`",
        )),
    }
}
