//! The status page, beside `/metrics`: what `status`, `service list`, `block list` and `backend
//! history` say, in a browser; and orders to splits, for whoever has the token.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /`, `/page/…` | the page, of files within the program |
//! | `GET /api/v1/overview` | the agent, without its longest lists |
//! | `GET /api/v1/services` | some services: `filter`, `show`, `offset`, `limit` |
//! | `GET /api/v1/service` | one: `name`, and of its backends `filter`, `offset`, `limit` |
//! | `GET /api/v1/blocks` | some block rules: `after`, `limit` |
//! | `GET /api/v1/events` | the last changes of backends: `limit` |
//! | `POST /api/v1/split/ORDER` | `set`, `shift`, `promote`, `rollback`, `ack`, `reset` |
//!
//! What is wrong is answered as `{"error": {"code", "message"}}`, with the codes of the socket. All
//! answers are bounded, whatever there is of services, backends and rules. A browser that was led
//! here by a name of somebody else's is refused.
//!
//! - `assets`: the page itself. `host`: by which names it may be asked for.
//! - `picture`: the agent at one moment, kept for a second for all who look.
//! - `look`: what is read. `order`, `token`, `lockout`: what is ordered, and by whom.
//! - `refusal`: what is wrong, as HTTP says it.

mod assets;
mod host;
mod lockout;
mod look;
mod order;
mod picture;
mod refusal;
#[cfg(test)]
mod tests;
mod token;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use self::{host::Hosts, lockout::Lockout, picture::Pictures, refusal::Refusal, token::TokenFile};
use crate::{config::PageConfig, controller::Handle};

/// Nothing but what this listener serves runs, is shown or is asked, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What every answer carries.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Whom the page asks, and who may order.
#[derive(Clone)]
struct Page {
    handle: Handle,
    pictures: Pictures,
    hosts: Arc<Hosts>,
    token: Option<TokenFile>,
    lockout: Arc<Mutex<Lockout>>,
}

/// The routes of the page, for a server that listens at `listen` and tells the address of its
/// clients (`ConnectInfo<SocketAddr>`); none if the page is switched off.
pub fn router(config: &PageConfig, listen: SocketAddr, handle: Handle) -> Router {
    if !config.enabled {
        return Router::new();
    }
    let token = config.token_file.clone().map(TokenFile::new);
    if let Some(token) = &token {
        if let Err(error) = token.check() {
            tracing::warn!("the status page gives no orders for now: {error}");
        }
        if !listen.ip().to_canonical().is_loopback() {
            tracing::warn!(
                "the token of the status page travels unencrypted to {listen}; let [metrics] \
                 listen on loopback, and come by `ssh -L`"
            );
        }
    }
    let page = Page {
        pictures: Pictures::new(handle.clone()),
        handle,
        hosts: Arc::new(Hosts::new(listen, config.hosts.clone())),
        token,
        lockout: Arc::default(),
    };
    let routes = Router::new()
        .route("/", get(assets::index))
        .route("/page/{name}", get(assets::named))
        .route("/api/v1/overview", get(look::overview).fallback(only_read))
        .route("/api/v1/services", get(look::services).fallback(only_read))
        .route("/api/v1/service", get(look::service).fallback(only_read))
        .route("/api/v1/blocks", get(look::blocks).fallback(only_read))
        .route("/api/v1/events", get(look::events).fallback(only_read))
        .route(
            "/api/v1/split/{order}",
            post(order::carry_out).fallback(only_ordered),
        )
        .route("/api/{*rest}", axum::routing::any(nowhere));
    routes
        .layer(middleware::from_fn_with_state(page.clone(), guard))
        .with_state(page)
}

/// Refuses who asks for somebody else, and adds the headers.
async fn guard(State(page): State<Page>, request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST);
    let known = |host: &HeaderValue| host.to_str().is_ok_and(|host| page.hosts.knows(host));
    let mut response = if hosts.iter().all(known) {
        next.run(request).await
    } else {
        Refusal::new(
            StatusCode::FORBIDDEN,
            "ask for this node by its address or as localhost; other names are to be listed as \
             `hosts` under [page]",
        )
        .into_response()
    };
    response.headers_mut().extend(HEADERS);
    response
}

async fn only_read() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this can be read (GET), no more",
    )
}

async fn only_ordered() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "an order is posted; GET /api/v1/service?name=… shows the split of a service",
    )
}

async fn nowhere() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "nothing here; there are /api/v1/overview, services, service, blocks, events and split/ORDER",
    )
}
