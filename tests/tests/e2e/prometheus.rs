//! A real Prometheus scrapes the agent; PromQL answers.

use lb_tests::{
    process::wait_for,
    prometheus::{Prometheus, check_metrics},
};

use crate::scene::{METRICS, PATIENCE, Scene, VIP, address, entry, sample};

#[test]
fn scraped_and_asked() {
    let scene = Scene::listed(&["v1", "v2"], "", "");
    check_metrics(&scene.scrape()).unwrap();
    let directory = scene.topology.directory();
    let prometheus = Prometheus::start(scene.topology.node(), address(METRICS), directory).unwrap();
    let asked = |query: &str, wanted: &dyn Fn(f64) -> bool| {
        wait_for(
            &format!("`{query}` to be answered as expected"),
            PATIENCE,
            || Ok(prometheus.value(query)?.filter(|value| wanted(*value))),
        )
        .unwrap()
    };
    asked("up{job=\"lb-agent\"}", &|up| up == 1.0);
    let before = asked("lb_service_flows_total{service=\"echo\"}", &|_| true);
    assert_eq!(scene.client().spread(address(VIP), 500, 4).failed(), 0);
    asked("lb_service_flows_total{service=\"echo\"}", &|flows| {
        flows >= before + 500.0
    });
    asked(
        "sum(rate(lb_service_flows_total{service=\"echo\"}[10s]))",
        &|rate| rate > 0.0,
    );
    asked("sum(lb_packets_total{action=\"forward\"})", &|packets| {
        packets > 1000.0
    });
    // Two backends on two families.
    asked("count(lb_backend_healthy == 1)", &|count| count == 4.0);
    asked("count(lb_build_info)", &|count| count == 1.0);

    // A backend that is taken away takes its series along, but not its part of the sum.
    let total = sample(&scene.scrape(), "lb_service_flows_total", &[]).unwrap();
    let second = scene.topology.backend_address(2);
    scene.reconfigure(&entry(second, "v2"), "");
    let scrape = scene.scrape();
    assert!(!scrape.contains(&second.to_string()), "{scrape}");
    assert!(sample(&scrape, "lb_service_flows_total", &[]).unwrap() >= total);
    check_metrics(&scrape).unwrap();
    asked("count(lb_backend_healthy == 1)", &|count| count == 3.0);
}
