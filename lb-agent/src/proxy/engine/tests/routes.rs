//! What routes say of the requests that they fit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    resilience::{BUSY, OK, failing, quick},
    rig::{Backend, Got, Proxy, local, nowhere, snapshot},
};
use crate::domain::{
    http::policy::{HttpPolicy, RateKey, RateLimit},
    route::{Destination, Fits, Route, Text},
    service::Protocol,
    snapshot::Snapshot,
};

const MS: Duration = Duration::from_millis(1);

fn route(path: &str, to: Destination) -> Arc<Route> {
    let fits = Fits {
        path: Some(Text::Prefix(path.into())),
        ..Fits::default()
    };
    Arc::new(Route { fits, to })
}

fn routed(mut policy: HttpPolicy, to: Destination) -> HttpPolicy {
    policy.routes = vec![route("/x", to)];
    policy
}

/// With conditions of its own on answers, what reached nobody is tried again all the same.
#[test]
fn statuses_of_a_route_are_not_all_that_is_tried_again() {
    local(async {
        let good = Backend::answering(OK).await;
        let to = Destination {
            retries: Some(1),
            retry_on_connect_failure: true,
            retry_on_status: vec![503],
            ..Destination::default()
        };
        let backends = [nowhere().await, good.address];
        let policy = routed(quick(), to);
        let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &backends)).await;
        let mut met = 0;
        for _ in 0..20 {
            assert_eq!(proxy.ask("GET", "").await.status, 200);
            met += usize::from(proxy.record().await.tries.len() == 2);
        }
        assert!(met > 0, "the dead one was never drawn");
    });
}

/// A body is kept for the retries of the route, if the service has none.
#[test]
fn bodies_are_kept_for_the_retries_of_a_route() {
    local(async {
        let (bad, asked) = failing(BUSY).await;
        let good = Backend::echoing().await;
        let mut policy = quick();
        policy.retry.retries = 0;
        let to = Destination {
            retries: Some(2),
            ..Destination::default()
        };
        let backends = [bad.address, good.address];
        let policy = routed(policy, to);
        let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &backends)).await;
        while asked.get() == 0 {
            let put =
                "PUT /x HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
            let got = Got::read(&proxy.raw(put).await);
            assert_eq!(got.status, 200, "{got:?}");
            assert!(got.body.ends_with("abc"));
        }
    });
}

#[test]
fn a_route_has_its_own_patience() {
    local(async {
        let (hangs, _) = failing("hangs").await;
        let address = hangs.address;
        let total = Destination {
            timeout: Some(50 * MS),
            ..Destination::default()
        };
        let total = routed(quick(), total);
        let per_try = Destination {
            per_try: Some(50 * MS),
            retries: Some(0),
            ..Destination::default()
        };
        let per_try = routed(quick(), per_try);
        for policy in [total, per_try] {
            let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &[address])).await;
            let begun = Instant::now();
            assert_eq!(proxy.ask("GET", "").await.status, 504);
            assert!(begun.elapsed() < 140 * MS, "{:?}", begun.elapsed());
            // Elsewhere it is the service's.
            let begun = Instant::now();
            let elsewhere = "GET /y HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
            assert_eq!(Got::read(&proxy.raw(elsewhere).await).status, 504);
            assert!(begun.elapsed() >= 145 * MS);
        }
        // A client that sends nothing more of its body.
        let idle = Destination {
            idle: Some(50 * MS),
            ..Destination::default()
        };
        let policy = routed(quick(), idle);
        let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &[address])).await;
        let part =
            "POST /x HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: 3\r\n\r\na";
        assert_eq!(Got::read(&proxy.raw(part).await).status, 408);
    });
}

/// A service `web` whose requests go to `api`, which is open to all.
fn leading_elsewhere(web: HttpPolicy, allow: Option<&str>, api: &Backend) -> Snapshot {
    let to = Destination {
        service: Some("api".into()),
        ..Destination::default()
    };
    let mut all = snapshot(quick(), Protocol::Http, &[api.address]);
    let state = all.services.remove("web").unwrap();
    for (name, policy, allow) in [("api", quick(), None), ("web", routed(web, to), allow)] {
        let mut state = (*state).clone();
        let mut spec = (*state.spec).clone();
        spec.name = name.into();
        spec.http = Arc::new(policy);
        spec.allow = allow.map(|prefix: &str| [prefix.parse().unwrap()].into());
        state.spec = Arc::new(spec);
        all.services.insert(name.into(), Arc::new(state));
    }
    all
}

/// Whom a service does not admit, and whom it limits, gets no further by a route of its to another.
#[test]
fn who_may_not_ask_gets_nowhere_by_a_route() {
    local(async {
        let api = Backend::answering(OK).await;
        for (allow, status) in [
            (None, 200),
            (Some("127.0.0.0/8"), 200),
            (Some("192.0.2.0/24"), 403),
        ] {
            let proxy = Proxy::start(&leading_elsewhere(quick(), allow, &api)).await;
            assert_eq!(proxy.ask("GET", "").await.status, status, "{allow:?}");
        }
        let mut limited = quick();
        limited.rates = vec![RateLimit {
            requests: 1,
            per: Duration::from_secs(3600),
            burst: 1,
            by: RateKey::Client,
            except: Vec::new(),
            path: None,
        }];
        let proxy = Proxy::start(&leading_elsewhere(limited, None, &api)).await;
        let first = proxy.ask("GET", "").await;
        assert_eq!(first.status, 200);
        assert!(
            first.head.contains("ratelimit-remaining: 0"),
            "{}",
            first.head
        );
        let second = proxy.ask("GET", "").await;
        assert_eq!(second.status, 429);
        assert!(second.head.contains("retry-after: "), "{}", second.head);
    });
}
