//! Rows of a request's head in, service and route out.

use std::net::SocketAddr;

use http::HeaderValue;

use super::*;
use crate::domain::{
    precedence::SplitStack,
    route::{Destination, Field, Fits, Text},
    service::{Affinity, Forwarding, HealthPolicy, Origin, Protocol, ServiceSpec},
};

fn state(name: &str, protocol: Protocol) -> ServiceState {
    let vip: SocketAddr = "198.51.100.10:80".parse().unwrap();
    ServiceState {
        spec: Arc::new(ServiceSpec {
            name: name.into(),
            vips: vec![vip],
            protocol,
            forwarding: Forwarding::Nat,
            affinity: Affinity::Connection,
            allow: None,
            catalog: Catalog::Static(Vec::new()),
            subsets: Default::default(),
            split: None,
            probe: None,
            gate: Default::default(),
            health: HealthPolicy::default(),
            http: Arc::default(),
            origin: Origin {
                file: "lb.toml".into(),
                line: 1,
            },
        }),
        backends: Vec::new(),
        split: None,
        splits: SplitStack::default(),
        shift: None,
        panic: false,
        pending: false,
        notes: Vec::new(),
        routes: BTreeSet::new(),
        steering: Default::default(),
        router: Arc::default(),
    }
}

fn snapshot(states: impl IntoIterator<Item = ServiceState>) -> Snapshot {
    let states = states.into_iter();
    Snapshot {
        version: 1,
        services: states
            .map(|state| (state.spec.name.clone(), Arc::new(state)))
            .collect(),
    }
}

fn spec(state: &mut ServiceState) -> &mut ServiceSpec {
    Arc::make_mut(&mut state.spec)
}

fn policy(state: &mut ServiceState) -> &mut HttpPolicy {
    Arc::make_mut(&mut spec(state).http)
}

fn tag(host: Option<&str>, path: Option<Text>) -> TagRoute {
    TagRoute {
        host: host.map(str::to_owned),
        path,
    }
}

fn prefix(text: &str) -> Option<Text> {
    Some(Text::Prefix(text.into()))
}

fn route(fits: Fits, service: Option<&str>, subset: Option<&str>) -> Arc<Route> {
    Arc::new(Route {
        fits,
        to: Destination {
            service: service.map(str::to_owned),
            subset: subset.map(str::to_owned),
            ..Destination::default()
        },
    })
}

fn on_path(path: Text) -> Fits {
    Fits {
        path: Some(path),
        ..Fits::default()
    }
}

fn ask(host: &'static str, target: &'static str) -> Asked {
    Asked {
        host,
        target,
        method: Method::GET,
        headers: HeaderMap::new(),
    }
}

struct Asked {
    host: &'static str,
    target: &'static str,
    method: Method,
    headers: HeaderMap,
}

impl Asked {
    fn head(&self) -> RequestHead<'_> {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target, None),
        };
        RequestHead {
            host: self.host,
            path,
            query,
            method: &self.method,
            headers: &self.headers,
        }
    }
}

/// `SERVICE.SUBSET ROUTE`, with `!` behind what does not exist.
fn told(found: Option<Found<'_>>) -> String {
    let Some(found) = found else {
        return "-".into();
    };
    let subset = found.subset.map(|subset| format!(".{subset}"));
    let gone = if found.exists { "" } else { "!" };
    format!(
        "{}{}{gone} {}",
        found.service,
        subset.unwrap_or_default(),
        found.name
    )
}

#[test]
fn hosts_and_paths_decide_on_the_service() {
    let echo = state("Echo", Protocol::Http);
    let mut web = state("web", Protocol::Http);
    policy(&mut web).hosts = ["web.example".into(), "*.shop.example".into()].into();
    let mut tagged = state("tagged", Protocol::Grpc);
    tagged.routes = [
        tag(Some("web.example"), prefix("/admin")),
        tag(
            Some("web.example"),
            Some(Text::Exact("/admin/exact".into())),
        ),
        tag(Some("*.eu.shop.example"), None),
        // Not for it: the configuration goes before.
        tag(Some("echo"), None),
        tag(None, prefix("/static/")),
    ]
    .into();
    let plain = state("plain", Protocol::Tcp);
    let table = RoutingTable::build(&snapshot([echo, web, tagged, plain]));
    let rows = [
        ("echo", "/", "Echo default"),
        ("ECHO.consul.localhost:4140", "/x", "Echo default"),
        ("echo.:80", "/", "Echo default"),
        ("web.example", "/", "web default"),
        ("web", "/", "web default"),
        ("web.example", "/admin/x", "tagged web.example/admin*"),
        (
            "web.example",
            "/admin/exact",
            "tagged web.example/admin/exact",
        ),
        ("web.example", "/adm", "web default"),
        ("a.shop.example", "/", "web default"),
        ("a.b.shop.example", "/", "web default"),
        ("a.eu.shop.example", "/", "tagged *.eu.shop.example/*"),
        ("shop.example", "/", "-"),
        (".shop.example", "/", "-"),
        ("eu.shop.example", "/", "web default"),
        ("unknown.example", "/static/x", "tagged */static/*"),
        ("unknown.example", "/", "-"),
        ("", "/static/x", "tagged */static/*"),
        ("plain", "/", "-"),
        ("tagged.consul.localhost", "/", "tagged default"),
    ];
    for (host, target, expected) in rows {
        let asked = ask(host, target);
        assert_eq!(told(table.find(&asked.head())), expected, "{host}{target}");
    }
    let clash = "service tagged asks for echo/*, which is for service Echo";
    assert_eq!(table.clashes(), [clash]);
    // A VIP asks nobody for the host.
    let asked = ask("unknown.example", "/");
    let found = table.of_service("plain", &asked.head());
    assert_eq!(told(found), "plain default");
    assert!(table.of_service("nobody", &asked.head()).is_none());
}

#[test]
fn routes_of_a_service_in_their_order() {
    let mut web = state("web", Protocol::Http);
    let field = |name: &str, text, invert| Field {
        name: name.into(),
        text,
        invert,
    };
    let canary = Fits {
        headers: vec![field("X-Canary", Text::Exact("1".into()), false)],
        ..Fits::default()
    };
    let posts = Fits {
        methods: vec!["POST".into(), "PUT".into()],
        path: prefix("/form"),
        ..Fits::default()
    };
    let query = Fits {
        query: vec![field("v", Text::Regex("2|two".into()), false)],
        ..Fits::default()
    };
    policy(&mut web).routes = vec![
        route(canary, None, Some("v2")),
        route(posts, Some("api"), None),
        route(on_path(Text::Regex("/[0-9]+".into())), Some("gone"), None),
        route(query, Some("own"), None),
    ];
    let without = Fits {
        headers: vec![field("cookie", Text::Present, true)],
        path: prefix("/anon"),
        ..Fits::default()
    };
    web.router = [
        // In Consul, `api` is what this node calls `own`.
        route(on_path(Text::Suffix(".css".into())), Some("api"), None),
        route(without, Some("nobody"), Some("v1")),
    ]
    .into();
    let mut own = state("own", Protocol::Http);
    spec(&mut own).catalog = Catalog::Consul {
        service: "api".into(),
        datacenter: None,
    };
    let table = RoutingTable::build(&snapshot([web, own, state("api", Protocol::Tcp)]));
    let with = |mut asked: Asked, name: &'static str, value: &'static str| {
        asked.headers.append(name, HeaderValue::from_static(value));
        asked
    };
    let post = |mut asked: Asked| {
        asked.method = Method::POST;
        asked
    };
    let rows = [
        (ask("web", "/"), "web default"),
        (
            with(with(ask("web", "/"), "x-canary", "0"), "x-canary", "1"),
            "web.v2 * with header X-Canary = 1 to subset v2",
        ),
        (with(ask("web", "/"), "x-canary", "10"), "web default"),
        (post(ask("web", "/form/1")), "api POST,PUT /form* to api"),
        (ask("web", "/form/1"), "web default"),
        (ask("web", "/12"), "gone! ~/[0-9]+ to gone"),
        // All of the path is meant.
        (ask("web", "/12/x"), "web default"),
        (
            ask("web", "/?a=b&v=t%77o"),
            "own * with parameter v = ~2|two to own",
        ),
        (ask("web", "/?v=22"), "web default"),
        (ask("web", "/a.css?v"), "own *.css to api"),
        (
            ask("web", "/anon"),
            "nobody.v1! /anon* without header cookie to nobody.v1",
        ),
        (with(ask("web", "/anon"), "cookie", "a=b"), "web default"),
    ];
    for (asked, expected) in rows {
        let found = table.find(&asked.head());
        assert_eq!(told(found), expected, "{}", asked.target);
        let asked_for = found.map(|found| found.asked.to_string());
        assert_eq!(asked_for.as_deref(), Some("web"));
    }
    let asked = ask("web", "/anon");
    let considered = table.considered("web", &asked.head());
    let reasons: Vec<_> = considered
        .iter()
        .map(|one| (one.of_consul, one.misfit.as_deref().unwrap_or("fits")))
        .collect();
    let expected = [
        (false, "header X-Canary is not 1"),
        (false, "the method is not POST or PUT"),
        (false, "the path is not ~/[0-9]+"),
        (false, "parameter v is not ~2|two"),
        (true, "the path is not *.css"),
        (true, "fits"),
    ];
    assert_eq!(reasons, expected);
}

/// A table is made anew only where something differs that routes depend on.
#[test]
fn what_has_not_changed_stays() {
    let mut web = state("web", Protocol::Http);
    policy(&mut web).routes = vec![route(on_path(Text::Present), Some("late"), None)];
    let other = state("other", Protocol::Http);
    let first = Arc::new(RoutingTable::build(&snapshot([web.clone(), other.clone()])));
    // Backends and their health are nothing to it.
    let mut panicking = web.clone();
    panicking.panic = true;
    let same = RoutingTable::update(&first, &snapshot([panicking, other.clone()]));
    assert!(Arc::ptr_eq(&first, &same));
    // A change of one leaves the other's routes as they are.
    let mut changed = other.clone();
    policy(&mut changed).hosts.insert("new.example".into());
    let second = RoutingTable::update(&first, &snapshot([web.clone(), changed.clone()]));
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&first.services["web"], &second.services["web"]));
    assert!(!Arc::ptr_eq(
        &first.services["other"],
        &second.services["other"]
    ));
    let asked = ask("new.example", "/");
    assert_eq!(told(second.find(&asked.head())), "other default");
    assert!(first.find(&asked.head()).is_none());
    // One that comes may be somebody's destination, and one that goes, too.
    let asked = ask("web", "/");
    assert_eq!(told(second.find(&asked.head())), "late! any to late");
    let late = state("late", Protocol::Http);
    let third = RoutingTable::update(&second, &snapshot([web.clone(), changed.clone(), late]));
    assert_eq!(told(third.find(&asked.head())), "late any to late");
    let fourth = RoutingTable::update(&third, &snapshot([web, changed]));
    assert_eq!(told(fourth.find(&asked.head())), "late! any to late");
}

/// Thousands of services cost no more per request than a few; this would take minutes otherwise.
#[test]
fn thousands_of_services_are_found_at_once() {
    let states = (0..5000).map(|number| {
        let mut state = state(&format!("s{number}"), Protocol::Http);
        state.routes = (0..4)
            .map(|part| tag(Some("big.example"), prefix(&format!("/{part}/{number}/"))))
            .collect();
        state
    });
    let table = RoutingTable::build(&snapshot(states));
    assert_eq!(table.size(), (30_000, 0));
    let asked = ask("big.example", "/3/4999/x/y/z");
    let head = asked.head();
    for _ in 0..100_000 {
        assert_eq!(&**table.find(&head).unwrap().service, "s4999");
    }
}
