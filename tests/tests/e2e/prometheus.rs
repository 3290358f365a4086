//! A real Prometheus, and what it makes of the agent.

use lb_tests::{
    process::wait_for,
    prometheus::{Prometheus, check_metrics},
};

use crate::scene::{PATIENCE, Scene, VIP, address, entry, sample};

#[test]
fn prometheus_scrapes_and_answers() {
    let health = "health = { kind = \"http\", path = \"/health\", interval = \"500ms\" }";
    let scene = Scene::listed(&["v1", "v1", "v1"], health, "");
    let target = address(crate::scene::METRICS);
    let prometheus =
        Prometheus::start(scene.topology.node(), target, scene.topology.directory()).unwrap();
    let value = |promql: &str| prometheus.value(promql).unwrap();
    let becomes = |promql: &str, wanted: &dyn Fn(Option<f64>) -> bool| {
        wait_for(&format!("`{promql}`"), PATIENCE, || {
            let found = prometheus.value(promql)?;
            Ok(wanted(found).then_some(found))
        })
        .unwrap_or_else(|error| panic!("{error:#}; it is {:?}", value(promql)))
    };
    becomes("up{job=\"lb-agent\"}", &|up| up == Some(1.0));
    scene
        .agent
        .command(&["block", "add", "203.0.113.7"])
        .unwrap();

    // The rate of what the client sends.
    let load = scene.load(200.0);
    let rate = becomes(
        "sum(rate(lb_service_flows_total{service=\"echo\"}[5s]))",
        &|rate| rate.is_some_and(|rate| rate > 50.0),
    );
    let record = load.stop();
    assert_eq!(record.all().failed(), 0, "{:?}", record.all().failures);
    eprintln!("Prometheus saw {rate:?} flows a second of 200 requests a second");

    let healthy = "sum(lb_backend_healthy{service=\"echo\"})";
    becomes(healthy, &|count| count == Some(6.0));
    scene.backends[2].set_failing(true).unwrap();
    let third = scene.topology.backend_address(3);
    let of_third = format!("lb_backend_healthy{{backend=\"{third}\"}}");
    becomes(&of_third, &|healthy| healthy == Some(0.0));
    becomes(healthy, &|count| count == Some(4.0));
    // Everything that the agent shows, it shows by the rules.
    check_metrics(&scene.scrape()).unwrap();

    // What is counted of a service outlives its backends; their series do not.
    let total = |metric: &str| sample(&scene.scrape(), metric, &["service=\"echo\""]).unwrap();
    let metrics = [
        "lb_service_flows_total",
        "lb_service_packets_total",
        "lb_service_bytes_total",
    ];
    let before = metrics.map(total);
    let of_third = format!("count({{backend=\"{third}\"}})");
    becomes(&of_third, &|series| series > Some(0.0));
    scene.reconfigure(&entry(third, "v1"), "");
    becomes(&of_third, &|series| series.is_none());
    let label = format!("backend=\"{third}\"");
    for (metric, before) in metrics.iter().zip(before) {
        let backend = metric.replace("lb_service", "lb_backend");
        let scrape = scene.scrape();
        assert_eq!(sample(&scrape, &backend, &[&label]), None);
        let after = sample(&scrape, metric, &["service=\"echo\""]).unwrap();
        assert!(after >= before, "{metric}: {before}, then {after}");
    }
    let spread = scene.client().spread(address(VIP), 100, 4);
    assert_eq!(spread.failed(), 0, "{:?}", spread.failures);
    assert_eq!(spread.of("b3"), 0);
    let after = metrics.map(total);
    assert!(after[0] >= before[0] + 100.0, "{before:?}, {after:?}");
    let resets = value("sum(resets(lb_service_flows_total[1m]))");
    assert_eq!(resets, Some(0.0));
}
