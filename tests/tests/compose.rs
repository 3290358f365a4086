//! The demonstration of `compose/` does what its README says, by the README's own commands, and goes
//! away again.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use lb_tests::{
    compose::{Demonstration, Steps},
    process::wait_for,
    stats::bounds,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// Those who write beside their programs when they start, and say so in the README.
const WRITABLE: [&str; 1] = ["elasticsearch"];
/// Those with nothing in their image to ask with.
const UNASKED: [&str; 1] = ["fluent-bit"];

#[test]
fn the_readme_can_be_followed() {
    let demonstration = Demonstration::new().unwrap();
    let shell = |script: &str| {
        let said = demonstration.shell(script);
        said.unwrap_or_else(|error| panic!("{error:#}\n{}", seen(&demonstration)))
    };
    let mut steps = Steps::read().unwrap();
    let mut step = |words: &str| {
        let script = steps.next(words).unwrap();
        println!("{}", script.trim_end());
        shell(&script)
    };
    shell("bash local/base.sh");

    step("up -d --wait --scale echo=10");
    // Healthy is not yet registered, and all of ten take a moment more.
    wait_for("ten containers to be healthy backends", PATIENCE, || {
        let list = demonstration.shell("docker compose exec agent lb-agent backend list echo")?;
        Ok((list.matches(" healthy").count() == 10).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", seen(&demonstration)));
    let said = step("uniq -c");
    let first: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(first["version"], "v1", "{said}");
    assert!(first["request_id"].is_string(), "{said}");
    let names = counts(&said, "hostname");
    assert_eq!(names.len(), 10, "{said}");
    assert_eq!(names.values().sum::<usize>(), 100, "{said}");

    are_confined(&demonstration);
    let id = first["request_id"].as_str().unwrap();
    let logged = shell(
        "docker run --rm -v lb-demo_access-log:/log:ro lb-agent/base:local cat /log/access.log",
    );
    assert!(logged.contains(id), "{id}: {logged}");
    wait_for("the span of a request", PATIENCE, || {
        let spans = demonstration.shell("docker compose logs --no-log-prefix jaeger")?;
        Ok(spans.contains(id).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", seen(&demonstration)));

    let status = step("lb-agent status");
    assert!(
        status.contains("10 of 10 services registered in Consul"),
        "{status}"
    );
    assert!(status.contains("eth0 (native)"), "{status}");
    let vips = step("198.18.80.200");
    assert_eq!(vips.matches("\"hostname\"").count(), 2, "{vips}");
    assert!(vips.contains("198.18.80.201"), "{vips}");

    let before = step("--profile bluegreen up");
    assert!(before.contains("v1"), "{before}");
    wait_for("the next version to be registered", PATIENCE, || {
        let list = demonstration.shell("docker compose exec agent lb-agent backend list echo")?;
        Ok((list.matches(" healthy").count() == 13).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", seen(&demonstration)));
    for (words, share) in [("v1=90 v2=10", 0.1), ("v1=50 v2=50", 0.5)] {
        let versions = counts(&step(words), "version");
        let got = versions.get("v2").copied().unwrap_or_default();
        let (least, most) = bounds(300, share, 5.0);
        assert!((least..=most).contains(&got), "{words}: {versions:?}");
        assert_eq!(versions.values().sum::<usize>(), 300, "{versions:?}");
    }

    let said = step("block add");
    assert!(said.contains("dropped"), "{said}");
    let dropped = said
        .lines()
        .last()
        .unwrap()
        .split_whitespace()
        .collect::<Vec<_>>();
    assert_eq!(dropped[0], "198.18.80.20/32", "{said}");
    // Others are still served.
    assert!(
        shell("curl -sf -H 'Host: echo.consul.localhost' http://127.0.0.1/").contains("hostname")
    );
    let answer: Value = serde_json::from_str(&step("query=lb_block_packets_total")).unwrap();
    let sample = &answer["data"]["result"][0];
    assert_eq!(sample["metric"]["prefix"], "198.18.80.20/32", "{answer}");
    let packets: f64 = sample["value"][1].as_str().unwrap().parse().unwrap();
    assert!(packets > 0.0, "{answer}");
    assert!(step("block del").contains("hostname"));

    // Requests go on while containers go.
    let mut steady = demonstration.command(STEADY).unwrap();
    let steady = steady.stdout(Stdio::piped()).spawn().unwrap();
    step("--scale echo=4");
    let output = steady.wait_with_output().unwrap();
    let codes = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        codes.lines().filter(|code| *code == "200").count(),
        400,
        "{codes}"
    );
    shell("docker compose exec agent lb-agent split set echo v1=100 v2=0");
    let left = counts(&shell(SPREAD), "hostname");
    assert_eq!(left.len(), 4, "{left:?}");

    step("down -v");
    assert_eq!(steps.left(), [""; 0]);
    for nothing in [
        "docker ps --all --quiet",
        "docker volume ls --quiet",
        "docker network ls --quiet --filter name=lb-demo",
    ] {
        assert_eq!(shell(nothing), "", "{nothing}");
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let directory = demonstration.directory().display().to_string();
    assert!(
        !mounts
            .lines()
            .any(|line| line.starts_with("bpf ") && line.contains(&directory)),
        "{mounts}"
    );
}

/// Twenty seconds of requests, each by a connection of its own.
const STEADY: &str = "curl -s --rate 20/s -H 'Host: echo.consul.localhost' -H 'Connection: close' \
     -o /dev/null -w '%{http_code}\\n' 'http://127.0.0.1/?[1-400]'";

/// The README's command for seeing who answers.
const SPREAD: &str = "curl -s -H 'Host: echo.consul.localhost' 'http://127.0.0.1/?[1-100]' \
     | grep -o '\"hostname\":\"[^\"]*\"' | sort | uniq -c";

#[test]
fn every_container_is_confined() {
    let demonstration = Demonstration::new().unwrap();
    let full = demonstration.full().unwrap();
    let services = full["services"].as_object().unwrap();
    assert!(services.len() >= 10, "{:?}", services.keys());
    for (name, service) in services {
        let name = name.as_str();
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        let options = service["security_opt"].to_string();
        assert!(
            options.contains("no-new-privileges:true"),
            "{name}: {options}"
        );
        assert_eq!(service["privileged"], Value::Null, "{name}");
        assert_eq!(service["network_mode"], Value::Null, "{name}");
        assert_eq!(
            service["read_only"] == true,
            !WRITABLE.contains(&name),
            "{name}"
        );
        assert_eq!(
            service["healthcheck"].is_object() || built(service, "echo"),
            !UNASKED.contains(&name),
            "{name}"
        );
        for limit in ["cpus", "mem_limit", "pids_limit"] {
            assert!(!service[limit].is_null(), "{name}: {limit}");
        }
        let (_, tag) = service["image"].as_str().unwrap().rsplit_once(':').unwrap();
        assert!(tag.split('.').count() == 3, "{name} is pinned to {tag}");
        let user = service["user"].as_str().unwrap_or("0");
        let agent = built(service, "agent");
        assert_eq!(user.starts_with('0'), agent, "{name} is {user}");
        assert_eq!(service["cap_add"].is_null(), !agent, "{name}");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}: {port}");
        }
    }
}

/// What the kernel says of the first process of each container that runs: no more rights than those that
/// `compose.yml` and, for the agent, `compose.local.yml` name.
fn are_confined(demonstration: &Demonstration) {
    // CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN, by their numbers.
    let of_the_agent = format!("{:016x}", 1 << 12 | 1 << 13 | 1 << 21);
    let none = format!("{:016x}", 0);
    let format = "{{.State.Pid}} {{.HostConfig.ReadonlyRootfs}} {{.Name}}";
    let told = demonstration
        .shell(&format!(
            "docker inspect --format '{format}' $(docker ps --quiet)"
        ))
        .unwrap();
    assert!(told.lines().count() >= 15, "{told}");
    for line in told.lines() {
        let (pid, rest) = line.split_once(' ').unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().split_whitespace().next().unwrap()
        };
        let agent = rest.ends_with("/lb-demo-agent-1");
        let capabilities = if agent { &of_the_agent } else { &none };
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(value(set), capabilities, "{set} {rest}");
        }
        assert_eq!(
            (value("NoNewPrivs:"), value("Seccomp:")),
            ("1", "2"),
            "{rest}"
        );
        assert_eq!(value("Uid:") == "0", agent, "{rest}");
        assert!(rest.starts_with("true "), "{rest}");
    }
}

/// Whether it is an image of ours, by its target. The health of the echo service is asked for by its image.
fn built(service: &Value, target: &str) -> bool {
    service["build"]["target"] == target
}

/// How often each value of a field is in what `uniq -c` printed.
fn counts(said: &str, field: &str) -> BTreeMap<String, usize> {
    let field = format!("\"{field}\":");
    let mut counts = BTreeMap::new();
    for line in said.lines() {
        let Some((count, value)) = line.trim().split_once(' ') else {
            continue;
        };
        if let (Ok(count), Some(value)) = (count.parse(), value.strip_prefix(&field)) {
            counts.insert(value.trim_matches('"').to_owned(), count);
        }
    }
    counts
}

/// What helps to understand a failure.
fn seen(demonstration: &Demonstration) -> String {
    let looks = "docker compose --profile '*' ps -a; docker compose logs --tail 20; docker compose exec agent lb-agent status";
    demonstration
        .shell(&format!("{{ {looks}; }} 2>&1 || true"))
        .unwrap_or_else(|error| format!("{error:#}"))
}
