//! Real Consul and Prometheus servers.

use std::time::Duration;

use lb_tests::{
    client::{Client, RequestError},
    consul::{Consul, Registration},
    namespace::Namespace,
    process::wait_for,
    prometheus::{self, Prometheus},
};
use serde_json::{Value, json};

use crate::PATIENCE;

#[test]
fn prometheus_scrapes_and_answers() {
    let host = Namespace::new("prom").unwrap();
    let directory = tempfile::tempdir().unwrap();
    // It scrapes itself: the one target that is there for certain.
    let own = "127.0.0.1:9090".parse().unwrap();
    let prometheus = Prometheus::start(&host, own, directory.path()).unwrap();
    let up = wait_for("the first scrape", PATIENCE, || {
        prometheus.value("up{job=\"lb-agent\"}")
    });
    assert_eq!(up.unwrap(), 1.0);
    assert_eq!(prometheus.value("no_such_series").unwrap(), None);
    assert!(prometheus.value("this is no query").is_err());
}

#[test]
fn promtool_judges_metrics() {
    let good =
        "# HELP lb_packets_total Packets.\n# TYPE lb_packets_total counter\nlb_packets_total 1\n";
    prometheus::check_metrics(good).unwrap();
    let bad = good.replace("lb_packets_total", "lb_packets");
    let error = prometheus::check_metrics(&bad).unwrap_err().to_string();
    assert!(error.contains("_total"), "{error}");
}

fn passing(consul: &Consul) -> Vec<Value> {
    let answer = consul.get("/v1/health/service/echo?passing").unwrap();
    answer.as_array().unwrap().clone()
}

#[test]
fn serves_what_is_registered() {
    let host = Namespace::new("consul").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut consul = Consul::start(&host, directory.path()).unwrap();
    let register = |consul: &Consul, id| {
        let instance = Registration {
            service: "echo",
            id,
            address: "10.77.1.2:8080".parse().unwrap(),
            tags: &["v1"],
            meta: &[("version", "1")],
            weights: (5, 1),
        };
        consul.register(instance).unwrap();
    };
    register(&consul, "echo-1");
    let only = &passing(&consul)[0]["Service"];
    assert_eq!(only["Address"], "10.77.1.2");
    assert_eq!(only["Port"], 8080);
    assert_eq!(only["Tags"], json!(["v1"]));
    assert_eq!(only["Meta"]["version"], "1");
    assert_eq!(only["Weights"], json!({"Passing": 5, "Warning": 1}));

    consul.set_maintenance("echo-1", true).unwrap();
    wait_for("maintenance", PATIENCE, || {
        Ok(passing(&consul).is_empty().then_some(()))
    })
    .unwrap();
    consul.set_maintenance("echo-1", false).unwrap();
    wait_for("service", PATIENCE, || {
        Ok((passing(&consul).len() == 1).then_some(()))
    })
    .unwrap();

    consul.put_kv("a/key", "value").unwrap();
    assert_eq!(consul.get("/v1/kv/a/key?raw=").ok(), None);
    assert_eq!(consul.get("/v1/kv/a/key").unwrap()[0]["Value"], "dmFsdWU=");
    let snapshot = consul.snapshot().unwrap();
    consul.put_kv("a/key", "other").unwrap();
    consul.restore(snapshot).unwrap();
    assert_eq!(consul.get("/v1/kv/a/key").unwrap()[0]["Value"], "dmFsdWU=");

    consul.restart().unwrap();
    wait_for("echo-1 to be back", PATIENCE, || {
        Ok((passing(&consul).len() == 1).then_some(()))
    })
    .unwrap();
    consul.deregister("echo-1").unwrap();
    assert!(passing(&consul).is_empty());
    register(&consul, "echo-2");
    consul.restart_empty().unwrap();
    assert!(passing(&consul).is_empty());

    consul.pause().unwrap();
    let impatient = Client::new(&host).patience(Duration::from_millis(300));
    let address = lb_tests::consul::ADDRESS.parse().unwrap();
    let error = impatient.get(address, "/v1/status/leader").unwrap_err();
    assert!(matches!(error, RequestError::AnswerTimeout(_)), "{error}");
    consul.resume().unwrap();
    consul.put_kv("a/key", "again").unwrap();
    consul.stop().unwrap();
    assert!(consul.get("/v1/status/leader").is_err());
}
