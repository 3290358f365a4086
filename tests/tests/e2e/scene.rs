//! What several stories begin with, a service with its backends and the agent, and ways to look at
//! what becomes of it.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use lb_tests::{
    agent::{Agent, Setup},
    backend::Backend,
    client::Client,
    load::{Load, Pace},
    namespace::Namespace,
    pace::at_this_pace,
    process::wait_for,
    topology::Topology,
};
use serde_json::Value;

/// Where clients find the service.
pub(crate) const VIP: &str = "198.51.100.10:80";
/// The same for IPv6.
pub(crate) const VIP6: &str = "[2001:db8:100::10]:80";
/// Where the agent shows its metrics, on the node.
pub(crate) const METRICS: &str = "127.0.0.1:9180";
/// How long anything may take that is bound to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Parses one of the addresses above.
pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("a valid address")
}

/// What the kernel of a host has counted, as nstat(8) shows it; `None`: it does not count that. `file`
/// is one of `/proc/net`.
pub(crate) fn counter(host: &Namespace, file: &str, table: &str, name: &str) -> Option<u64> {
    let path = format!("/proc/thread-self/net/{file}");
    let text = host.run(|| fs::read_to_string(path).unwrap());
    let mut rows = text.lines().filter_map(|line| line.strip_prefix(table));
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let mut fields = names.split_whitespace().zip(values.split_whitespace());
    let (_, count) = fields.find(|(field, _)| *field == name)?;
    Some(count.parse().unwrap())
}

/// The service `echo` on its VIPs. Dropped from the top down: the agent first, the hosts last.
pub(crate) struct Scene {
    pub(crate) agent: Agent,
    pub(crate) backends: Vec<Backend>,
    pub(crate) topology: Topology,
}

impl Scene {
    /// One backend for each of `tags`, listed in the agent's configuration with that tag, on both
    /// families. `service` holds further lines of the service, `tables` further tables.
    pub(crate) fn listed(tags: &[&str], service: &str, tables: &str) -> Self {
        Self::listed_on("", tags, service, tables)
    }

    /// The same with lines for the table `[node]`.
    pub(crate) fn listed_on(node: &str, tags: &[&str], service: &str, tables: &str) -> Self {
        let (topology, backends) = hosts(tags.len());
        let rows: String = (1..)
            .zip(tags)
            .flat_map(|(number, tag)| {
                let addresses = [
                    topology.backend_address(number),
                    topology.backend_address6(number),
                ];
                addresses.map(|address| entry(address, tag))
            })
            .collect();
        let config = config(&format!("backends = [\n{rows}]\n{service}"), tables);
        let setup = Setup::new(&topology).node(node).config(&config);
        let agent = setup.start().unwrap();
        let scene = Self {
            agent,
            backends,
            topology,
        };
        scene.wait_until_served(&[VIP, VIP6]);
        scene
    }

    /// Sends from the client's first address.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.topology.client())
    }

    /// Waits until the state on disk names all of these, as in `lb-node/b1`. What Consul lists is
    /// in force first and on disk later.
    pub(crate) fn wait_until_saved(&self, names: &[&str]) {
        let saved = self.topology.directory().join("state/state.json");
        wait_for("the state to be saved", PATIENCE, || {
            let text = fs::read_to_string(&saved).unwrap_or_default();
            let all = names.iter().all(|name| text.contains(name));
            Ok(all.then_some(()))
        })
        .unwrap();
    }

    /// Waits until every backend answers on each of `vips`, and nothing fails.
    pub(crate) fn wait_until_served(&self, vips: &[&str]) {
        let client = self
            .client()
            .patience(at_this_pace(Duration::from_millis(500)));
        for vip in vips {
            let what = format!("all backends to answer through {vip}");
            wait_for(&what, PATIENCE, || {
                self.agent.process().ensure_running()?;
                let spread = client.spread(address(vip), 60, 4);
                let all = spread.backends.len() == self.backends.len() && spread.failed() == 0;
                Ok(all.then_some(()))
            })
            .unwrap();
        }
    }

    /// `rate` requests a second to the VIP.
    pub(crate) fn load(&self, rate: f64) -> Load {
        let pace = Pace {
            threads: 2,
            rate: Some(rate),
        };
        Load::start(&self.client(), address(VIP), pace)
    }

    /// Replaces the only occurrence of `old` in the configuration, and has it read again.
    pub(crate) fn reconfigure(&self, old: &str, new: &str) {
        let file = self.agent.config_file();
        let text = fs::read_to_string(file).unwrap();
        assert_eq!(text.matches(old).count(), 1, "{old:?} in {text}");
        fs::write(file, text.replace(old, new)).unwrap();
        self.agent.command(&["reload"]).unwrap();
    }

    /// What the agent shows to Prometheus.
    pub(crate) fn scrape(&self) -> String {
        self.agent.metrics(address(METRICS)).unwrap()
    }

    /// The problems that `status` tells; none if and only if its exit code is 0.
    pub(crate) fn problems(&self) -> Vec<String> {
        let output = self.agent.cli(&["-o", "json", "status"]).unwrap();
        let status: Value = serde_json::from_str(&output.stdout).unwrap();
        let problems: Vec<String> = status["problems"]
            .as_array()
            .unwrap()
            .iter()
            .map(|problem| problem.as_str().unwrap().to_owned())
            .collect();
        let expected = if problems.is_empty() { 0 } else { 3 };
        assert_eq!(output.code, expected, "{problems:?}");
        problems
    }

    /// Waits until `status` tells a problem that contains `words`.
    pub(crate) fn wait_for_problem(&self, words: &str) {
        wait_for(&format!("status to tell of {words:?}"), PATIENCE, || {
            let told = self.problems().iter().any(|text| text.contains(words));
            Ok(told.then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}; it says {:?}", self.problems()));
    }

    /// Waits until `status` has nothing to complain of.
    pub(crate) fn wait_until_healthy(&self) {
        wait_for("status to be good", PATIENCE, || {
            Ok(self.problems().is_empty().then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}; it says {:?}", self.problems()));
    }
}

/// The hosts, and a backend on each of `count`.
pub(crate) fn hosts(count: usize) -> (Topology, Vec<Backend>) {
    let topology = Topology::new(count).unwrap();
    let backends = (1..=count)
        .map(|number| topology.start_echo(u8::try_from(number).unwrap()).unwrap())
        .collect();
    (topology, backends)
}

/// The agent's configuration but for its table `[node]`: the service with these lines, and tables.
pub(crate) fn config(service: &str, tables: &str) -> String {
    format!(
        "[[service]]\nname = \"echo\"\nvip = [\"{VIP}\", \"{VIP6}\"]\n{service}\n\n\
         [metrics]\nlisten = \"{METRICS}\"\n\n{tables}\n"
    )
}

/// A UDP service on the VIPs of the other, with the first backends of the topology.
pub(crate) fn udp_service(backends: u8) -> String {
    let rows: String = (1..=backends)
        .map(|number| {
            format!(
                "  {{ address = \"10.77.{number}.2:8080\" }}, \
                 {{ address = \"[fd77:{number}::2]:8080\" }},\n"
            )
        })
        .collect();
    format!(
        "[[service]]\nname = \"echo-udp\"\nvip = [\"{VIP}\", \"{VIP6}\"]\nprotocol = \"udp\"\n\
         backends = [\n{rows}]\n"
    )
}

/// A backend in the list of a service.
pub(crate) fn entry(address: SocketAddr, tag: &str) -> String {
    format!("  {{ address = \"{address}\", tags = [\"{tag}\"] }},\n")
}

/// The agent's reply to a command that succeeds.
pub(crate) fn reply(agent: &Agent, args: &[&str]) -> Value {
    let words: Vec<&str> = ["-o", "json"].iter().chain(args).copied().collect();
    let text = agent.command(&words).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error} in {text}"))
}

/// The sum of a metric's samples that carry all of `labels` (each as in `service="echo"`); `None`
/// if there is no such sample.
pub(crate) fn sample(scrape: &str, metric: &str, labels: &[&str]) -> Option<f64> {
    scrape
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(metric)?;
            let (own, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            let fits = |label: &&str| own.split(',').any(|each| each == *label);
            labels.iter().all(fits).then_some(value)
        })
        .map(|value| value.parse::<f64>().unwrap())
        .reduce(|a, b| a + b)
}

/// A connection that stays open, for one question after another.
pub(crate) struct Conversation(TcpStream);

impl Conversation {
    /// Connects until it has this backend at the other end.
    pub(crate) fn with(backend: &str, from: &Namespace, to: SocketAddr) -> Self {
        for _ in 0..500 {
            let mut conversation = Self::open(from, to);
            if conversation.ask() == backend {
                return conversation;
            }
        }
        panic!("{backend} never answered");
    }

    /// Connects, to whichever backend.
    pub(crate) fn open(from: &Namespace, to: SocketAddr) -> Self {
        let stream = from.run(|| TcpStream::connect(to)).unwrap();
        stream
            .set_read_timeout(Some(at_this_pace(Duration::from_secs(5))))
            .unwrap();
        Self(stream)
    }

    /// Asks once more, and whether nobody answers any more.
    pub(crate) fn is_cut(&mut self) -> bool {
        let request = b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n";
        let asked = self.0.write_all(request);
        asked.is_err() || !matches!(self.0.read(&mut [0; 1024]), Ok(length) if length > 0)
    }

    /// Asks once more; who answers.
    pub(crate) fn ask(&mut self) -> String {
        self.0
            .write_all(b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        // The body is a line with one JSON object without another in it.
        while !answer.ends_with(b"}\n") {
            let length = self.0.read(&mut buffer).unwrap();
            assert_ne!(length, 0, "the connection was closed");
            answer.extend_from_slice(&buffer[..length]);
        }
        let text = String::from_utf8(answer).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        body["hostname"].as_str().unwrap().to_owned()
    }
}

#[test]
fn samples_are_found_by_name_and_labels() {
    let scrape =
        "# TYPE a counter\na{b=\"1\",c=\"2\"} 3\na{b=\"1\",c=\"4\"} 5\nab{b=\"1\"} 70\nd 0.5\n";
    assert_eq!(sample(scrape, "a", &["b=\"1\""]), Some(8.0));
    assert_eq!(sample(scrape, "a", &["c=\"4\"", "b=\"1\""]), Some(5.0));
    assert_eq!(sample(scrape, "a", &["c=\"5\""]), None);
    assert_eq!(sample(scrape, "d", &[]), Some(0.5));
}
