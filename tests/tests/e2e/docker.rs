//! Containers of a real Docker engine are in a real Consul as they say of themselves, and take the
//! service's traffic.

use std::time::{Duration, Instant};

use lb_tests::{
    agent::Setup,
    client::Client,
    consul::{Consul, Registration},
    docker::Docker,
    process::wait_for,
    stats::percentile,
    topology::Topology,
};
use serde_json::{Value, json};

use crate::scene::{PATIENCE, Scene, VIP, address, config, reply, sample};

/// What the ids of the tests' registrations begin with.
pub(crate) const PREFIX: &str = "lb:node:";

/// The engine, Consul, and the agent between them, on the node. Dropped from the top down: the
/// engine needs its files and its host to end well.
pub(crate) struct Stage {
    pub(crate) docker: Docker,
    pub(crate) consul: Consul,
    pub(crate) scene: Scene,
}

impl Stage {
    /// With these lines in `[docker]`, and backends from Consul's service `echo`.
    pub(crate) fn new(lines: &str) -> Self {
        Self::publishing("false", lines)
    }

    /// The same where services publish themselves so far.
    fn publishing(how_far: &str, lines: &str) -> Self {
        let topology = Topology::new(0).unwrap();
        let (node, directory) = (topology.node(), topology.directory());
        let consul = Consul::start(node, directory).unwrap();
        let docker = Docker::start(node, directory).unwrap();
        let tables = format!(
            "[consul]\naddress = \"http://127.0.0.1:8500\"\nauto_publish = {how_far}\n\n\
             [docker]\nendpoint = \"unix://{}\"\nprefix = \"{PREFIX}\"\nresync = \"5s\"\n{lines}\n",
            docker.socket().display()
        );
        let config = config("consul = { service = \"echo\" }", &tables);
        let agent = Setup::new(&topology).config(&config).start().unwrap();
        let scene = Scene {
            agent,
            backends: Vec::new(),
            topology,
        };
        Self {
            scene,
            docker,
            consul,
        }
    }

    /// How the registration stands, by `status`.
    pub(crate) fn status(&self) -> Value {
        let output = self.scene.agent.cli(&["-o", "json", "status"]).unwrap();
        let status: Value = serde_json::from_str(&output.stdout).unwrap();
        status["docker"].clone()
    }

    /// What Consul's agent holds under an id without its prefix.
    pub(crate) fn service(&self, id: &str) -> Option<Value> {
        let services = self.consul.get("/v1/agent/services").unwrap();
        services.get(format!("{PREFIX}{id}")).cloned()
    }

    /// Ids of all that Consul's agent holds, without the prefix where they have it.
    pub(crate) fn ids(&self) -> Vec<String> {
        let services = self.consul.get("/v1/agent/services").unwrap();
        let services = services.as_object().unwrap();
        let short = |id: &String| id.strip_prefix(PREFIX).unwrap_or(id).to_owned();
        let mut ids: Vec<String> = services.keys().map(short).collect();
        ids.sort();
        ids
    }

    pub(crate) fn wait_for_ids(&self, expected: &[&str]) {
        let what = format!("Consul to hold {expected:?}");
        wait_for(&what, PATIENCE, || {
            self.scene.agent.process().ensure_running()?;
            Ok((self.ids() == expected).then_some(()))
        })
        .unwrap_or_else(|error| {
            let log = self.scene.agent.process().tail();
            panic!("{error:#}; it holds {:?}; {log}", self.ids())
        });
    }

    /// The check of a registration that ends in these words.
    pub(crate) fn check(&self, id: &str, end: &str) -> Option<Value> {
        let checks = self.consul.get("/v1/agent/checks").unwrap();
        checks.get(format!("{PREFIX}{id}:{end}")).cloned()
    }

    pub(crate) fn wait_for_status(&self, id: &str, end: &str, status: &str) {
        wait_for(&format!("{end} of {id} to be {status}"), PATIENCE, || {
            let check = self.check(id, end);
            Ok(check.filter(|check| check["Status"] == status).map(drop))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", self.check(id, end)));
    }

    /// A client of the service.
    pub(crate) fn client(&self) -> Client {
        self.scene.client().patience(Duration::from_millis(500))
    }

    /// Waits until exactly these backends answer on the VIP.
    pub(crate) fn wait_until_served_by(&self, expected: &[&str]) {
        wait_for(&format!("{expected:?} to answer"), PATIENCE, || {
            let spread = self.client().spread(address(VIP), 40, 2);
            let names: Vec<&str> = spread.backends.keys().map(String::as_str).collect();
            Ok((names == expected && spread.failed() == 0).then_some(()))
        })
        .unwrap_or_else(|error| {
            let list = reply(&self.scene.agent, &["backend", "list"]);
            panic!("{error:#}: {list}; {}", self.scene.agent.process().tail())
        });
    }
}

/// Options of a container whose port 8080 is published as `port`, with these labels.
pub(crate) fn published(port: u16, labels: &Value) -> Value {
    json!({
        "Labels": labels,
        "HostConfig": {"PortBindings": {"8080/tcp": [{"HostPort": port.to_string()}]}},
    })
}

#[test]
fn containers_are_in_consul_as_they_say_and_take_traffic() {
    let stage = Stage::new("address = \"10.77.0.1\"\ntags = [\"node-a\"]");
    let Stage {
        docker,
        consul,
        scene,
    } = &stage;
    // Somebody else's, under an id that one of the agent's could have.
    let foreign = format!("{PREFIX}foreign:8080");
    let other = Registration {
        service: "other",
        id: &foreign,
        address: address("192.0.2.1:80"),
        tags: &[],
        meta: &[],
        weights: (1, 1),
    };
    consul.register(other).unwrap();

    let mut web = published(
        18080,
        &json!({
            "SERVICE_NAME": "echo", "SERVICE_TAGS": "v1,blue", "SERVICE_LB_VIP": "198.51.100.10:80",
            "SERVICE_CHECK_HTTP": "/health", "SERVICE_CHECK_INTERVAL": "1s",
        }),
    );
    web["Env"] = json!(["SERVICE_REGION=us2", "SERVICE_NAME=hidden"]);
    docker.run("web", &web).unwrap();
    docker
        .run(
            "ignored",
            &published(18081, &json!({"SERVICE_IGNORE": "true"})),
        )
        .unwrap();
    docker
        .run("inside", &json!({"Labels": {"SERVICE_NAME": "echo"}}))
        .unwrap();
    docker
        .run(
            "odd",
            &published(18082, &json!({"SERVICE_CHECK_SCRIPT": "curl x"})),
        )
        .unwrap();
    docker
        .run("foreign", &published(18083, &json!({})))
        .unwrap();
    stage.wait_for_ids(&["foreign:8080", "odd:8080", "web:8080"]);

    let service = stage.service("web:8080").unwrap();
    assert_eq!(service["Service"], "echo");
    assert_eq!(
        (&service["Address"], &service["Port"]),
        (&json!("10.77.0.1"), &json!(18080))
    );
    assert_eq!(service["Tags"], json!(["v1", "blue", "node-a"]));
    assert_eq!(service["Meta"]["region"], "us2");
    assert_eq!(service["Meta"]["lb-vip"], "198.51.100.10:80");
    assert_eq!(service["Meta"]["lb-registrar"], PREFIX);
    let odd = stage.service("odd:8080").unwrap();
    assert_eq!(
        (&odd["Service"], &odd["Port"]),
        (&json!("lb-echo"), &json!(18082))
    );
    assert_eq!(stage.check("odd:8080", "check"), None);
    // The check is Consul's own, over the published port.
    stage.wait_for_status("web:8080", "check", "passing");
    stage.wait_until_served_by(&["web"]);

    // What is not followed is told, with container and label; what is in the way is a problem.
    scene.wait_for_problem("holds lb:node:foreign:8080 of the service other");
    let docker_status = stage.status();
    assert_eq!(docker_status["containers"], 5, "{docker_status}");
    assert_eq!(
        (&docker_status["wanted"], &docker_status["registered"]),
        (&json!(3), &json!(2))
    );
    let warnings = docker_status["warnings"].to_string();
    assert!(
        warnings.contains("container odd: label SERVICE_CHECK_SCRIPT: checks that run a program"),
        "{warnings}"
    );
    let text = scene.agent.cli(&["status"]).unwrap().stdout;
    assert!(
        text.contains("5 running, 2 of 3 services registered in Consul"),
        "{text}"
    );
    docker.remove("foreign").unwrap();
    scene.wait_until_healthy();
    assert_eq!(stage.service("foreign:8080").unwrap()["Service"], "other");

    // A paused one gets nothing new, and says why.
    docker.pause("web").unwrap();
    let maintenance = || {
        let checks = consul.get("/v1/agent/checks").unwrap();
        checks
            .get(format!("_service_maintenance:{PREFIX}web:8080"))
            .cloned()
    };
    let check = wait_for("maintenance", PATIENCE, || Ok(maintenance())).unwrap();
    assert_eq!(check["Notes"], "the container is paused (lb-agent)");
    docker.unpause("web").unwrap();
    wait_for("the end of it", PATIENCE, || {
        Ok(maintenance().is_none().then_some(()))
    })
    .unwrap();
    stage.wait_until_served_by(&["web"]);

    // A new name is a new id, and the former one goes.
    docker.rename("web", "shop").unwrap();
    stage.wait_for_ids(&["foreign:8080", "odd:8080", "shop:8080"]);
    docker.stop("shop").unwrap();
    stage.wait_for_ids(&["foreign:8080", "odd:8080"]);
    docker.start_again("shop").unwrap();
    stage.wait_for_ids(&["foreign:8080", "odd:8080", "shop:8080"]);
    stage.wait_until_served_by(&["web"]);
    // Measured from the engine's answer on: what it takes itself is its own.
    let (mut came, mut went) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        docker.stop("shop").unwrap();
        let begun = Instant::now();
        stage.wait_for_ids(&["foreign:8080", "odd:8080"]);
        went.push(begun.elapsed());
        docker.start_again("shop").unwrap();
        let begun = Instant::now();
        stage.wait_for_ids(&["foreign:8080", "odd:8080", "shop:8080"]);
        came.push(begun.elapsed());
    }
    for (what, times) in [("started", came), ("stopped", went)] {
        let median = percentile(&times, 50.0).unwrap();
        let longest = times.iter().max();
        eprintln!("{what} and in Consul: median {median:?}, longest {longest:?}");
        assert!(median < Duration::from_secs(1), "{what}: {times:?}");
    }
    docker.remove("shop").unwrap();
    docker.remove("odd").unwrap();
    stage.wait_for_ids(&["foreign:8080"]);

    let scrape = scene.scrape();
    let metric = |name: &str, labels: &[&str]| sample(&scrape, name, labels);
    assert_eq!(metric("lb_docker_up", &["peer=\"docker\""]), Some(1.0));
    assert_eq!(metric("lb_docker_up", &["peer=\"consul\""]), Some(1.0));
    assert_eq!(metric("lb_docker_registered", &[]), Some(0.0));
    assert!(metric("lb_docker_changes_total", &["action=\"register\""]) >= Some(4.0));
    assert!(metric("lb_docker_changes_total", &["action=\"deregister\""]) >= Some(4.0));
    assert!(metric("lb_docker_sync_age_seconds", &[]) < Some(15.0));
    let log = scene.agent.process().output();
    assert!(log.contains("registered in Consul") && log.contains("deregistered from Consul"));
}

#[test]
fn a_label_makes_a_balanced_service_of_a_container() {
    const SHOP: &str = "198.51.100.20:80";
    let lines = "address = \"10.77.0.1\"\nexplicit = true";
    let stage = Stage::publishing("[\"198.51.100.0/24\"]", lines);
    let labels = json!({
        "SERVICE_NAME": "shop", "SERVICE_LB_VIP": SHOP, "SERVICE_LB_HEALTH_KIND": "http",
        "SERVICE_LB_HEALTH_PATH": "/health", "SERVICE_LB_HEALTH_INTERVAL": "1s",
    });
    stage
        .docker
        .run("shop1", &published(18080, &labels))
        .unwrap();
    stage
        .docker
        .run("shop2", &published(18081, &labels))
        .unwrap();
    stage
        .docker
        .run("nameless", &published(18082, &json!({})))
        .unwrap();
    stage.wait_for_ids(&["shop1:8080", "shop2:8080"]);
    wait_for("both to answer", PATIENCE, || {
        let spread = stage.client().spread(address(SHOP), 40, 2);
        let names: Vec<&str> = spread.backends.keys().map(String::as_str).collect();
        Ok((names == ["shop1", "shop2"] && spread.failed() == 0).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", stage.scene.agent.process().tail()));
    let shown = reply(&stage.scene.agent, &["service", "show", "shop"]);
    let probe = &shown["service"]["probe"];
    assert_eq!(
        (&probe["kind"], &probe["path"]),
        (&json!("http"), &json!("/health"))
    );
    stage.docker.remove("shop1").unwrap();
    stage.wait_for_ids(&["shop2:8080"]);
    // A UDP port, and a container in the node's own network.
    let talk = json!({
        "Labels": {"SERVICE_NAME": "talk"},
        "ExposedPorts": {"8080/udp": {}},
        "HostConfig": {"PortBindings": {"8080/udp": [{"HostPort": "18083"}]}},
    });
    stage.docker.run("talk", &talk).unwrap();
    let hosted = json!({
        "Env": ["SERVICE_8080_NAME=hosted"], "HostConfig": {"NetworkMode": "host"},
    });
    stage.docker.run("hosted", &hosted).unwrap();
    stage.wait_for_ids(&["hosted:8080", "shop2:8080", "talk:8080:udp"]);
    let talk = stage.service("talk:8080:udp").unwrap();
    assert_eq!(
        (&talk["Service"], &talk["Port"]),
        (&json!("talk"), &json!(18083))
    );
    assert_eq!(talk["Tags"], json!(["udp"]));
    let hosted = stage.service("hosted:8080").unwrap();
    assert_eq!(
        (&hosted["Service"], &hosted["Port"]),
        (&json!("hosted"), &json!(8080))
    );
    assert_eq!(hosted["Address"], "10.77.0.1");
    wait_for("one to answer", PATIENCE, || {
        let spread = stage.client().spread(address(SHOP), 40, 2);
        Ok((spread.of("shop2") == 40).then_some(()))
    })
    .unwrap();
}
