//! Dashboards and rules: a real Prometheus with our rules scrapes a real agent at work, and every
//! query of every panel has an answer. Whatever name of a metric they use, the agent has.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use lb_tests::{
    grafana::{self, Dashboard, Query},
    process::wait_for,
    prometheus::{Prometheus, promtool},
};
use serde_json::{Value, json};

use crate::{
    dashboards_scene::{Node, compose},
    scene::PATIENCE,
};

/// A directory that gets what each panel was answered, to draw pictures of: DASHBOARDS_OUT. With
/// it everything takes longer (DASHBOARDS_CALM, seconds), so that there is something to see.
const OUT: &str = "DASHBOARDS_OUT";
const CALM: &str = "DASHBOARDS_CALM";
/// Services that dashboards of one service are looked at with: in the kernel, and in the proxy.
const SERVICES: [&str; 2] = ["echo", "web"];
/// Metrics that no dashboard or rule uses, and why.
const UNUSED: [(&str, &str); 2] = [
    (
        "lb_backend_packets_total",
        "bits of each backend and packets of the service say it",
    ),
    ("lb_local_clients_info", "status says which cgroup it is"),
];

fn dashboards() -> Vec<Dashboard> {
    grafana::dashboards(&compose("grafana/dashboards")).unwrap()
}

#[test]
fn every_panel_has_data() {
    let calm = std::env::var(CALM).map_or(5, |text| text.parse().unwrap());
    let interval = if calm > 10 { 2 } else { 1 };
    let mut node = Node::start(interval);
    node.live_through(Duration::from_secs(calm));
    let begun = Instant::now();
    let (from, to) = node.span();
    let (prometheus, span) = (&node.prometheus, Span { from, to, interval });
    let mut missing = Vec::new();
    let mut asked = 0;
    for dashboard in dashboards() {
        let services = match is_of_one_service(&dashboard) {
            true => &SERVICES[..],
            false => &[".*"],
        };
        for variable in &dashboard.variables {
            for service in services {
                let (series, label) = (fill(&variable.series, service, interval), &variable.label);
                let values = prometheus.query(&format!("count by ({label}) ({series})"));
                let values = values.unwrap();
                if !values
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|one| one["metric"][label].is_string())
                {
                    missing.push(format!(
                        "{}: variable {}, {service}",
                        dashboard.uid, variable.name
                    ));
                }
            }
        }
        for (name, promql) in &dashboard.annotations {
            // One of the services has had it.
            let any = services.iter().any(|service| {
                let query = Query {
                    promql: promql.clone(),
                    legend: String::new(),
                    instant: false,
                };
                has_value(&answer(prometheus, &query, service, span))
            });
            if !any {
                missing.push(format!("{}: annotation {name}", dashboard.uid));
            }
        }
        for panel in &dashboard.panels {
            let answers: Vec<Vec<Value>> = panel
                .queries
                .iter()
                .map(|query| {
                    asked += services.len();
                    let of = |service: &&str| answer(prometheus, query, service, span);
                    services.iter().map(of).collect()
                })
                .collect();
            // A panel has data of each service, a query of at least one.
            for (index, service) in services.iter().enumerate() {
                if !answers.iter().any(|answers| has_value(&answers[index])) {
                    missing.push(format!("{}: {:?} of {service}", dashboard.uid, panel.title));
                }
            }
            for (query, answers) in panel.queries.iter().zip(&answers) {
                if !answers.iter().any(has_value) {
                    let told = format!("{}: {:?}: {}", dashboard.uid, panel.title, query.promql);
                    missing.push(told);
                }
            }
            write_down(&dashboard, panel, services, &answers);
        }
    }
    assert!(
        missing.is_empty(),
        "no data:\n{}\n\n{}",
        missing.join("\n"),
        node.scrape()
    );
    eprintln!("{asked} queries answered in {:?}", begun.elapsed());
    alerts_say_what_is_wrong(prometheus);
    let (requests, flows) = node.count();
    assert!(
        requests > 0 && flows > 0,
        "{requests} requests, {flows} flows"
    );
}

/// What was provoked is told, and in words.
fn alerts_say_what_is_wrong(prometheus: &Prometheus) {
    wait_for("the alert of the split taken back", PATIENCE, || {
        let alerts = prometheus.alerts()?;
        for alert in alerts.as_array().unwrap() {
            for (name, text) in alert["annotations"].as_object().unwrap() {
                let text = text.as_str().unwrap();
                assert!(
                    !text.contains("<error") && !text.contains("<no value"),
                    "{name}: {text}"
                );
            }
        }
        let mut alerts = alerts.as_array().unwrap().iter();
        let found = alerts.find(|alert| {
            alert["labels"]["alertname"] == "LbSplitTakenBack"
                && alert["labels"]["service"] == "web"
                && alert["state"] == "firing"
        });
        Ok(found.map(|alert| alert["annotations"]["description"].clone()))
    })
    .map(|text| assert!(text.as_str().unwrap().contains("split ack web"), "{text}"))
    .unwrap();
}

fn is_of_one_service(dashboard: &Dashboard) -> bool {
    let mut variables = dashboard.variables.iter();
    variables.any(|variable| variable.name == "service" && !variable.all)
}

/// What Grafana asks for: seconds since 1970, and those from one value to the next.
#[derive(Clone, Copy)]
struct Span {
    from: u64,
    to: u64,
    interval: u64,
}

/// The query as Grafana would send it, with Prometheus' interval.
fn fill(promql: &str, service: &str, interval: u64) -> String {
    let rate = format!("{}s", 4 * interval);
    let values = [
        ("instance", ".*"),
        ("service", service),
        ("subset", ".*"),
        ("__rate_interval", &rate),
    ];
    grafana::fill(promql, &values).unwrap()
}

fn answer(prometheus: &Prometheus, query: &Query, service: &str, span: Span) -> Value {
    let promql = fill(&query.promql, service, span.interval);
    match query.instant {
        true => prometheus.query(&promql).unwrap(),
        false => prometheus
            .query_range(&promql, (span.from, span.to), span.interval)
            .unwrap(),
    }
}

/// Whether any series has a value that is a number.
fn has_value(series: &Value) -> bool {
    let is_number = |value: &Value| value[1].as_str().is_some_and(|text| text != "NaN");
    series
        .as_array()
        .unwrap()
        .iter()
        .any(|one| match one.get("values") {
            Some(values) => values.as_array().unwrap().iter().any(is_number),
            None => is_number(&one["value"]),
        })
}

fn write_down(
    dashboard: &Dashboard,
    panel: &grafana::Panel,
    services: &[&str],
    answers: &[Vec<Value>],
) {
    let Some(directory) = std::env::var_os(OUT) else {
        return;
    };
    for (index, service) in services.iter().enumerate() {
        let of_one: Vec<&Value> = answers.iter().map(|answers| &answers[index]).collect();
        let name = format!(
            "{}.{}.{}.json",
            dashboard.uid,
            service.replace(".*", "all"),
            panel.json["id"]
        );
        let text = json!({"panel": panel.json, "answers": of_one}).to_string();
        fs::write(Path::new(&directory).join(name), text).unwrap();
    }
}

#[test]
fn rules_pass_promtool() {
    let directory = compose("prometheus");
    let rules = ["rules/lb-agent.recording.yml", "rules/lb-agent.alerts.yml"];
    promtool(&directory, &["check", "config", "prometheus.yml"]).unwrap();
    promtool(&directory, &["check", "rules", rules[0], rules[1]]).unwrap();
    let tests = "rules/lb-agent.alerts.test.yml";
    promtool(&directory, &["test", "rules", tests]).unwrap();
    // Each alert is among those that are tested and described, and leads to what to do.
    let described = fs::read_to_string(compose("../docs/dashboards.md")).unwrap();
    let troubles = fs::read_to_string(compose("../docs/troubleshooting.md")).unwrap();
    let text = fs::read_to_string(directory.join(rules[1])).unwrap();
    let tested = fs::read_to_string(directory.join(tests)).unwrap();
    let alerts = text.split("- alert: ").skip(1);
    for alert in alerts {
        let (name, rest) = alert.split_once('\n').unwrap();
        for (samples, what) in [
            ("exp_samples: []", "not to fire"),
            ("exp_samples:\n", "to fire"),
        ] {
            let mut queries = tested.split("- expr: ").skip(1);
            let found = queries.any(|query| {
                query.contains(&format!("alertname=\"{name}\", alertstate"))
                    && query.contains(samples)
            });
            assert!(found, "no test expects {name} {what}");
        }
        let severity = rest.split_once("severity: ").unwrap().1;
        let severity = severity.split_once('\n').unwrap().0;
        let row = format!("| `{name}` | {severity} | ");
        assert!(
            described.contains(&row),
            "docs/dashboards.md has no row {row:?}"
        );
        for part in ["summary: ", "description: "] {
            assert!(rest.contains(part), "{name} has no {part}");
        }
        let anchor = rest.split_once("docs/troubleshooting.md#").unwrap().1;
        let anchor = format!("id=\"{}\"", anchor.lines().next().unwrap());
        assert!(troubles.contains(&anchor), "no word on {name}: {anchor}");
    }
}

/// Names of metrics in PromQL or YAML, recorded ones apart: these have colons.
fn names(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !is_part(c))
        .filter(|word| word.contains("lb_") || word.starts_with("process_"))
        .map(|word| word.trim_matches(':').to_owned())
        .partition(|word| !word.contains(':'))
}

/// What the agent's sources call metrics.
fn own_names() -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lb-agent/src/metrics");
    let mut own = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(path).unwrap();
            let quoted = text.split('"').skip(1).step_by(2);
            let is_metric = |word: &&str| word.starts_with("lb_") || word.starts_with("process_");
            own.extend(quoted.filter(is_metric).map(str::to_owned));
        }
    }
    own
}

#[test]
fn metrics_of_dashboards_and_rules_exist() {
    let own = own_names();
    let rules = |name: &str| fs::read_to_string(compose("prometheus/rules").join(name)).unwrap();
    let (recording, alerts) = (
        rules("lb-agent.recording.yml"),
        rules("lb-agent.alerts.yml"),
    );
    let recorded: BTreeSet<String> = recording
        .split("- record: ")
        .skip(1)
        .map(|rule| rule.split_once('\n').unwrap().0.to_owned())
        .collect();
    let mut texts = vec![
        ("recording rules".to_owned(), recording),
        ("alerts".to_owned(), alerts),
    ];
    for dashboard in dashboards() {
        for panel in &dashboard.panels {
            assert!(
                !panel.queries.is_empty(),
                "{}: {:?}",
                dashboard.uid,
                panel.title
            );
            for query in &panel.queries {
                let place = format!("{}: {:?}", dashboard.uid, panel.title);
                texts.push((place, query.promql.clone()));
            }
        }
        let uid = &dashboard.uid;
        let variables = dashboard.variables.iter();
        texts.extend(variables.map(|one| (format!("{uid}: variables"), one.series.clone())));
        let annotations = dashboard.annotations.iter();
        texts.extend(annotations.map(|(_, query)| (format!("{uid}: annotations"), query.clone())));
    }
    let mut used = BTreeSet::new();
    for (place, text) in &texts {
        let (metrics, of_rules) = names(text);
        for name in of_rules {
            assert!(recorded.contains(&name), "{place}: nothing records {name}");
            used.insert(name);
        }
        for name in metrics {
            let parts = ["_bucket", "_sum", "_count"];
            let family = parts.iter().find_map(|part| name.strip_suffix(part));
            let family = family
                .filter(|family| own.contains(*family))
                .unwrap_or(&name);
            assert!(own.contains(family), "{place}: the agent has no {name}");
            used.insert(family.to_owned());
        }
    }
    for name in &own {
        let reason = UNUSED.iter().find(|(unused, _)| unused == name);
        assert_ne!(used.contains(name), reason.is_some(), "{name}: {reason:?}");
    }
}
