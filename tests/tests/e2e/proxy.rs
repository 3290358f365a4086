//! The proxy of requests, as clients see it: by the VIP of a service, and by its host on a listener
//! that all share.

use std::collections::BTreeSet;

use lb_tests::{
    agent::{Agent, Setup},
    namespace::Namespace,
    process::wait_for,
    topology::Topology,
};

use crate::scene::{METRICS, PATIENCE, VIP, VIP6};

/// A listener of the node that routes by host.
const SHARED: &str = "10.77.0.1:8080";

/// What curl prints, with the status behind it.
fn curl(from: &Namespace, words: &[&str]) -> anyhow::Result<(String, String)> {
    let mut all = vec![
        "--silent",
        "--show-error",
        "--max-time",
        "5",
        "--globoff",
        "--write-out",
        "\n%{http_code}",
    ];
    all.extend(words);
    let printed = from.tool("curl", &all)?;
    let (body, status) = printed.rsplit_once('\n').unwrap_or(("", &printed));
    Ok((body.to_owned(), status.to_owned()))
}

fn start(topology: &Topology) -> Agent {
    let rows: String = (1..=2)
        .map(|number| format!("{{ address = \"{}\" }},", topology.backend_address(number)))
        .collect();
    let config = format!(
        "[proxy]\nlisten = [\"{SHARED}\"]\n\n\
         [[service]]\nname = \"web\"\nvip = [\"{VIP}\", \"{VIP6}\"]\nprotocol = \"http\"\n\
         backends = [{rows}]\n\n[metrics]\nlisten = \"{METRICS}\"\n"
    );
    Setup::new(topology).config(&config).start().unwrap()
}

/// Who answers through these arguments of curl's, within a number of requests.
fn answering(from: &Namespace, words: &[&str]) -> BTreeSet<String> {
    (0..20)
        .filter_map(|_| {
            let (body, status) = curl(from, words).ok()?;
            let body: serde_json::Value = serde_json::from_str(&body).ok()?;
            (status == "200").then(|| body["hostname"].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

/// Both ways spread requests over the backends; a host that nobody knows is told so.
#[test]
fn requests_come_by_vip_and_by_host() {
    let topology = Topology::new(2).unwrap();
    let _backends = [1, 2].map(|number| topology.start_echo(number).unwrap());
    let agent = start(&topology);
    let client = topology.client();
    let shared = format!("http://{SHARED}/");
    let (v4, v6) = (format!("http://{VIP}/"), format!("http://{VIP6}/"));
    let ways: [&[&str]; 5] = [
        &["-H", "Host: web", &shared],
        &["-H", "Host: web.consul.localhost", &shared],
        &["--http2-prior-knowledge", "-H", "Host: web", &shared],
        &[&v4],
        &[&v6],
    ];
    let both = BTreeSet::from(["b1".to_owned(), "b2".to_owned()]);
    for way in ways {
        wait_for(&format!("both backends by {way:?}"), PATIENCE, || {
            agent.process().ensure_running()?;
            Ok((answering(client, way) == both).then_some(()))
        })
        .unwrap_or_else(|error| {
            let last = curl(client, way);
            panic!("{error:#}: {last:?}\n{}", agent.process().tail())
        });
    }
    let (_, status) = curl(client, &["-H", "Host: nobody", &shared]).unwrap();
    assert_eq!(status, "404");
}

/// What is blocked never reaches the proxy.
#[test]
fn blocked_clients_die_before_the_proxy() {
    let topology = Topology::new(2).unwrap();
    let _backends = [1, 2].map(|number| topology.start_echo(number).unwrap());
    let agent = start(&topology);
    let client = topology.client();
    let ways = [
        (format!("http://{VIP}/"), "web"),
        (format!("http://{SHARED}/"), "web"),
    ];
    let works = |url: &str, host: &str| {
        let header = format!("Host: {host}");
        let words = ["--connect-timeout", "1", "-H", &header, url];
        curl(client, &words).is_ok_and(|(_, status)| status == "200")
    };
    for (url, host) in &ways {
        wait_for(&format!("an answer by {url}"), PATIENCE, || {
            Ok(works(url, host).then_some(()))
        })
        .unwrap();
    }
    let own = topology.client_addresses()[0].to_string();
    assert_eq!(agent.cli(&["block", "add", &own]).unwrap().code, 0);
    for (url, host) in &ways {
        assert!(!works(url, host), "{url} answers whom it should not know");
    }
    assert_eq!(agent.cli(&["block", "del", &own]).unwrap().code, 0);
    for (url, host) in &ways {
        assert!(works(url, host), "{url} stays away");
    }
}
