//! A real Consul says what becomes of requests: its entries act on those that the proxy serves.

use std::time::{Duration, Instant};

use lb_tests::{
    agent::{Agent, Setup},
    consul::{Consul, Registration},
    pace::at_this_pace,
    process::{Process, wait_for},
    topology::Topology,
};
use serde_json::{Value, json};

use crate::{
    proxy_scene::{Curled, SHARED, curl, web},
    scene::{PATIENCE, VIP},
};

/// As large a weight as Consul takes: such a backend is always tried before one of weight 1.
pub(crate) const FIRST: u16 = 65535;

/// Backends `b1`, `b2` …, a Consul, and the agent with the service `web` from there. Dropped from
/// the top down.
pub(crate) struct Site {
    pub(crate) agent: Agent,
    backends: Vec<Process>,
    pub(crate) consul: Consul,
    pub(crate) topology: Topology,
}

impl Site {
    /// With these keys of `[consul]`.
    pub(crate) fn new(count: u8, keys: &str) -> Self {
        let topology = Topology::new(count.into()).unwrap();
        let backends = (1..=count).map(|number| web(&topology, number)).collect();
        let consul = Consul::start(topology.node(), topology.directory()).unwrap();
        let config = format!(
            "[consul]\naddress = \"http://127.0.0.1:8500\"\n{keys}\n\
             [proxy]\nlisten = [\"{SHARED}\"]\n\
             [[service]]\nname = \"web\"\nvip = [\"{VIP}\"]\nprotocol = \"http\"\n\
             consul = {{ service = \"web\" }}\n\
             health = {{ kind = \"none\", slow_start = \"0s\", passive = false }}\n"
        );
        let agent = Setup::new(&topology).config(&config).start().unwrap();
        Self {
            agent,
            backends,
            consul,
            topology,
        }
    }

    /// Registers backend `number` under its name, as of this version.
    pub(crate) fn register(&self, service: &str, number: u8, version: &str, tags: &[&str]) {
        self.weighted(service, number, version, tags, 1);
    }

    pub(crate) fn weighted(
        &self,
        service: &str,
        number: u8,
        version: &str,
        tags: &[&str],
        weight: u16,
    ) {
        let instance = Registration {
            service,
            id: &format!("b{number}"),
            address: self.topology.backend_address(number),
            tags,
            meta: &[("version", version)],
            weights: (weight, weight),
        };
        self.consul.register(instance).unwrap();
    }

    /// Writes a configuration entry.
    pub(crate) fn put(&self, kind: &str, name: &str, mut entry: Value) {
        entry["Kind"] = json!(kind);
        entry["Name"] = json!(name);
        self.consul.put_entry(&entry).unwrap();
    }

    /// Consul itself wants this before routes and shares.
    pub(crate) fn speak_http(&self, names: &[&str]) {
        for name in names {
            self.put("service-defaults", name, json!({"Protocol": "http"}));
        }
    }

    pub(crate) fn ask(&self, at: &str, host: &str, path: &str, more: &[&str]) -> Curled {
        let url = format!("http://{at}{path}");
        let host = format!("Host: {host}");
        let words = [&["-H", &host, &url], more].concat();
        curl(self.topology.client(), &words)
    }

    /// Waits until this status comes from this backend (`""`: from none).
    pub(crate) fn until(&self, host: &str, path: &str, more: &[&str], status: u16, backend: &str) {
        let what = format!("{status} from {backend:?} for {host}{path} {more:?}");
        wait_for(&what, PATIENCE, || {
            self.agent.process().ensure_running()?;
            let got = self.ask(SHARED, host, path, more);
            Ok((got.status == status && by(&got) == backend).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", self.ask(SHARED, host, path, more)));
    }

    /// What a command of the agent's says, which must have all these words in it.
    pub(crate) fn assert_told(&self, command: &[&str], words: &[&str]) {
        let told = self.agent.command(command).unwrap();
        for word in words {
            assert!(told.contains(word), "no {word:?} by {command:?}:\n{told}");
        }
    }
}

/// Who answered.
pub(crate) fn by(got: &Curled) -> &str {
    got.header("x-backend").unwrap_or("")
}

#[test]
fn routes_of_the_service_router_act_on_requests() {
    let site = Site::new(3, "");
    site.speak_http(&["web", "api"]);
    site.register("web", 1, "1", &[]);
    site.register("web", 2, "2", &[]);
    site.register("api", 3, "1", &["urlprefix-tagged.example/"]);
    let subsets = json!({"DefaultSubset": "v1", "Subsets": {
        "v1": {"Filter": "Service.Meta.version == 1"},
        "v2": {"Filter": "Service.Meta.version == 2"}}});
    site.put("service-resolver", "web", subsets);
    let v2 = json!({"ServiceSubset": "v2"});
    let routes = json!({"Routes": [
        {"Match": {"HTTP": {"PathExact": "/exact"}}, "Destination": v2},
        {"Match": {"HTTP": {"PathRegex": "/re/[0-9]+"}}, "Destination": v2},
        {"Match": {"HTTP": {"Header": [{"Name": "x-canary", "Exact": "1"}]}}, "Destination": v2},
        {"Match": {"HTTP": {"QueryParam": [{"Name": "canary", "Exact": "1"}]}}, "Destination": v2},
        {"Match": {"HTTP": {"Methods": ["DELETE"]}}, "Destination": v2},
        {"Match": {"HTTP": {"PathPrefix": "/old/"}}, "Destination": {"PrefixRewrite": "/"}},
        {"Match": {"HTTP": {"PathPrefix": "/delay/"}}, "Destination": {"RequestTimeout": "300ms"}},
        {"Match": {"HTTP": {"PathPrefix": "/api/"}},
         "Destination": {"Service": "api", "PrefixRewrite": "/"}}]});
    site.put("service-router", "web", routes);
    for (path, more, status, backend) in [
        ("/", &[][..], 200, "b1"),
        ("/exact", &[], 200, "b2"),
        ("/exactly", &[], 200, "b1"),
        ("/re/17", &[], 200, "b2"),
        ("/re/x", &[], 200, "b1"),
        ("/", &["-H", "x-canary: 1"], 200, "b2"),
        ("/", &["-H", "x-canary: 2"], 200, "b1"),
        ("/?canary=1", &[], 200, "b2"),
        ("/?canary=2", &[], 200, "b1"),
        ("/", &["-X", "DELETE"], 200, "b2"),
        ("/old/status/418", &[], 418, "b1"),
        ("/old", &[], 200, "b1"),
        ("/delay/10", &[], 200, "b1"),
        ("/delay/3000", &[], 504, ""),
        // Nobody has configured it here: it is watched for the route's sake.
        ("/api/status/418", &[], 418, "b3"),
    ] {
        site.until("web", path, more, status, backend);
        let got = site.ask(VIP, "any", path, more);
        assert_eq!((got.status, by(&got)), (status, backend), "{path} {more:?}");
    }
    let begun = Instant::now();
    site.ask(SHARED, "web", "/delay/3000", &[]);
    let took = begun.elapsed();
    eprintln!("a RequestTimeout of 300 ms: answered after {took:?}");
    let most = at_this_pace(Duration::from_millis(600));
    assert!(
        took >= Duration::from_millis(300) && took < most,
        "{took:?}"
    );

    // No host leads to who is there for a route, neither its name nor its tags.
    for host in ["api", "api.consul.localhost", "tagged.example"] {
        assert_eq!(site.ask(SHARED, host, "/", &[]).status, 404, "{host}");
    }
    site.assert_told(
        &["service", "show", "web"],
        &[
            "/api/* to api",
            "/old/* to the service itself",
            "to subset v2",
        ],
    );
    site.assert_told(
        &["service", "show", "api"],
        &["service-router of web in Consul"],
    );
    site.assert_told(&["explain", "web", "/api/x"], &["service-router", "to api"]);
    // It follows its own resolver, and goes with the last route to it.
    let redirect = json!({"Redirect": {"Service": "web", "ServiceSubset": "v2"}});
    site.put("service-resolver", "api", redirect);
    site.until("web", "/api/status/418", &[], 418, "b2");
    site.consul.delete_entry("service-router", "web").unwrap();
    site.until("web", "/api/status/418", &[], 200, "b1");
    let output = site.agent.cli(&["service", "show", "api"]).unwrap();
    assert_eq!(output.code, 1, "{output:?}");
}

#[test]
fn what_is_tried_again_is_as_the_route_says() {
    let site = Site::new(4, "");
    site.speak_http(&["web"]);
    // Three that nobody can use go before the one that serves. It is so slow that it is not much
    // better than them, who count as slow after a failure; else they would be avoided.
    for number in 1..=3 {
        site.weighted("web", number, "1", &[], FIRST);
        let at = site.topology.backend_address(number);
        let turned = format!("http://{at}/always/status/418");
        assert_eq!(curl(site.topology.node(), &[&turned]).status, 200);
    }
    site.register("web", 4, "1", &[]);
    let route = |prefix: &str, to: Value| json!({"Match": {"HTTP": {"PathPrefix": prefix}}, "Destination": to});
    let to = |retries: u32, codes: &[u16], failures: bool| {
        json!({"PrefixRewrite": "/", "NumRetries": retries, "RetryOnStatusCodes": codes,
               "RetryOnConnectFailure": failures})
    };
    site.put(
        "service-router",
        "web",
        json!({"Routes": [
        route("/thrice/", to(3, &[418], false)),
        route("/once/", to(1, &[418], false)),
        route("/other/", to(3, &[500], false)),
        route("/failures/", to(3, &[], true))]}),
    );
    let answers = |path: &str| {
        let path = format!("{path}/delay/200");
        let statuses = (0..5).map(|_| site.ask(SHARED, "web", &path, &[]).status);
        statuses.collect::<Vec<_>>()
    };
    site.until("web", "/thrice/delay/200", &[], 200, "b4");
    for (path, expected) in [
        ("/thrice", 200),
        ("/once", 418),
        ("/other", 418),
        ("/failures", 418),
        ("", 418),
    ] {
        assert_eq!(answers(path), [expected; 5], "{path}");
    }
    // Now they do not even answer.
    for backend in &site.backends[..3] {
        backend.stop().unwrap();
    }
    for (path, expected) in [("/failures", 200), ("/thrice", 503), ("/other", 503)] {
        assert_eq!(answers(path), [expected; 5], "{path}");
    }
}

#[test]
fn tags_of_instances_are_routes_of_shared_listeners() {
    let site = Site::new(2, "auto_publish = true");
    site.register("web", 1, "1", &["urlprefix-fabio.example/a"]);
    let rule = "traefik.http.routers.x.rule=Host(`traefik.example`) && PathPrefix(`/b`)";
    site.register("other", 2, "1", &[rule]);
    site.until("fabio.example", "/a/x", &[], 200, "b1");
    site.until("traefik.example", "/b/x", &[], 200, "b2");
    for (host, path) in [
        ("fabio.example", "/x"),
        ("traefik.example", "/x"),
        ("none", "/a"),
    ] {
        assert_eq!(
            site.ask(SHARED, host, path, &[]).status,
            404,
            "{host}{path}"
        );
    }
    site.assert_told(
        &["explain", "traefik.example", "/b/x"],
        &["service other", "by traefik.example/b*"],
    );
    // In maintenance its host has nobody; once it is deregistered, there is no such host.
    let is_gone = || {
        let begun = Instant::now();
        site.consul.deregister("b2").unwrap();
        site.until("traefik.example", "/b/x", &[], 404, "");
        let took = begun.elapsed();
        let output = site.agent.cli(&["service", "show", "other"]).unwrap();
        assert_eq!(output.code, 1, "{output:?}");
        took
    };
    site.consul.set_maintenance("b2", true).unwrap();
    site.until("traefik.example", "/b/x", &[], 503, "");
    site.consul.set_maintenance("b2", false).unwrap();
    site.until("traefik.example", "/b/x", &[], 200, "b2");
    site.consul.set_maintenance("b2", true).unwrap();
    site.until("traefik.example", "/b/x", &[], 503, "");
    eprintln!(
        "deregistered out of maintenance: no host after {:?}",
        is_gone()
    );
    // One that goes without a word is not believed to be gone before probes say the same.
    site.consul
        .register(Registration {
            service: "other",
            id: "b2",
            address: site.topology.backend_address(2),
            tags: &[rule],
            meta: &[("lb-health-kind", "tcp"), ("lb-health-interval", "200ms")],
            weights: (1, 1),
        })
        .unwrap();
    site.until("traefik.example", "/b/x", &[], 200, "b2");
    site.backends[1].stop().unwrap();
    eprintln!("ended and deregistered: no host after {:?}", is_gone());
    // A configured service stays, without backends.
    site.until("fabio.example", "/a/x", &[], 200, "b1");
    site.consul.set_maintenance("b1", true).unwrap();
    site.until("web", "/", &[], 503, "");
    site.consul.deregister("b1").unwrap();
    site.until("fabio.example", "/a/x", &[], 404, "");
    assert_eq!(site.ask(SHARED, "web", "/", &[]).status, 503);
}
