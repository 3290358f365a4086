//! `-o json`: each command's reply is one JSON document with the same keys every time.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::scene::{Scene, reply};

/// Objects whose keys are data: names of subsets, states.
const MAPS: [&str; 5] = [
    "repairs",
    "shares",
    "base_shares",
    "configured_shares",
    "used_by_state",
];

const COUNTERS: &str = "{bytes_in bytes_out connections_refused connections_unanswered \
                        flows_created flows_live packets_in packets_out}";
const SPLIT: &str = "{origin shares source}";
const LAYERS: &str = "[{idle in_force split{origin shares source}}]";
const SHIFT: &str = "{base_shares began_unix_ms ended_unix_ms every_ms failed_windows last_reason \
                     last_window next_unix_ms percent phase reason step_percent subset to_percent}";
const ORIGIN: &str = "origin{at_unix_ms index kind text user}";
const RULE: &str = "{added_unix_ms expires_unix_ms origin prefix reason}";

fn service() -> String {
    format!(
        "{{affinity allow[] backends backends_active backends_healthy consul_service \
         counters{COUNTERS} forwarding health{{panic_percent passive{{eject_max_ms eject_ms \
         failures}} slow_start_ms}} name notes[] origin panic probe{{body fall grpc_service host \
         interval_ms kind path port rise status_max status_min statuses[] timeout_ms tls}} protocol \
         requests restricted routes[] shift split{SPLIT} split_layers{LAYERS} vips[]}}"
    )
}

fn backends() -> String {
    format!(
        "backends[{{address catalog_detail catalog_health counters{COUNTERS} \
         disabled_reason drain_cut_flows drain_deadline_unix_ms drained_by draining_since_unix_ms \
         ejected_reason ejected_until_unix_ms enabled health held_until_unix_ms id observed \
         observed_reason observed_since_unix_ms reason registered_weight service share_percent \
         slow_start_percent subset weight}}] \
         now_unix_ms"
    )
}

fn explanation() -> String {
    let origin = ORIGIN.strip_prefix("origin").unwrap();
    format!(
        "explanation{{backends[{{address expected_percent factors[{{name note {ORIGIN} value}}] \
         flows kernel{{active address id interface mac present router service source}} slots \
         slots_percent}}] split_origins[{origin}] tables[{{foreign map present service slots}}] \
         vips[{{flags present service slots vip}}]}}"
    )
}

fn status() -> String {
    "{agent_version block_rules catalog{backends backends_healthy services services_healthy} \
     consul_address docker drains[] drift{compared_unix_ms last last_unix_ms repairs} evictions{closed half_open} flow_tables[{family slots used used_by_state}] interfaces[{adopted mode name}] \
     last_apply_us local_clients maglev_rebuilds{count last_us total_us} node_drain now_unix_ms problems[] \
     snapshot_version started_unix_ms verdicts[{action bytes help name packets}] watches[]}"
        .to_owned()
}

/// The keys of a document in alphabetical order, those of an object in it behind its own. All
/// elements of an array have the same.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> = fields.iter().collect();
            let words = fields.into_iter().map(|(key, value)| {
                let inside = match MAPS.contains(&key.as_str()) {
                    true => String::new(),
                    false => shape(value),
                };
                format!("{key}{inside}")
            });
            format!("{{{}}}", words.collect::<Vec<_>>().join(" "))
        }
        Value::Array(elements) => {
            let mut shapes: Vec<String> = elements.iter().map(shape).collect();
            shapes.dedup();
            assert!(shapes.len() <= 1, "elements differ: {shapes:?}");
            format!("[{}]", shapes.concat())
        }
        _ => String::new(),
    }
}

#[test]
fn replies_have_the_keys_that_programs_rely_on() {
    let lines = "subsets = { v1 = { tag = \"v1\" }, v2 = { tag = \"v2\" } }\n\
                 split = { v1 = 90, v2 = 10 }\n\
                 health = { kind = \"http\", path = \"/health\" }";
    let scene = Scene::listed(&["v1", "v2"], lines, "");
    let b1 = scene.topology.backend_address(1).to_string();
    let list = scene.topology.directory().join("list");
    fs::write(&list, "192.0.2.1\n2001:db8::/32\n").unwrap();
    let list = list.display().to_string();
    let config = scene.agent.config_file().display().to_string();
    let service = service();
    let drained = status()
        .replace(
            "drains[]",
            "drains[{address backend_id by cut_flows deadline_unix_ms flows local_connections \
             service since_unix_ms}]",
        )
        .replace(
            "node_drain",
            "node_drain{by deadline_unix_ms leaves_unix_ms since_unix_ms}",
        );
    let backends = backends();
    let explanation = explanation();
    let rows: [(&[&str], String); 26] = [
        (&["status"], status()),
        (&["service", "list"], format!("{{services[{service}]}}")),
        (
            &["service", "show", "echo"],
            format!(
                "{{{} {explanation} now_unix_ms service{service}}}",
                backends.strip_suffix(" now_unix_ms").unwrap()
            ),
        ),
        (
            &["explain", "echo"],
            format!(
                "{{now_unix_ms services[{{{} because {explanation} matched routes[] service{service} treatment[]}}]}}",
                backends.strip_suffix(" now_unix_ms").unwrap()
            ),
        ),
        (&["backend", "list"], format!("{{{backends}}}")),
        (&["backend", "list", "echo"], format!("{{{backends}}}")),
        (
            &["split", "set", "echo", "v1=1", "v2=1"],
            format!("{{service split{SPLIT}}}"),
        ),
        (
            &["split", "show"],
            format!(
                "{{now_unix_ms services[{{configured_shares layers{LAYERS} service shift \
                 split{SPLIT} subsets[{{backends backends_active share share_percent subset}}]}}]}}"
            ),
        ),
        (
            &["split", "shift", "echo", "v2", "--to", "60"],
            format!("{{service shift{SHIFT} split{SPLIT}}}"),
        ),
        (
            &["split", "promote", "echo"],
            format!("{{service shift{SHIFT} split{SPLIT}}}"),
        ),
        (
            &["split", "rollback", "echo"],
            format!("{{service split{SPLIT}}}"),
        ),
        (
            &["split", "reset", "echo"],
            format!("{{service split{SPLIT}}}"),
        ),
        (&["drain", "echo", &b1], "{backend_id service}".to_owned()),
        (
            &["drain", "--node"],
            "{drain{by deadline_unix_ms leaves_unix_ms since_unix_ms}}".to_owned(),
        ),
        (&["status"], drained),
        (&["undrain", "--node"], "{}".to_owned()),
        (&["undrain", "echo", &b1], "{backend_id service}".to_owned()),
        (
            &["backend", "history", "echo"],
            "{changes[{address at_unix_ms from id reason service source to}] now_unix_ms older}"
                .to_owned(),
        ),
        (
            &["block", "add", "203.0.113.7", "--ttl", "1h"],
            format!("{{notes[] now_unix_ms rules[{RULE}]}}"),
        ),
        (
            &["block", "import", &list],
            "{imported notes[] total}".to_owned(),
        ),
        (
            &["block", "list"],
            format!("{{blocks[{{dropped_bytes dropped_packets rule{RULE}}}] now_unix_ms}}"),
        ),
        (&["block", "del", "203.0.113.7"], "{deleted}".to_owned()),
        (
            &["flow", "list"],
            "{flows[{backend client idle_ms protocol service source state vip}] total}".to_owned(),
        ),
        (
            &["flow", "count"],
            "{counts[{backend flows protocol service state}]}".to_owned(),
        ),
        (&["reload"], "{}".to_owned()),
        (
            &["check", &config],
            "{file interfaces[] proxy{access_log listeners[] traces} services[] valid}".to_owned(),
        ),
    ];
    for (words, expected) in rows {
        assert_eq!(shape(&reply(&scene.agent, words)), expected, "{words:?}");
    }
    scene.agent.stop().unwrap();
    let detach = [
        "detach",
        "--bpf-dir",
        &scene.agent.pins().display().to_string(),
    ];
    let detached = reply(&scene.agent, &detach);
    assert_eq!(shape(&detached), "{removed[]}");
    assert_ne!(detached["removed"].as_array().map(Vec::len), Some(0));
}
